"""What the families share that are a transformers decoder with multimodal rotary positions (mRoPE) and a Qwen vision
tower."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from cg_cli.backbones import cost, loading, qwen_inputs
from cg_cli.backbones.base import Backbone, LayerwisePrefill, Prefix
from cg_cli.backbones.checkpoint import Checkpoint
from cg_cli.backbones.device import synchronize
from cg_cli.backbones.layout import Layout, MediaShape
from cg_cli.backbones.weighted_cache import ROWS, UnevenCache, WeightedCache
from cg_cli.errors import ItemError, UsageError
from cg_cli.media.clip import Clip
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.decoder import DecoderPruner, LayerView
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, TokenStream

STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")
TURN_TOKENS = ("<|im_start|>", "<|im_end|>")
DEEPSTACK = (
    "deepstack"  # in TokenStream.carry: [L, layers, D], added to the rows after the first layers (arXiv 2406.04334)
)


class MRopeBackbone(Backbone):
    """A transformers model with ``get_video_features``, ``model.language_model`` and ``lm_head``. See ``Backbone`` for
    the contract. A family supplies special tokens, the layout and the audio tower.

    Attributes:
        header: text before the media.
        question_start, question_end: text around the question.
        special_tokens: special tokens that the layout needs, those of the turns aside.
        norm: of pixels, where the checkpoint does not say.
    """

    header: ClassVar[str]
    question_start: ClassVar[str] = ""
    question_end: ClassVar[str] = "<|im_end|>\n<|im_start|>assistant\n"
    special_tokens: ClassVar[tuple[str, ...]]
    norm: ClassVar[qwen_inputs.PixelNorm] = qwen_inputs.PixelNorm()

    def __init__(self, checkpoint: Checkpoint, model: Any, tokenizer: Any):
        self.id = checkpoint.id
        self.revision = checkpoint.revision
        self.model = model.eval()
        self.device, self.dtype = model.device, model.dtype
        config = model.config
        self.context_length = config.text_config.max_position_embeddings
        self.hidden_size = config.text_config.hidden_size
        self._tokenizer = tokenizer
        self._text = cost.TextSizes.from_config(config.text_config)
        self._vision = cost.VisionSizes.from_config(config.vision_config)
        self._stop_ids = self._find_stop_ids()
        self._norm, self.warnings = loading.pixel_norm(checkpoint, self.norm)
        self._check()

    @classmethod
    @abstractmethod
    def _audio_tokens(cls, samples: int) -> int:
        """Audio tokens of ``samples`` > 0 samples."""

    @abstractmethod
    def _delimiters(self, shape: MediaShape) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Special tokens that open and close the media."""

    @abstractmethod
    def build_layout(self, header: int, shape: MediaShape) -> Layout:
        """The prefix: ``header`` tokens of text, the opening delimiters, the media, the closing ones."""

    @abstractmethod
    def encode_audio(self, clip: Clip) -> Tensor:
        """Audio features [A, D]."""

    @abstractmethod
    def _audio_flops(self, samples: int) -> int:
        """Operations of ``encode_audio`` for ``samples`` > 0 samples."""

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @property
    def stop_ids(self) -> frozenset[int]:
        return self._stop_ids

    @classmethod
    def media_tokens(cls, frames: int, height: int, width: int, samples: int) -> tuple[int, int, int]:
        shape = cls._media_shape(frames, height, width, samples)
        return shape.grids, shape.video, shape.audio

    @torch.no_grad()
    def encode(self, clip: Clip) -> TokenStream:
        shape = self._shape(clip)
        if not shape.video and not shape.audio:
            raise ItemError("encode", f"{clip.path} has neither picture nor sound to look at", "empty")
        header = self._ids(self.header)
        opening, closing = (self._ids("".join(names)) for names in self._delimiters(shape))
        layout = self.build_layout(len(header), shape)
        modality = layout.modality.to(self.device)
        embeddings = torch.empty(len(modality), self.hidden_size, device=self.device, dtype=self.dtype)
        embeddings[modality == TEXT] = self._embed(header + opening + closing)
        carry = {}
        if shape.video:
            features, deepstack = self.encode_video(clip)
            embeddings[modality == VIDEO] = features.to(self.dtype)
            if deepstack is not None:
                carry[DEEPSTACK] = deepstack.new_zeros(len(modality), *deepstack.shape[1:], dtype=self.dtype)
                carry[DEEPSTACK][modality == VIDEO] = deepstack.to(self.dtype)
        if shape.audio:
            embeddings[modality == AUDIO] = self.encode_audio(clip).to(self.dtype)
        return TokenStream(
            embeddings=embeddings,
            modality=modality,
            grid=layout.grid.to(self.device),
            row=layout.row.to(self.device),
            column=layout.column.to(self.device),
            time_s=layout.time_s.to(self.device),
            positions=layout.positions.to(self.device),
            next_position=layout.next_position,
            carry=carry,
        )

    @torch.no_grad()
    def prefill(self, stream: TokenStream) -> Prefix:
        cache = WeightedCache(self.model.config, stream.merge_size)
        rows = ROWS if stream.merge_size is not None else len(stream)
        deepstack = stream.carry.get(DEEPSTACK)
        for start in range(0, len(stream), rows):
            piece = slice(start, start + rows)
            added = None if deepstack is None else (stream.modality[piece] == VIDEO, deepstack[piece])
            self._decode(stream.embeddings[piece], stream.positions[:, piece], cache, deepstack=added)
        return Prefix(cache, len(stream), stream.next_position, _bytes(cache))

    @torch.no_grad()
    def prefill_layerwise(
        self, stream: TokenStream, question: str, pruner: DecoderPruner, budget: Budget
    ) -> LayerwisePrefill:
        if stream.merge_size is not None:
            raise ValueError("decoder-stage pruning does not know rows that stand for several tokens")
        started = time.perf_counter()
        asked = self.question_ids(question)
        after = torch.arange(len(asked), device=self.device) + stream.next_position
        rows = torch.cat([stream.embeddings, self._embed(asked)])
        positions = torch.cat([stream.positions, after.expand(3, -1)], dim=1)
        fill = lambda values, value: torch.cat([values, values.new_full((len(asked), *values.shape[1:]), value)])
        modality, grid, time_s = fill(stream.modality, TEXT), fill(stream.grid, -1), fill(stream.time_s, -1)
        deepstack = fill(stream.carry.get(DEEPSTACK, rows.new_zeros(len(stream), 0, self.hidden_size)), 0)
        decoder, cache, read, media = self.model.model.language_model, UnevenCache(config=self.model.config), [], []
        rotary = decoder.rotary_emb(rows[None], positions[:, None])
        alive = torch.arange(len(rows), device=self.device)
        depth = torch.zeros(len(rows), device=self.device)
        for number, layer in enumerate(decoder.layers):
            before = rows
            read.append(len(rows))
            media.append(torch.stack([(modality == kind).sum() for kind in (VIDEO, AUDIO)]))
            rows = layer(
                rows[None], attention_mask=None, position_embeddings=rotary, past_key_values=cache, use_cache=True
            )[0]
            if number < deepstack.shape[1]:
                rows = rows + deepstack[:, number]

            def attention(of: Tensor, layer=layer, before=before, rotary=rotary, number=number) -> Tensor:
                return _attention(layer, before[of], tuple(x[:, of] for x in rotary), cache.layers[number].keys, of)

            view = LayerView(
                number, len(decoder.layers), tuple(read), modality, grid, time_s, len(asked), rows, attention
            )
            stays = pruner.after(view, budget)
            if stays is not None:
                depth[alive] = (number + 1) / len(decoder.layers)
                alive, rows, modality, grid, time_s, deepstack = (
                    x[stays] for x in (alive, rows, modality, grid, time_s, deepstack)
                )
                rotary = tuple(x[:, stays] for x in rotary)
        depth[alive] = 1.0
        logits = self.model.lm_head(decoder.norm(rows[-1]))
        synchronize(self.device)
        counts = tuple(map(tuple, torch.stack(media).tolist()))
        seconds = time.perf_counter() - started
        position = stream.next_position + len(asked)
        return LayerwisePrefill(
            cache, logits, tuple(read), counts, depth[: len(stream)], position, _bytes(cache), seconds
        )

    @torch.no_grad()
    def step(self, ids: Sequence[int], position: float, cache: Any) -> Tensor:
        positions = (torch.arange(len(ids), device=self.device) + position).expand(3, -1)
        hidden = self._decode(self._embed(ids), positions, cache)
        return self.model.lm_head(hidden[-1])

    @torch.no_grad()
    def decode_step(
        self, ids: Sequence[int], positions: Sequence[float], seen: Tensor, last: Sequence[int], cache: Any
    ) -> Tensor:
        places = torch.tensor(positions, device=self.device).expand(3, -1)
        hidden = self._decode(self._embed(ids), places, cache, seen)
        return self.model.lm_head(hidden[list(last)])

    def question_ids(self, question: str) -> list[int]:
        # Typed marks such as <|im_end|> must stay text, or a question could end its own turn.
        asked = self.question_start + question
        typed = self._tokenizer(asked, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return typed + self._ids(self.question_end)

    def encode_flops(self, clip: Clip) -> tuple[int, int]:
        vision = 0 if clip.frames is None else cost.vision_flops(self._vision, *self._patch_grid(clip))
        return vision, 0 if clip.audio is None else self._audio_flops(len(clip.audio))

    def prefill_bytes(self, tokens: int) -> int:
        return cost.prefill_bytes(self._text, tokens, self.dtype.itemsize)

    def decoder_flops(self, new: int, past: int, logit_rows: int) -> int:
        return cost.decoder_flops(self._text, new, past, logit_rows)

    def layer_flops(self, new: int, past: int) -> int:
        return cost.layer_flops(self._text, new, past)

    @classmethod
    def _media_shape(
        cls, frames: int, height: int, width: int, samples: int, seconds_per_grid: float = 0.0
    ) -> MediaShape:
        return MediaShape(
            grids=-(-frames // cls.frame_multiple),
            rows=height // cls.side_multiple,
            columns=width // cls.side_multiple,
            audio=cls._audio_tokens(samples) if samples else 0,
            seconds_per_grid=seconds_per_grid,
        )

    def _shape(self, clip: Clip) -> MediaShape:
        frames, height, width = (0, 0, 0) if clip.frames is None else clip.frames.shape[:3]
        samples = 0 if clip.audio is None else len(clip.audio)
        return self._media_shape(frames, height, width, samples, self.frame_multiple * clip.seconds_per_frame)

    def _patch_grid(self, clip: Clip) -> tuple[int, int, int]:
        """Grids, and patches down and across, of a clip with frames."""
        count, height, width, _ = clip.frames.shape
        return -(-count // self._vision.temporal_patch), height // self._vision.patch, width // self._vision.patch

    def encode_video(self, clip: Clip) -> tuple[Tensor, Tensor | None]:
        """Video features [V, D], grid by grid in raster order, and deepstack rows [V, layers, D] where the tower has
        some."""
        sizes = self._vision
        grids, height, width = self._patch_grid(clip)
        frames = qwen_inputs.even_frames(clip.frames, sizes.temporal_patch)
        features, deepstack = [], []
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
            seen = self.model.get_video_features(pixels, grid_thw, return_dict=True)
            features += seen.pooler_output
            if layers := getattr(seen, "deepstack_features", None):
                deepstack.append(torch.stack([rows for (rows,) in layers], dim=1))
        return torch.cat(features), torch.cat(deepstack) if deepstack else None

    def _decode(
        self,
        embeddings: Tensor,
        positions: Tensor,
        cache: WeightedCache,
        seen: Tensor | None = None,
        deepstack: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Hidden states [L, D] of rows [L, D] at positions [3, L], causal unless ``seen`` says otherwise; grows
        ``cache``.

        Args:
            deepstack: where the video rows are [L] bool, and what is added to all rows after the first layers [L,
                layers, D].
        """
        more = {}
        if deepstack is not None:
            video, added = deepstack
            more = {"visual_pos_masks": video[None], "deepstack_visual_embeds": list(added[video].unbind(1))}
        return self.model.model.language_model(
            inputs_embeds=embeddings[None],
            position_ids=positions[:, None],
            attention_mask=self._mask(cache.mask(len(embeddings), self.dtype, seen)),
            past_key_values=cache,
            use_cache=True,
            **more,
        ).last_hidden_state[0]

    def _mask(self, by_kind: dict[str, Tensor | None] | None) -> Any:
        """The mask of ``WeightedCache.mask`` as the family's decoder takes it."""
        return by_kind

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
        absent = [token for token in (*TURN_TOKENS, *self.special_tokens) if token not in known]
        if absent:
            raise UsageError(f"the tokenizer of {self.id} lacks {', '.join(absent)}: fetch the one that belongs to it")
        geometry = (self._vision.patch * self._vision.merge, self._vision.temporal_patch)
        if geometry != (self.side_multiple, self.frame_multiple):
            raise UsageError(
                f"{self.id} has merged patches of {geometry}, not ({self.side_multiple}, {self.frame_multiple})"
            )


def _bytes(cache: Any) -> int:
    """Bytes of keys and values."""
    return sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))


def _attention(layer: Any, rows: Tensor, rotary: tuple[Tensor, Tensor], keys: Tensor, of: Tensor) -> Tensor:
    """Attention [q, n] float32, the mean over heads, that ``rows`` [q, D], which stand at ``of`` [q], paid in
    ``layer``.

    Args:
        rotary: cosines and sines of their positions, [1, q, head] each.
        keys: [1, key heads, n, head] that the layer has in its cache.
    """
    attention = layer.self_attn
    query = attention.q_proj(layer.input_layernorm(rows)).view(1, len(rows), -1, attention.head_dim)
    if hasattr(attention, "q_norm"):
        query = attention.q_norm(query)
    query = query.transpose(1, 2)
    query, _ = apply_rotary_pos_emb(query, query, *rotary)
    grouped = query[0].view(keys.shape[1], -1, *query.shape[2:]).float()
    scores = grouped @ keys[0][:, None].float().mT * attention.scaling
    later = torch.arange(keys.shape[2], device=keys.device) > of[:, None]
    return scores.masked_fill(later, -torch.inf).softmax(-1).mean((0, 1))
