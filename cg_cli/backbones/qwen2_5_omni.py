"""Qwen2.5-Omni: the thinker (vision tower, audio tower, language model), loaded alone from any of its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import apply_rotary_pos_emb
from transformers.utils import logging as transformers_logging

from .. import cost
from ..errors import ItemError, UsageError
from ..media.clip import SAMPLE_RATE, Clip
from ..models import NANO
from ..pruning.budget import Budget
from ..pruning.decoder import DecoderPruner, LayerView
from ..pruning.stream import AUDIO, TEXT, VIDEO, TokenStream
from . import grouped_attention, qwen_inputs, qwen_layout, qwen_shapes
from .base import Backbone, Narrowing, Prefix
from .checkpoint import Checkpoint, read_config
from .device import resolve_device, resolve_dtype
from .weighted import ROWS, UnevenCache, WeightedCache

SIDE = 28  # pixels of a merged patch: 2 x 2 patches of 14
FRAMES = 2  # of a grid
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")
PREPROCESSOR = "preprocessor_config.json"


def load(checkpoint: Checkpoint, *, device: str, dtype: str) -> Backbone:
    """Load the thinker of ``checkpoint``, full Omni or thinker-only.

    Raises:
        UsageError: files that cannot be read, weights missing or of another shape, or too little memory.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    place = resolve_device(device)
    kind = resolve_dtype(dtype, place)
    directory = str(checkpoint.directory)
    try:
        model, report = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
            directory, dtype=kind, attn_implementation="sdpa", output_loading_info=True, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model = model.to(place)
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{checkpoint.id} does not fit {place} in {kind}; use a smaller model or --device cpu"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(f"cannot load {checkpoint.id} ({reason}); check its files or fetch them again") from error
    for problem in ("missing_keys", "mismatched_keys"):
        # transformers only warns and goes on with random weights.
        if report[problem]:
            names = sorted(map(str, report[problem]))
            what = problem.removesuffix("_keys")
            raise UsageError(
                f"{checkpoint.id} is incomplete: {len(names)} {what} weights, e.g. {names[0]}; fetch it again"
            )
    return Qwen25Omni(checkpoint, model.eval(), tokenizer)


def imagine(size: str, layers: int | None, *, device: str, dtype: str) -> Backbone:
    """The thinker in the shape of ``size`` with random weights and nano's tokenizer; see ``backbones.imagine``."""
    place = resolve_device(device)
    config = qwen_shapes.config(size, layers)
    checkpoint = Checkpoint(f"random {size}", Path(NANO.source), config.to_dict(), f"random-{size}-{layers or 'all'}")
    tokenizer = AutoTokenizer.from_pretrained(NANO.source, local_files_only=True)
    try:
        with torch.device(place):
            model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(
                config, dtype=resolve_dtype(dtype, place), attn_implementation="sdpa"
            )
    except torch.OutOfMemoryError as error:
        raise UsageError(f"{size} in {dtype} does not fit {place}: fewer --layers, or a smaller model") from error
    return Qwen25Omni(checkpoint, model.eval(), tokenizer)


class Qwen25Omni(Backbone):
    """A loaded thinker. See ``Backbone`` for the contract."""

    side_multiple = SIDE
    frame_multiple = FRAMES
    prompt_version = "qwen-chat/1"

    def __init__(self, checkpoint: Checkpoint, model: Any, tokenizer: Any):
        self.id = checkpoint.id
        self.revision = checkpoint.revision
        self.model = model
        self.device, self.dtype = model.device, model.dtype
        config = model.config
        self.context_length = config.text_config.max_position_embeddings
        self.hidden_size = config.text_config.hidden_size
        self._tokenizer = tokenizer
        self._rates = qwen_layout.Rates(config.position_id_per_seconds, config.seconds_per_chunk)
        self._text = cost.TextSizes.from_config(config.text_config)
        self._vision = cost.VisionSizes.from_config(config.vision_config)
        self._audio = cost.AudioSizes.from_config(config.audio_config)
        self._norm, self._extractor, self.warnings = _preprocessing(checkpoint, self._audio.mel_bins)
        self._stop_ids = self._find_stop_ids()
        self._check()
        grouped_attention.use_in_towers(model)

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @property
    def stop_ids(self) -> frozenset[int]:
        return self._stop_ids

    @classmethod
    def media_tokens(cls, frames: int, height: int, width: int, samples: int) -> tuple[int, int, int]:
        shape = _media_shape(frames, height, width, samples)
        return shape.grids, shape.video, shape.audio

    @torch.no_grad()
    def encode(self, clip: Clip) -> TokenStream:
        shape = self._shape(clip)
        if not shape.video and not shape.audio:
            raise ItemError("encode", f"{clip.path} has neither picture nor sound to look at", "empty")
        header = self._ids(qwen_layout.HEADER)
        opening, closing = (self._ids("".join(names)) for names in qwen_layout.marks(shape))
        layout = qwen_layout.prefix_layout(len(header), shape, self._rates)
        modality = layout.modality.to(self.device)
        embeddings = torch.empty(len(modality), self.hidden_size, device=self.device, dtype=self.dtype)
        embeddings[modality == TEXT] = self._embed(header + opening + closing)
        if shape.video:
            embeddings[modality == VIDEO] = self._see(clip).to(self.dtype)
        if shape.audio:
            embeddings[modality == AUDIO] = self._hear(clip).to(self.dtype)
        return TokenStream(
            embeddings=embeddings,
            modality=modality,
            grid=layout.grid.to(self.device),
            row=layout.row.to(self.device),
            column=layout.column.to(self.device),
            time_s=layout.time_s.to(self.device),
            positions=layout.positions.to(self.device),
            next_position=layout.next_position,
        )

    @torch.no_grad()
    def prefill(self, stream: TokenStream) -> Prefix:
        cache = WeightedCache(self.model.config, stream.stands_for)
        rows = ROWS if stream.stands_for is not None else len(stream)
        for start in range(0, len(stream), rows):
            piece = slice(start, start + rows)
            self._decode(stream.embeddings[piece], stream.positions[:, piece], cache)
        size = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
        return Prefix(cache, len(stream), stream.next_position, size)

    @torch.no_grad()
    def narrow(self, stream: TokenStream, question: str, pruner: DecoderPruner, budget: Budget) -> Narrowing:
        if stream.stands_for is not None:
            raise ValueError("decoder-stage pruning does not know rows that stand for several tokens")
        started = time.perf_counter()
        asked = self.question_ids(question)
        after = torch.arange(len(asked), device=self.device) + stream.next_position
        rows = torch.cat([stream.embeddings, self._embed(asked)])
        positions = torch.cat([stream.positions, after.expand(3, -1)], dim=1)
        fill = lambda values, value: torch.cat([values, values.new_full((len(asked),), value)])  # noqa: E731
        modality, grid, time_s = fill(stream.modality, TEXT), fill(stream.grid, -1), fill(stream.time_s, -1)
        decoder, cache, read, media = self.model.model.language_model, UnevenCache(config=self.model.config), [], []
        turn = decoder.rotary_emb(rows[None], positions[:, None])
        for number, layer in enumerate(decoder.layers):
            before = rows
            read.append(len(rows))
            media.append(torch.stack([(modality == kind).sum() for kind in (VIDEO, AUDIO)]))
            rows = layer(rows[None], attention_mask=None, position_embeddings=turn, past_key_values=cache, use_cache=True)[0]

            def attention(of: Tensor, layer=layer, before=before, turn=turn, number=number) -> Tensor:
                return _attention(layer, before[of], tuple(x[:, of] for x in turn), cache.layers[number].keys, of)

            view = LayerView(number, len(decoder.layers), tuple(read), modality, grid, time_s, len(asked), rows, attention)
            stays = pruner.after(view, budget)
            if stays is not None:
                rows, modality, grid, time_s = (x[stays] for x in (rows, modality, grid, time_s))
                turn = tuple(x[:, stays] for x in turn)
        logits = self.model.lm_head(decoder.norm(rows[-1]))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        counts = tuple(map(tuple, torch.stack(media).tolist()))
        size = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
        seconds = time.perf_counter() - started
        return Narrowing(cache, logits, tuple(read), counts, stream.next_position + len(asked), size, seconds)

    @torch.no_grad()
    def step(self, ids: Sequence[int], position: int, cache: Any) -> Tensor:
        positions = torch.arange(position, position + len(ids), device=self.device).expand(3, -1)
        hidden = self._decode(self._embed(ids), positions, cache)
        return self.model.lm_head(hidden[-1])

    @torch.no_grad()
    def packed_step(self, ids: Sequence[int], positions: Sequence[int], seen: Tensor, last: Sequence[int], cache: Any) -> Tensor:
        places = torch.tensor(positions, device=self.device).expand(3, -1)
        hidden = self._decode(self._embed(ids), places, cache, seen)
        return self.model.lm_head(hidden[list(last)])

    def question_ids(self, question: str) -> list[int]:
        # Typed marks such as <|im_end|> must stay text, or a question could end its own turn.
        typed = self._tokenizer(question, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return typed + self._ids(qwen_layout.QUESTION_END)

    def encode_flops(self, clip: Clip) -> tuple[int, int]:
        vision = audio = 0
        if clip.frames is not None:
            grids, height, width = self._patch_grid(clip)
            vision = cost.vision_flops(self._vision, grids, height, width)
        if clip.audio is not None:
            frames = qwen_inputs.mel_frame_count(len(clip.audio))
            pieces = qwen_inputs.mel_pieces(frames, self._audio.n_window)
            audio = sum(cost.audio_flops(self._audio, stop - start) for start, stop in pieces)
        return vision, audio

    def decoder_flops(self, new: int, past: int, logit_rows: int) -> int:
        return cost.decoder_flops(self._text, new, past, logit_rows)

    def layer_flops(self, new: int, past: int) -> int:
        return cost.layer_flops(self._text, new, past)

    def _patch_grid(self, clip: Clip) -> tuple[int, int, int]:
        """Grids, and patches down and across, of a clip with frames."""
        count, height, width, _ = clip.frames.shape
        return -(-count // self._vision.temporal_patch), height // self._vision.patch, width // self._vision.patch

    def _shape(self, clip: Clip) -> qwen_layout.MediaShape:
        frames, height, width = (0, 0, 0) if clip.frames is None else clip.frames.shape[:3]
        samples = 0 if clip.audio is None else len(clip.audio)
        return _media_shape(frames, height, width, samples, self.frame_multiple * clip.seconds_per_frame)

    def _see(self, clip: Clip) -> Tensor:
        """Video features [V, D], grid by grid in raster order."""
        sizes = self._vision
        grids, height, width = self._patch_grid(clip)
        frames = qwen_inputs.even_frames(clip.frames, sizes.temporal_patch)
        features = []
        for start, stop in qwen_inputs.grid_pieces(grids, height * width):
            piece = frames[start * sizes.temporal_patch : stop * sizes.temporal_patch]
            pixels = qwen_inputs.patchify(
                torch.tensor(piece, device=self.device),
                self._norm,
                patch=sizes.patch,
                merge=sizes.merge,
                temporal=sizes.temporal_patch,
            )
            grid_thw = torch.tensor([[stop - start, height, width]], device=self.device)
            features += self.model.get_video_features(pixels, grid_thw, return_dict=True).pooler_output
        return torch.cat(features)

    def _hear(self, clip: Clip) -> Tensor:
        """Audio features [A, D]."""
        mel = qwen_inputs.log_mel(clip.audio, self._extractor).to(self.device)
        features = []
        for start, stop in qwen_inputs.mel_pieces(mel.shape[1], self._audio.n_window):
            mask = torch.ones(1, stop - start, dtype=torch.long, device=self.device)
            piece = self.model.get_audio_features(mel[None, :, start:stop], mask, return_dict=True)
            features.append(piece.last_hidden_state)
        return torch.cat(features)

    def _decode(self, embeddings: Tensor, positions: Tensor, cache: WeightedCache, seen: Tensor | None = None) -> Tensor:
        """Hidden states [L, D] of rows [L, D] at positions [3, L], causal unless ``seen`` says otherwise; grows ``cache``."""
        return self.model.model.language_model(
            inputs_embeds=embeddings[None],
            position_ids=positions[:, None],
            attention_mask=cache.mask(len(embeddings), self.dtype, seen),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[0]

    def _embed(self, ids: Sequence[int]) -> Tensor:
        return self.model.get_input_embeddings()(torch.tensor(ids, device=self.device))

    def _ids(self, text: str) -> list[int]:
        """Tokens of the prompt's own text, where marks are marks."""
        return self._tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]

    def _find_stop_ids(self) -> frozenset[int]:
        generation = self.model.generation_config
        named = generation.eos_token_id if generation.eos_token_id is not None else []
        known = self._tokenizer.get_vocab()
        return frozenset(
            {*([named] if isinstance(named, int) else named), *(known[t] for t in STOP_TOKENS if t in known)}
        )

    def _check(self) -> None:
        """Fail on a tokenizer without the marks this layout needs, or towers of another geometry."""
        known = self._tokenizer.get_vocab()
        wanted = ("<|im_start|>", "<|im_end|>", *qwen_layout.VISION_MARKS, *qwen_layout.AUDIO_MARKS)
        absent = [token for token in wanted if token not in known]
        if absent:
            raise UsageError(f"the tokenizer of {self.id} lacks {', '.join(absent)}: not a Qwen2.5-Omni tokenizer")
        geometry = (self._vision.patch * self._vision.merge, self._vision.temporal_patch)
        if geometry != (self.side_multiple, self.frame_multiple):
            raise UsageError(
                f"{self.id} has merged patches of {geometry}, not ({self.side_multiple}, {self.frame_multiple})"
            )


def _attention(layer: Any, rows: Tensor, turn: tuple[Tensor, Tensor], keys: Tensor, of: Tensor) -> Tensor:
    """Attention [q, n] float32, the mean over heads, that ``rows`` [q, D], which stand at ``of`` [q], paid in ``layer``.

    Args:
        turn: cosines and sines of their positions, [1, q, head] each.
        keys: [1, key heads, n, head] that the layer has in its cache.
    """
    attention = layer.self_attn
    query = attention.q_proj(layer.input_layernorm(rows)).view(1, len(rows), -1, attention.head_dim).transpose(1, 2)
    query, _ = apply_rotary_pos_emb(query, query, *turn)
    grouped = query[0].view(keys.shape[1], -1, *query.shape[2:]).float()
    scores = grouped @ keys[0][:, None].float().mT * attention.scaling
    later = torch.arange(keys.shape[2], device=keys.device) > of[:, None]
    return scores.masked_fill(later, -torch.inf).softmax(-1).mean((0, 1))


def _media_shape(frames: int, height: int, width: int, samples: int, seconds_per_grid: float = 0.0) -> qwen_layout.MediaShape:
    return qwen_layout.MediaShape(
        grids=-(-frames // FRAMES),
        rows=height // SIDE,
        columns=width // SIDE,
        audio=qwen_layout.audio_token_count(qwen_inputs.mel_frame_count(samples)) if samples else 0,
        seconds_per_grid=seconds_per_grid,
    )


def _preprocessing(
    checkpoint: Checkpoint, mel_bins: int
) -> tuple[qwen_inputs.PixelNorm, WhisperFeatureExtractor, tuple[str, ...]]:
    """Pixel norm and mel extractor from preprocessor_config.json; without one, the family's own and a warning."""
    path = checkpoint.directory / PREPROCESSOR
    if not path.exists():
        extractor = WhisperFeatureExtractor(feature_size=mel_bins, **qwen_inputs.OMNI_EXTRACTOR)
        warning = f"{checkpoint.id} has no {PREPROCESSOR}; the usual Qwen2.5-Omni settings were used"
        return qwen_inputs.PixelNorm(), extractor, (warning,)
    config = read_config(path)
    norm = qwen_inputs.PixelNorm(
        tuple(config.get("image_mean", qwen_inputs.CLIP_MEAN)), tuple(config.get("image_std", qwen_inputs.CLIP_STD))
    )
    extractor = WhisperFeatureExtractor.from_pretrained(str(checkpoint.directory), local_files_only=True)
    given = (extractor.feature_size, extractor.sampling_rate, extractor.hop_length, extractor.n_fft)
    if given != (mel_bins, SAMPLE_RATE, qwen_inputs.HOP, qwen_inputs.N_FFT):
        raise UsageError(f"{path} does not fit the audio tower: mel bins, rate, hop and window are {given}")
    return norm, extractor, ()


BACKBONE = Qwen25Omni
