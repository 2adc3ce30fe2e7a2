"""Qwen2.5-Omni: the thinker (vision tower, audio tower, language model), loaded alone from any of its checkpoints."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from cg_cli.backbones import cost, grouped_attention, loading, mrope, qwen_inputs, qwen_shapes
from cg_cli.backbones.base import Backbone
from cg_cli.backbones.checkpoint import Checkpoint
from cg_cli.backbones.layout import Layout, MediaShape
from cg_cli.backbones.qwen2_5_omni import layout
from cg_cli.media.clip import Clip


def load(checkpoint: Checkpoint, *, device: str, dtype: str, quantize: str) -> Backbone:
    """Load the thinker of ``checkpoint``, full Omni or thinker-only. UsageError as for ``loading.load``."""
    return Qwen25Omni(
        checkpoint,
        *loading.load(
            Qwen2_5OmniThinkerForConditionalGeneration, checkpoint, device=device, dtype=dtype, quantize=quantize
        ),
    )


def random_init(size: str, layers: int | None, *, device: str, dtype: str) -> Backbone:
    """The thinker in the shape of ``size`` with random weights and nano's tokenizer; see ``backbones.random_init``."""
    config = qwen_shapes.config(size, layers)

    def build(kind: torch.dtype) -> Any:
        return Qwen2_5OmniThinkerForConditionalGeneration._from_config(config, dtype=kind, attn_implementation="sdpa")

    return Qwen25Omni(*loading.random_init(build, size, Qwen25Omni.special_tokens, device=device, dtype=dtype))


class Qwen25Omni(mrope.MRopeBackbone):
    """A loaded thinker. See ``Backbone`` for the contract."""

    side_multiple = 28  # pixels of a merged patch: 2 x 2 patches of 14
    frame_multiple = 2  # of a grid
    prompt_version = "qwen-chat/1"
    header = layout.HEADER
    question_end = layout.QUESTION_END
    special_tokens = (*layout.VISION_DELIMITERS, *layout.AUDIO_DELIMITERS)

    def __init__(self, checkpoint: Checkpoint, model: Any, tokenizer: Any):
        super().__init__(checkpoint, model, tokenizer)
        self._rates = layout.Rates(model.config.position_id_per_seconds, model.config.seconds_per_chunk)
        self._audio = cost.AudioSizes.from_config(model.config.audio_config)
        self._extractor = loading.mel_extractor(checkpoint, self._audio.mel_bins)
        grouped_attention.use_in_towers(model)

    @classmethod
    def _audio_tokens(cls, samples: int) -> int:
        return layout.audio_token_count(qwen_inputs.mel_frame_count(samples))

    def _delimiters(self, shape: MediaShape) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return layout.marks(shape)

    def build_layout(self, header: int, shape: MediaShape) -> Layout:
        return layout.prefix_layout(header, shape, self._rates)

    def encode_audio(self, clip: Clip) -> Tensor:
        mel = qwen_inputs.log_mel(clip.audio, self._extractor).to(self.device)
        features = []
        for start, stop in qwen_inputs.mel_pieces(mel.shape[1], self._audio.n_window):
            mask = torch.ones(1, stop - start, dtype=torch.long, device=self.device)
            piece = self.model.get_audio_features(mel[None, :, start:stop], mask, return_dict=True)
            features.append(piece.last_hidden_state)
        return torch.cat(features)

    def _audio_flops(self, samples: int) -> int:
        pieces = qwen_inputs.mel_pieces(qwen_inputs.mel_frame_count(samples), self._audio.n_window)
        return sum(cost.audio_flops(self._audio, stop - start) for start, stop in pieces)


BACKBONE = Qwen25Omni
