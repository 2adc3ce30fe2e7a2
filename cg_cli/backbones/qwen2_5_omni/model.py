"""Qwen2.5-Omni: the thinker (vision tower, audio tower, language model), loaded alone from any of its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from cg_cli.backbones import cost, grouped_attention, loading, mrope, qwen_inputs, qwen_shapes, repeated
from cg_cli.backbones.checkpoint import Checkpoint
from cg_cli.backbones.layout import Layout, MediaShape
from cg_cli.backbones.qwen2_5_omni import FAMILY, layout


class Qwen25Omni(mrope.MRopeBackbone):
    """A loaded thinker. See ``Backbone`` for the contract."""

    family = FAMILY.name
    model_class = Qwen2_5OmniThinkerForConditionalGeneration
    side_multiple = 28  # pixels of a merged patch: 2 x 2 patches of 14
    frame_multiple = 2  # of a grid
    prompt_version = "qwen-chat/1"
    header = layout.HEADER
    question_end = layout.QUESTION_END
    special_tokens = (*layout.VISION_DELIMITERS, *layout.AUDIO_DELIMITERS)
    not_quantized = (*mrope.MRopeBackbone.not_quantized, "model.audio_tower")

    @classmethod
    def random_init(cls, size: str, layers: int | None, *, device: str, dtype: str, tokenizer: Path) -> Self:
        config = qwen_shapes.config(size, layers)
        return cls._random_init(config, size, device=device, dtype=dtype, tokenizer=tokenizer)

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
        return layout.delimiters(shape)

    def build_layout(self, header: int, shape: MediaShape) -> Layout:
        return layout.prefix_layout(header, shape, self._rates)

    @property
    def sound_block(self) -> int:
        return 2 * self._audio.n_window * qwen_inputs.HOP

    def sound_sources(self, audio: np.ndarray) -> np.ndarray:
        return qwen_inputs.sound_sources(audio, 2 * self._audio.n_window)

    def encode_audio(self, audio: np.ndarray, sources: np.ndarray) -> Tensor:
        mel = qwen_inputs.log_mel(audio, self._extractor, self.device)
        mel = repeated.compact(mel, sources, 2 * self._audio.n_window)
        features = []
        for start, stop in qwen_inputs.mel_pieces(mel.shape[1], self._audio.n_window):
            mask = torch.ones(1, stop - start, dtype=torch.long, device=self.device)
            piece = self.model.get_audio_features(mel[None, :, start:stop], mask, return_dict=True)
            features.append(piece.last_hidden_state)
        return torch.cat(features)

    def _audio_flops(self, samples: int) -> int:
        pieces = qwen_inputs.mel_pieces(qwen_inputs.mel_frame_count(samples), self._audio.n_window)
        return sum(cost.audio_flops(self._audio, stop - start) for start, stop in pieces)
