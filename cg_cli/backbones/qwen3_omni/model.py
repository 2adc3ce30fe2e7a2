"""Qwen3-Omni: the thinker (vision tower with deepstack, audio tower, mixture-of-experts language model), loaded alone.

    <|im_start|>user\\n    header: the model was made to go without a system prompt
    <|vision_start|><|audio_start|> V.A.AV.A.. <|audio_end|><|vision_end|>    media; the prefix ends here
    question <|im_end|>\\n<|im_start|>assistant\\n

The rules of order and positions are those of transformers' ``Qwen3OmniMoeThinkerModel.get_rope_index``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen3OmniMoeThinkerConfig, Qwen3OmniMoeThinkerForConditionalGeneration

from cg_cli.backbones import cost, grouped_attention, loading, mrope, qwen_inputs, repeated
from cg_cli.backbones.checkpoint import Checkpoint
from cg_cli.backbones.layout import Layout, MediaShape, compose, nested, raster
from cg_cli.backbones.qwen3_omni import FAMILY
from cg_cli.errors import UsageError

VISION_DELIMITERS = ("<|vision_start|>", "<|vision_end|>")
AUDIO_DELIMITERS = ("<|audio_start|>", "<|audio_end|>")
CHUNK = 100  # mel frames, 10 ms each, that the audio tower's convolutions see at a time ...
CHUNK_TOKENS = 13  # ... and what they make of them
TOKEN_S = 0.08  # three strides of 2, in seconds; the last token of a chunk covers half as much
PIECE = 12_000  # mel frames of an audio piece: two minutes

SIZES = {
    "30b-a3b": {
        "hidden_size": 2048, "intermediate_size": 768, "moe_intermediate_size": 768, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "vocab_size": 152064, "max_position_embeddings": 65536,
    },
}  # fmt: skip
ROTARY = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}


def shape_config(size: str, layers: int | None) -> Qwen3OmniMoeThinkerConfig:
    """The config of ``size``, cut to at most ``layers`` layers in the language model and in each tower."""
    text = SIZES[size] | {"rope_parameters": ROTARY}
    config = Qwen3OmniMoeThinkerConfig(
        text_config=text,
        vision_config={"out_hidden_size": text["hidden_size"]},
        audio_config={"output_dim": text["hidden_size"]},
        position_id_per_seconds=CHUNK_TOKENS,
    )
    if layers is not None:
        vision = config.vision_config
        depth = {"num_hidden_layers": config.text_config, "depth": vision, "encoder_layers": config.audio_config}
        for name, part in depth.items():
            setattr(part, name, min(layers, getattr(part, name)))
        vision.deepstack_visual_indexes = [i for i in vision.deepstack_visual_indexes if i < layers]
    return config


class Qwen3Omni(mrope.MRopeBackbone):
    """A loaded thinker. See ``Backbone`` for the contract."""

    family = FAMILY.name
    model_class = Qwen3OmniMoeThinkerForConditionalGeneration
    side_multiple = 32  # pixels of a merged patch: 2 x 2 patches of 16
    frame_multiple = 2  # of a grid
    prompt_version = "qwen3-omni-chat/1"
    header = "<|im_start|>user\n"
    special_tokens = (*VISION_DELIMITERS, *AUDIO_DELIMITERS)
    norm = qwen_inputs.PixelNorm((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    stop_tokens = ("<|im_end|>",)  # as its own generate has it
    recordable = False  # which experts compute depends on the tokens

    @classmethod
    def random_init(cls, size: str, layers: int | None, *, device: str, dtype: str, tokenizer: Path) -> Self:
        config = shape_config(size, layers)
        return cls._random_init(config, size, device=device, dtype=dtype, tokenizer=tokenizer)

    def __init__(self, checkpoint: Checkpoint, model: Any, tokenizer: Any):
        super().__init__(checkpoint, model, tokenizer)
        self._audio = model.config.audio_config
        self._extractor = loading.mel_extractor(checkpoint, self._audio.num_mel_bins)
        grouped_attention.use_in_towers(model)

    @classmethod
    def _audio_tokens(cls, samples: int) -> int:
        return audio_token_count(qwen_inputs.mel_frame_count(samples))

    def _delimiters(self, shape: MediaShape) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return nested(shape, VISION_DELIMITERS, AUDIO_DELIMITERS)

    def build_layout(self, header: int, shape: MediaShape) -> Layout:
        return prefix_layout(header, shape, self.model.config.position_id_per_seconds)

    @property
    def sound_block(self) -> int:
        return self._audio.n_window_infer * qwen_inputs.HOP

    def sound_sources(self, audio: np.ndarray) -> np.ndarray:
        return qwen_inputs.sound_sources(audio, self._audio.n_window_infer)

    def encode_audio(self, audio: np.ndarray, sources: np.ndarray) -> Tensor:
        mel = qwen_inputs.log_mel(audio, self._extractor, self.device).to(self.dtype)
        mel = repeated.compact(mel, sources, self._audio.n_window_infer)
        features = []
        for start, stop in mel_pieces(mel.shape[1]):
            mask = torch.ones(1, stop - start, dtype=torch.long, device=self.device)
            features.append(
                self.model.get_audio_features(mel[None, :, start:stop], mask, return_dict=True).last_hidden_state
            )
        return torch.cat(features)

    def _audio_flops(self, samples: int) -> int:
        pieces = mel_pieces(qwen_inputs.mel_frame_count(samples))
        return sum(audio_flops(self._audio, stop - start) for start, stop in pieces)

    def _decoder_mask(self, by_kind: dict[str, Tensor | None] | None) -> Tensor | None:
        return None if by_kind is None else by_kind["full_attention"]

    def _check(self) -> None:
        super()._check()
        text, audio = self.model.config.text_config, self.model.config.audio_config
        if text.mlp_only_layers or text.decoder_sparse_step != 1:
            raise UsageError(
                f"{self.id} has layers without experts, which are not supported: use a published Qwen3-Omni"
            )
        if (2 * audio.n_window, PIECE % audio.n_window_infer) != (CHUNK, 0):
            raise UsageError(
                f"the audio tower of {self.id} works in chunks of {2 * audio.n_window} frames, not {CHUNK}"
            )


def audio_token_count(mel_frames: int) -> int:
    """Audio tokens of ``mel_frames`` frames of 10 ms: three convolutions with a stride of 2 on each chunk (13 a
    second)."""
    rest = mel_frames % CHUNK
    for _ in range(3):
        rest = (rest + 1) // 2
    return rest + mel_frames // CHUNK * CHUNK_TOKENS


def mel_pieces(frames: int) -> list[tuple[int, int]]:
    """Cut ``frames`` mel frames into runs (start, stop) of whole attention windows.

    Exact: windows do not see each other. A tail shorter than a chunk stays with the piece before it, as the
    convolutions pad the last chunk to the longest of its piece.
    """
    starts = range(0, max(frames - CHUNK, 0) + 1, PIECE)
    return list(zip(starts, [*starts[1:], frames]))


def prefix_layout(header: int, shape: MediaShape, per_second: int) -> Layout:
    """Lay out ``header`` text tokens, the delimiters and the media.

    Time runs at ``per_second`` positions, in fractions; rows and columns are not shifted by time. Media are merged by
    time, at the same time video first. The closing delimiters follow what is left of one modality when the other has
    ended, or the only one: with a wide frame they may repeat positions of the picture.
    """
    opening = len(nested(shape, VISION_DELIMITERS, AUDIO_DELIMITERS)[0])
    grid, row, column = raster(shape)
    seconds = shape.starts()[grid]  # in float32 like the original, where equal times decide the order
    sound = torch.arange(shape.audio)
    picture = torch.stack([seconds * per_second, row.to(torch.float32), column.to(torch.float32)])
    positions = torch.cat([picture, sound.to(torch.float32).expand(3, -1)], dim=1) + float(header + opening)
    order = torch.argsort(positions[0], stable=True)
    positions, is_audio = positions[:, order], order >= shape.video
    tail = (is_audio != is_audio[-1]).flip(0).cumsum(0).flip(0) == 0
    return compose(
        shape,
        order,
        positions,
        before=torch.arange(header + opening, dtype=torch.float32),
        after=positions[:, tail].max() + 1 + torch.arange(opening),
        audio_s=sound // CHUNK_TOKENS * (CHUNK / 100) + sound % CHUNK_TOKENS * TOKEN_S,
    )


def audio_flops(config: Any, mel_frames: int) -> int:
    """Operations of the audio tower of ``config`` (``Qwen3OmniMoeAudioEncoderConfig``) for one call on ``mel_frames``
    frames.

    The convolutions run on chunks padded to the longest one, attention inside each window.
    """
    chunks, width = -(-mel_frames // CHUNK), config.downsample_hidden_size
    mel, length, channels, convolutions = config.num_mel_bins, min(mel_frames, CHUNK), 1, 0
    for _ in range(3):
        mel, length = (mel + 1) // 2, (length + 1) // 2
        convolutions += 2 * 9 * chunks * mel * length * channels * width
        channels = width
    hidden, tokens = config.d_model, audio_token_count(mel_frames)
    window = config.n_window_infer // CHUNK * CHUNK_TOKENS if mel_frames >= CHUNK else tokens
    embed = 2 * chunks * length * width * mel * hidden
    linear = 2 * tokens * (4 * hidden**2 + 2 * hidden * config.encoder_ffn_dim)
    attention = 4 * hidden * sum(part**2 for part in cost.parts(tokens, window))
    return (
        convolutions
        + embed
        + config.encoder_layers * (linear + attention)
        + 2 * tokens * hidden * (hidden + config.output_dim)
    )
