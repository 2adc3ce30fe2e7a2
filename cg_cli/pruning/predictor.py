"""The audio-to-visual (A2V) predictor: a window's mean video token, predicted from its audio tokens. Tensors only.

ContextGuard (arXiv 2605.11605) states that such a predictor exists, is light and trained on its own; its form here is
our own. A window of the backbone's audio tokens is pooled by a few learned queries and mapped to a point of a *coarse
visual space*: the leading principal directions of the backbone's own video tokens, centred, since raw cosines share a
large common part.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6


@dataclass(frozen=True)
class PredictorMetadata:
    """What a predictor was made for and from.

    Attributes:
        backbone, revision, family: the model whose tokens it reads.
        width: D, size of the backbone's audio and video tokens.
        hidden, queries, components: sizes of the predictor; components is the dimension of the coarse visual space.
        window_s: seconds of audio that one prediction covers.
        clips, windows: size of the training set.
        validation: figures measured on clips that training did not see.
    """

    backbone: str
    revision: str
    family: str
    width: int
    hidden: int = 256
    queries: int = 4
    components: int = 64
    window_s: float = 1.0
    clips: int = 0
    windows: int = 0
    validation: dict[str, float] = field(default_factory=dict)


class A2VPredictor(nn.Module):
    """Audio tokens of a window to a direction of the coarse visual space, and a confidence from its cosine agreement
    with the actual video tokens.

    Buffers, measured on the training clips: ``audio_mean`` [D] and ``audio_scale`` []; ``video_mean`` [D] and ``basis``
    [D, components], the principal directions of the video tokens. On the clips held back: ``matched`` [] and
    ``shuffled`` [], the mean cosine between predicted and pooled actual tokens when sound and picture belong together,
    and when they do not.
    """

    audio_mean: Tensor
    audio_scale: Tensor
    video_mean: Tensor
    basis: Tensor
    matched: Tensor
    shuffled: Tensor

    def __init__(self, metadata: PredictorMetadata):
        super().__init__()
        self.metadata = metadata
        width, hidden, components = metadata.width, metadata.hidden, metadata.components
        self.down = nn.Linear(width, hidden)
        self.attention = nn.Linear(hidden, metadata.queries)
        self.mix = nn.Linear(metadata.queries * hidden, hidden)
        self.up = nn.Linear(hidden, components)
        self.register_buffer("audio_mean", torch.zeros(width))
        self.register_buffer("audio_scale", torch.ones(()))
        self.register_buffer("video_mean", torch.zeros(width))
        self.register_buffer("basis", torch.zeros(width, components))
        self.register_buffer("matched", torch.ones(()))
        self.register_buffer("shuffled", torch.zeros(()))

    def coarse(self, video: Tensor) -> Tensor:
        """Video tokens [..., D] in the coarse visual space, centred: [..., components] float32."""
        return (video.float() - self.video_mean) @ self.basis

    def forward(self, audio: Tensor, window: Tensor, windows: int) -> Tensor:
        """Predict the direction of each window's mean video token.

        Args:
            audio: [A, D], audio tokens.
            window: [A] int64, the window that each belongs to.
            windows: how many there are.

        Returns:
            [windows, components] float32, unit length; zeros for a window without sound.
        """
        state = F.gelu(self.down((audio.float() - self.audio_mean) / self.audio_scale))
        score = self.attention(state)  # [A, queries]
        index = window[:, None].expand_as(score)
        peak = score.new_full((windows, score.shape[1]), -torch.inf).scatter_reduce(0, index, score, "amax")
        share = (score - peak[window]).exp()
        total = score.new_zeros(windows, score.shape[1]).index_add(0, window, share)
        weighted = (share[:, :, None] * state[:, None, :]).flatten(1)
        pooled = weighted.new_zeros(windows, weighted.shape[1]).index_add(0, window, weighted)
        pooled = pooled / total.clamp_min(EPSILON).repeat_interleave(state.shape[1], dim=1)
        has_audio = (total[:, :1] > 0).float()
        return F.normalize(self.up(F.gelu(self.mix(pooled))), dim=-1) * has_audio

    def raw_audio(self, audio: Tensor, window: Tensor, windows: int) -> Tensor:
        """A control that has learned nothing: each window's mean audio token, centred, as a direction of the coarse
        space. Arguments and result are those of ``forward``."""
        total = audio.new_zeros(windows, audio.shape[1], dtype=torch.float32).index_add(
            0, window, audio.float() - self.audio_mean
        )
        return F.normalize(total @ self.basis, dim=-1)

    def confidence(self, cosine: Tensor) -> Tensor:
        """How well each window's audio predicts its picture.

        Args:
            cosine: [W], between the prediction of ``forward`` and the mean of the window's video tokens, coarse.

        Returns:
            [W] in 0..1: 0 where they agree no more than sound and picture of different clips do, 1 where they agree
            as well as they do on average in clips of the training set, or better.
        """
        return ((cosine - self.shuffled) / (self.matched - self.shuffled).clamp_min(EPSILON)).clamp(0, 1)

    def flops(self, audio: int, video: int, windows: int) -> int:
        """Operations for ``audio`` and ``video`` tokens in ``windows`` windows, a multiplication and an addition as
        two."""
        width, hidden, queries = self.metadata.width, self.metadata.hidden, self.metadata.queries
        components = self.metadata.components
        per_audio = width * hidden + 2 * hidden * queries
        per_window = queries * hidden * hidden + hidden * components
        return 2 * (audio * per_audio + windows * per_window + video * width * components)
