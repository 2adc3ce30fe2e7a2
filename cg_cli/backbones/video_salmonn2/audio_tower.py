"""The audio tower of video-SALMONN 2+: Whisper's encoder on segments of 30 s, then a Q-Former that makes one token of
each half second.

Both are transformers' own; only the names of the published weights differ (``rename``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from cg_cli.backbones import loading
from cg_cli.backbones.checkpoint import Checkpoint
from cg_cli.errors import UsageError
from cg_cli.media.clip import SAMPLE_RATE

SEGMENT_S = 30  # what Whisper reads at a time; the last segment is filled up with silence
SEGMENT = SEGMENT_S * SAMPLE_RATE  # samples
WINDOW_S = 0.5  # of a token
SEGMENT_TOKENS = round(SEGMENT_S / WINDOW_S)
SEGMENTS = 4  # encoded at a time, to bound activations
ROOT = "audio."  # of the tower's weights
PARTS = ("encoder.", "qformer.encoder.", "qformer.layernorm.", "q_tokens", "audio_proj.")  # by names of ``AudioTower``
# What audio_config in config.json need not say, since it is the code's default: Whisper large v3 and a small, wide
# Q-Former.
ENCODER_LAYERS, QFORMER_LAYERS = 32, 2
WHISPER = {
    "num_mel_bins": 128, "d_model": 1280, "encoder_layers": ENCODER_LAYERS, "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120, "activation_function": "gelu", "scale_embedding": False, "max_source_positions": 1500,
}  # fmt: skip
QFORMER = {
    "hidden_size": 3072, "num_hidden_layers": QFORMER_LAYERS, "num_attention_heads": 12, "intermediate_size": 12288,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12,
}  # fmt: skip
FIXED = {"second_per_window": WINDOW_S, "second_stride": WINDOW_S}
FIXED_QFORMER = {"query_length": 1, "cross_attention_freq": 1}


class AudioTower(nn.Module):
    """The encoder, one learned query for each window of its states, and a projection to the language model.

    Args:
        config: ``audio_config`` of config.json.
        out: width of the language model.
        dtype: of the weights.
    """

    def __init__(self, config: Mapping[str, Any], out: int, dtype: torch.dtype):
        super().__init__()
        sizes = {key: config.get(key, usual) for key, usual in WHISPER.items()}
        qformer_config = config.get("qformer_config") or {}
        qformer = {key: qformer_config.get(key, usual) for key, usual in QFORMER.items()}
        self.sizes, self.qformer_sizes, self.out = sizes, qformer, out
        self.encoder = WhisperEncoder._from_config(WhisperConfig(**sizes), dtype=dtype, attn_implementation="sdpa")
        joined = Blip2QFormerConfig(**qformer, encoder_hidden_size=sizes["d_model"], cross_attention_frequency=1)
        self.qformer = Blip2QFormerModel._from_config(joined, dtype=dtype, attn_implementation="sdpa")
        self.q_tokens = nn.Parameter(torch.zeros(1, 1, qformer["hidden_size"], dtype=dtype))
        self.audio_proj = nn.Linear(qformer["hidden_size"], out, dtype=dtype)

    def forward(self, mel: Tensor) -> Tensor:
        """Tokens [S * SEGMENT_TOKENS, out] of segments [S, mel bins, frames]."""
        states = self.encoder(mel).last_hidden_state
        windows = states.unflatten(1, (SEGMENT_TOKENS, -1)).flatten(0, 1)
        query = self.q_tokens.expand(len(windows), -1, -1)
        return self.audio_proj(self.qformer(query_embeds=query, encoder_hidden_states=windows).last_hidden_state[:, 0])

    def flops(self, segments: int) -> int:
        """Operations of ``forward`` for so many segments."""
        mel, width, feed = (self.sizes[key] for key in ("num_mel_bins", "d_model", "encoder_ffn_dim"))
        length, tokens = self.sizes["max_source_positions"], SEGMENT_TOKENS
        convolutions = 2 * 3 * width * (2 * length * mel + length * width)
        layer = 2 * length * (4 * width**2 + 2 * width * feed) + 4 * width * length**2
        inner, wide = self.qformer_sizes["hidden_size"], self.qformer_sizes["intermediate_size"]
        own = 2 * tokens * 4 * inner**2 + 4 * tokens * inner
        crossed = 2 * tokens * 2 * inner**2 + 2 * length * 2 * width * inner + 4 * length * inner
        query = own + crossed + 2 * tokens * 2 * inner * wide
        encoder = convolutions + self.sizes["encoder_layers"] * layer
        return segments * (encoder + self.qformer_sizes["num_hidden_layers"] * query + 2 * tokens * inner * self.out)


def load(checkpoint: Checkpoint, out: int, device: torch.device, dtype: torch.dtype) -> AudioTower:
    """The tower from the ``audio.*`` weights of ``checkpoint``.

    Raises:
        UsageError: files that cannot be read, weights missing or of another shape, windows of another length, or too
            little memory.
    """
    config = checkpoint.config["audio_config"]
    _check(config, FIXED, checkpoint.id)
    _check(config.get("qformer_config") or {}, FIXED_QFORMER, checkpoint.id)

    def read() -> tuple[AudioTower, dict[str, Tensor]]:
        weights: dict[str, Tensor] = {}
        for file, keys in loading.weight_files(checkpoint):
            weights |= {rename(key): file.get_tensor(key).to(device, dtype) for key in keys if key.startswith(ROOT)}
        with torch.device("meta"):
            return AudioTower(config, out, dtype), weights

    tower, weights = loading.read_or_explain(checkpoint, device, dtype, read)
    expected = tower.state_dict()
    if missing := expected.keys() - weights.keys():
        raise loading.incomplete(checkpoint, "missing", [ROOT + name for name in missing])
    if other := [ROOT + name for name, weight in expected.items() if weight.shape != weights[name].shape]:
        raise loading.incomplete(checkpoint, "mismatched", other)
    # What else is there, such as the Q-Former's head for words, is never run.
    tower.load_state_dict({name: weights[name] for name in expected}, assign=True)
    return tower


def rename(key: str) -> str:
    """The name in ``AudioTower`` of a published weight ``audio.*``."""
    name = key.removeprefix(ROOT)
    if name.startswith(("q_tokens", "audio_proj.")):
        return name
    if not name.startswith("qformer."):
        return f"encoder.{name}"
    name = name.replace("qformer.bert.", "qformer.", 1).replace("qformer.embeddings.LayerNorm.", "qformer.layernorm.")
    return name.replace("attention.self.", "attention.attention.")


def extractor(mel_bins: int) -> WhisperFeatureExtractor:
    """What makes spectrograms of SEGMENT_S seconds."""
    return WhisperFeatureExtractor(feature_size=mel_bins, chunk_length=SEGMENT_S)


def log_mel(audio: np.ndarray, extractor: WhisperFeatureExtractor, device: torch.device | str = "cpu") -> Tensor:
    """Log-mel spectrograms [S, bins, frames] float32 of mono sound at 16 kHz, a segment each, the last with silence
    after it; returned on the model's ``device``."""
    pieces = [audio[start : start + SEGMENT] for start in range(0, len(audio), SEGMENT)]
    # The extractor returns them to the CPU in any case.
    where = str(device) if torch.device(device).type == "cuda" else "cpu"
    each = (
        extractor(piece, sampling_rate=SAMPLE_RATE, padding="max_length", return_tensors="pt", device=where)
        for piece in pieces
    )
    return torch.cat([features["input_features"] for features in each]).to(device)


def segment_count(samples: int) -> int:
    """Segments of ``samples`` samples."""
    return -(-samples // SEGMENT)


def _check(config: Mapping[str, Any], fixed: Mapping[str, Any], name: str) -> None:
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise UsageError(
                f"{name} has {key} {config[key]} where only {value} is supported: use a published checkpoint"
            )
