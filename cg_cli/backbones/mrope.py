"""What families share that are a transformers decoder with multimodal rotary positions (mRoPE) and a Qwen vision
tower."""

from __future__ import annotations

import contextlib
import functools
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from cg_cli.backbones import cost, decoder_attention, fused, layerwise, loading, lora, qwen_inputs, repeated, vision
from cg_cli.backbones.base import Backbone, LayerwisePrefill, Prefix
from cg_cli.backbones.batch_cache import BatchCache
from cg_cli.backbones.checkpoint import Checkpoint
from cg_cli.backbones.layout import DEEPSTACK, Layout, MediaShape
from cg_cli.backbones.weighted_cache import WeightedCache, cache_bytes
from cg_cli.errors import ItemError, UsageError
from cg_cli.media.clip import Clip
from cg_cli.media.repeats import grid_sources
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.decoder import DecoderPruner
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, TokenStream

B = TypeVar("B", bound="MRopeBackbone")
P = ParamSpec("P")
R = TypeVar("R")

TURN_TOKENS = ("<|im_start|>", "<|im_end|>")


def inference(method: Callable[Concatenate[B, P], R]) -> Callable[Concatenate[B, P], R]:
    """Run a method of a backbone without gradients, and without bitsandbytes' warnings where it is quantized."""

    @functools.wraps(method)
    def run(self: B, *args: P.args, **kwargs: P.kwargs) -> R:
        quantized = getattr(self.model, "is_quantized", False)
        with torch.no_grad(), loading.quiet_bitsandbytes() if quantized else contextlib.nullcontext():
            return method(self, *args, **kwargs)

    return run


class MRopeBackbone(Backbone):
    """A transformers model with ``get_video_features``, ``model.language_model`` and ``lm_head``. See ``Backbone`` for
    the contract. A family supplies special tokens, the layout and the audio tower.

    Attributes:
        model_class: transformers' class.
        header: text before the media.
        question_start, question_end: text around the question.
        special_tokens: special tokens that the layout needs, beside those of the turns.
        norm: of pixels, where the checkpoint does not say.
        not_quantized: full paths of the modules that quantization leaves as they are.
        stop_tokens: that end an answer, where the checkpoint names none.
        recordable: whether a step makes the same calls whatever its tokens are.
    """

    model_class: ClassVar[Any]
    header: ClassVar[str]
    question_start: ClassVar[str] = ""
    question_end: ClassVar[str] = "<|im_end|>\n<|im_start|>assistant\n"
    special_tokens: ClassVar[tuple[str, ...]]
    norm: ClassVar[qwen_inputs.PixelNorm] = qwen_inputs.PixelNorm()
    not_quantized: ClassVar[tuple[str, ...]] = ("lm_head", "model.visual")
    stop_tokens: ClassVar[tuple[str, ...]] = ("<|im_end|>", "<|endoftext|>")
    recordable: ClassVar[bool] = True

    def __init__(self, checkpoint: Checkpoint, model: Any, tokenizer: Any):
        self.id = checkpoint.id
        self.revision = checkpoint.revision
        self.adapter = checkpoint.adapter.id if checkpoint.adapter else None
        self.model = model.eval()
        self.device, self.dtype = model.device, model.dtype
        config = model.config
        self.context_length = config.text_config.max_position_embeddings
        self.hidden_size = config.text_config.hidden_size
        self._tokenizer = tokenizer
        self._text = cost.TextSizes.from_config(config.text_config)
        self._vision = cost.VisionSizes.from_config(config.vision_config)
        self.generation = loading.generation_settings(checkpoint, model)
        self._stop_ids = self._find_stop_ids()
        self.graphs = self.recordable and self.device.type == "cuda" and not getattr(model, "is_quantized", False)
        decoder_attention.use_in_decoder(model)
        if self.device.type == "cuda":
            fused.use_in_model(model)
        self._norm, warnings = loading.pixel_norm(checkpoint, self.norm)
        self.warnings = (*warnings, *self.generation.warnings)
        self._check()

    @classmethod
    def load(cls, checkpoint: Checkpoint, *, device: str, dtype: str, quantize: str) -> Self:
        model, tokenizer = cls._load_model(checkpoint, device=device, dtype=dtype, quantize=quantize)
        if checkpoint.adapter:
            lora.merge(model, checkpoint.adapter, lora.qwen_name)
        return cls(checkpoint, model, tokenizer)

    @classmethod
    def _load_model(cls, checkpoint: Checkpoint, *, device: str, dtype: str, quantize: str) -> tuple[Any, Any]:
        """The transformers model and the tokenizer of ``checkpoint``. UsageError as for ``loading.load``."""
        return loading.load(
            cls.model_class,
            checkpoint,
            device=device,
            dtype=dtype,
            quantize=quantize,
            not_quantized=cls.not_quantized,
        )

    @classmethod
    def _random_init(cls, config: Any, size: str, *, device: str, dtype: str, tokenizer: Path) -> Self:
        """A model of the transformers ``config`` with random weights; see ``backbones.random_init``."""

        def build(torch_dtype: torch.dtype) -> Any:
            return cls.model_class._from_config(config, dtype=torch_dtype, attn_implementation="sdpa")

        return cls(
            *loading.random_init(build, size, cls.special_tokens, device=device, dtype=dtype, tokenizer=tokenizer)
        )

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

    @property
    def sound_block(self) -> int:
        """Samples of a block of sound, which the tower encodes without a look at the others; 0 where there is none."""
        return 0

    def sound_sources(self, audio: np.ndarray) -> np.ndarray:
        """The block that each whole block of ``audio`` repeats exactly [B] (``repeated``); B is 0 where there is
        none."""
        return np.arange(0)

    @abstractmethod
    def encode_audio(self, audio: np.ndarray, sources: np.ndarray) -> Tensor:
        """Audio features [A, D] of mono sound [S] float32 at 16 kHz, without those of blocks that repeat others by
        ``sources``."""

    @abstractmethod
    def _audio_flops(self, samples: int) -> int:
        """Operations of the audio tower for ``samples`` > 0 samples."""

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

    @inference
    def encode(self, clip: Clip) -> TokenStream:
        shape = self._shape(clip)
        if not shape.video and not shape.audio:
            raise ItemError("encode", f"{clip.path} has neither picture nor sound to look at", "empty")
        header = self._ids(self.header)
        opening, closing = (self._ids("".join(names)) for names in self._delimiters(shape))
        layout = self.build_layout(len(header), shape)
        # Found on the CPU: a mask on the device would have to be waited for.
        text, video, audio = (
            (layout.modality == kind).nonzero()[:, 0].to(self.device) for kind in (TEXT, VIDEO, AUDIO)
        )
        embeddings = torch.empty(len(layout.modality), self.hidden_size, device=self.device, dtype=self.dtype)
        embeddings[text] = self._embed(header + opening + closing)
        carry: dict[str, Tensor] = {}
        blocks: dict[int, tuple[np.ndarray, int]] = {}
        if clip.frames is not None and shape.video:
            sources = self._grid_sources(clip.frames, clip.look_once)
            blocks[VIDEO] = sources, shape.rows * shape.columns
            features, deepstack = vision.encode_video(self.model, clip.frames, sources, self._vision, self._norm)
            embeddings[video] = features.to(self.dtype)
            if deepstack is not None:
                carry[DEEPSTACK] = deepstack.new_zeros(len(embeddings), *deepstack.shape[1:], dtype=self.dtype)
                carry[DEEPSTACK][video] = deepstack.to(self.dtype)
        if clip.audio is not None and shape.audio:
            sources, tokens = self._block_sources(clip.audio, clip.look_once), self._audio_tokens(self.sound_block)
            blocks[AUDIO] = sources, tokens
            features = repeated.expand(self.encode_audio(clip.audio, sources), sources, tokens)
            embeddings[audio] = features.to(self.dtype)
        same_as = repeated.same_rows(layout.modality, blocks)
        return TokenStream(
            embeddings=embeddings,
            modality=layout.modality.to(self.device),
            grid=layout.grid.to(self.device),
            row=layout.row.to(self.device),
            column=layout.column.to(self.device),
            time_s=layout.time_s.to(self.device),
            positions=layout.positions.to(self.device),
            next_position=layout.next_position,
            carry=carry,
            same_as=None if same_as is None else same_as.to(self.device),
            prompt_ids=self._prompt_ids(shape, {*header, *opening, *closing}),
        )

    @inference
    def prefill(self, stream: TokenStream) -> Prefix:
        cache = WeightedCache(self.model.config, stream.merge_size)
        deepstack = stream.carry.get(DEEPSTACK)
        self._decode(
            stream.embeddings,
            stream.positions,
            cache,
            deepstack=None if deepstack is None else (stream.modality == VIDEO, deepstack),
        )
        return Prefix(cache, len(stream), stream.next_position, cache_bytes(cache), stream.prompt_ids)

    @inference
    def prefill_layerwise(
        self, stream: TokenStream, question: str, pruner: DecoderPruner, budget: Budget
    ) -> LayerwisePrefill:
        started = time.perf_counter()
        question_rows = self._embed(self.question_ids(question))
        return layerwise.prefill(self.model, stream, question_rows, pruner, budget, started)

    @inference
    def extend(self, ids: Sequence[int], position: float, cache: Any) -> Tensor:
        positions = (torch.arange(len(ids), device=self.device) + position).expand(3, -1)
        hidden = self._decode(self._embed(ids), positions, cache)
        return self.model.lm_head(hidden[-1])

    @inference
    def batch_step(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: BatchCache, last: Tensor) -> Tensor:
        hidden = self.model.model.language_model(
            inputs_embeds=self.model.get_input_embeddings()(ids),
            position_ids=positions.expand(3, -1, -1),
            attention_mask=self._decoder_mask({"full_attention": mask}),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return self.model.lm_head(hidden.flatten(0, 1)[last])

    def question_ids(self, question: str) -> list[int]:
        # Special tokens typed in a question, such as <|im_end|>, must stay text, or it could end its own turn.
        text = self.question_start + question
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids + self._ids(self.question_end)

    def encode_flops(self, clip: Clip) -> tuple[int, int]:
        pixels, sound = 0, 0
        if clip.frames is not None:
            _, height, width = self._patch_grid(clip.frames)
            encoded = len(np.unique(self._grid_sources(clip.frames, clip.look_once)))
            pixels = cost.vision_flops(self._vision, encoded, height, width)
        if clip.audio is not None:
            sources = self._block_sources(clip.audio, clip.look_once)
            copies = len(sources) - len(np.unique(sources))
            sound = self._audio_flops(len(clip.audio) - copies * self.sound_block)
        return pixels, sound

    def prefill_bytes(self, tokens: int) -> int:
        return cost.prefill_bytes(self._text, tokens, self.dtype.itemsize)

    def decoder_flops(self, new: int, past: int, logit_rows: int) -> int:
        return cost.decoder_flops(self._text, new, past, logit_rows)

    def layer_flops(self, new: int, past: int) -> int:
        return cost.layer_flops(self._text, new, past)

    @classmethod
    def _media_shape(
        cls,
        frames: int,
        height: int,
        width: int,
        samples: int,
        seconds_per_grid: float = 0.0,
        grid_starts: tuple[float, ...] | None = None,
    ) -> MediaShape:
        return MediaShape(
            grids=-(-frames // cls.frame_multiple),
            rows=height // cls.side_multiple,
            columns=width // cls.side_multiple,
            audio=cls._audio_tokens(samples) if samples else 0,
            seconds_per_grid=seconds_per_grid,
            grid_starts=grid_starts,
        )

    def _shape(self, clip: Clip) -> MediaShape:
        frames, height, width = (0, 0, 0) if clip.frames is None else clip.frames.shape[:3]
        samples = 0 if clip.audio is None else len(clip.audio)
        starts = None if clip.grid_starts is None or not frames else tuple(clip.grid_starts.tolist())
        return self._media_shape(frames, height, width, samples, self.frame_multiple * clip.seconds_per_frame, starts)

    def _patch_grid(self, frames: np.ndarray) -> tuple[int, int, int]:
        """Grids, and patches down and across, of frames [N, H, W, 3]."""
        count, height, width, _ = frames.shape
        return -(-count // self._vision.temporal_patch), height // self._vision.patch, width // self._vision.patch

    def _grid_sources(self, frames: np.ndarray, look_once: int | None) -> np.ndarray:
        """The grid that each one of frames [N, H, W, 3] is encoded in [G]: itself, or an earlier one it repeats."""
        frames = qwen_inputs.even_frames(frames, self._vision.temporal_patch)
        return grid_sources(frames, self._vision.temporal_patch, look_once)

    def _block_sources(self, audio: np.ndarray, look_once: int | None) -> np.ndarray:
        """The same of the blocks of sound; none where everything is encoded."""
        return np.arange(0) if look_once is None else self.sound_sources(audio)

    def _decode(
        self,
        embeddings: Tensor,
        positions: Tensor,
        cache: WeightedCache,
        deepstack: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Hidden states [L, D] of rows [L, D] at positions [3, L], in causal order; extends ``cache``.

        Args:
            deepstack: where the video rows are [L] bool, and what is added to all rows after the first layers [L,
                layers, D].
        """
        deepstack_inputs = {}
        if deepstack is not None:
            video, added = deepstack
            deepstack_inputs = {
                "visual_pos_masks": video[None],
                "deepstack_visual_embeds": list(added[video].unbind(1)),
            }
        return self.model.model.language_model(
            inputs_embeds=embeddings[None],
            position_ids=positions[:, None],
            attention_mask=self._decoder_mask(cache.mask(len(embeddings), self.dtype)),
            past_key_values=cache,
            use_cache=True,
            **deepstack_inputs,
        ).last_hidden_state[0]

    def _decoder_mask(self, by_kind: dict[str, Tensor | None] | None) -> Any:
        """The mask of ``WeightedCache.mask`` as the family's decoder takes it."""
        return by_kind

    def _prompt_ids(self, shape: MediaShape, text: set[int]) -> frozenset[int]:
        """The tokens of the prefix: ``text``, and those that stand for what there is of pictures and sound."""
        marks = zip(self._placeholders(), (shape.video, shape.audio))
        return frozenset({*text, *(token for token, count in marks if count and token is not None)})

    def _placeholders(self) -> tuple[int | None, int | None]:
        """The tokens that stand for pictures and for sound in the prompt of the published code; None for a tokenizer of
        another model, with random weights."""
        return self.model.config.video_token_id, self.model.config.audio_token_id

    def _embed(self, ids: Sequence[int]) -> Tensor:
        return self.model.get_input_embeddings()(torch.tensor(ids, device=self.device))

    def _ids(self, text: str) -> list[int]:
        """Tokens of the prompt's own text, special tokens included."""
        return self._tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]

    def _find_stop_ids(self) -> frozenset[int]:
        """The end tokens of the checkpoint; those of the chat format, where it names none."""
        eos = self.model.generation_config.eos_token_id
        if eos is not None:
            return frozenset([eos] if isinstance(eos, int) else eos)
        vocabulary = self._tokenizer.get_vocab()
        return frozenset(vocabulary[token] for token in self.stop_tokens if token in vocabulary)

    def _check(self) -> None:
        """UsageError for a tokenizer without the special tokens of the layout, or towers of another geometry."""
        vocabulary = self._tokenizer.get_vocab()
        missing = [token for token in (*TURN_TOKENS, *self.special_tokens) if token not in vocabulary]
        if missing:
            raise UsageError(f"the tokenizer of {self.id} lacks {', '.join(missing)}: fetch the one that belongs to it")
        geometry = (self._vision.patch * self._vision.merge, self._vision.temporal_patch)
        if geometry != (self.side_multiple, self.frame_multiple):
            raise UsageError(
                f"{self.id} has merged patches of {geometry}, not ({self.side_multiple}, {self.frame_multiple})"
            )
