"""The audio-to-visual (A2V) predictor: what a window shows, predicted from its audio tokens. Tensors only.

ContextGuard (arXiv 2605.11605) states that such a predictor exists, is light and trained on its own; its forms here are
our own. A window of the backbone's audio tokens is pooled by a few learned queries. Everything visual is in a *coarse
visual space*: the leading principal directions of the backbone's own video tokens, centred, since raw cosines share a
large common part. There are two kinds:

* ``WordPredictor`` (the usual one): how likely each of a few hundred *visual words* is, clusters of video tokens; a
  class of things may look in several ways.
* ``DirectionPredictor``: one direction of the coarse space, that of the window's mean video token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6
DIRECTION, WORDS = "direction", "words"  # kinds of predictors
CODEBOOK = 256  # words, where there are enough tokens to learn as many from


@dataclass(frozen=True)
class PredictorMetadata:
    """What a predictor was made for and from.

    Attributes:
        backbone, revision, family: the model whose tokens it reads.
        width: D, size of the backbone's audio and video tokens.
        hidden, queries, components: sizes of the predictor; components is the dimension of the coarse visual space.
        window_s: seconds of audio that one prediction covers.
        clips, windows: size of the training set.
        validation: figures measured on clips that training did not see (``predictors.card``).
        kind: DIRECTION or WORDS.
        words: size of the codebook; 0 for DIRECTION.
        verdict: what the figures mean, in words.
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
    kind: str = DIRECTION
    words: int = 0
    verdict: str = ""


class A2VPredictor(nn.Module):
    """What the kinds share: the pooling of a window's audio tokens, and the coarse visual space.

    Buffers, measured on the training clips: ``audio_mean`` [D] and ``audio_scale`` []; ``video_mean`` [D] and ``basis``
    [D, components], the principal directions of the video tokens.
    """

    kind: ClassVar[str]

    audio_mean: Tensor
    audio_scale: Tensor
    video_mean: Tensor
    basis: Tensor

    def __init__(self, metadata: PredictorMetadata, outputs: int):
        super().__init__()
        if metadata.kind != self.kind:
            raise ValueError(f"a card of kind {metadata.kind} for a predictor of kind {self.kind}")
        self.metadata = metadata
        width, hidden, components = metadata.width, metadata.hidden, metadata.components
        self.down = nn.Linear(width, hidden)
        self.attention = nn.Linear(hidden, metadata.queries)
        self.mix = nn.Linear(metadata.queries * hidden, hidden)
        self.up = nn.Linear(hidden, outputs)
        self.register_buffer("audio_mean", torch.zeros(width))
        self.register_buffer("audio_scale", torch.ones(()))
        self.register_buffer("video_mean", torch.zeros(width))
        self.register_buffer("basis", torch.zeros(width, components))

    def coarse(self, video: Tensor) -> Tensor:
        """Video tokens [..., D] in the coarse visual space, centred: [..., components] float32."""
        return (video.float() - self.video_mean) @ self.basis

    def _outputs(self, audio: Tensor, window: Tensor, windows: int) -> tuple[Tensor, Tensor]:
        """What the last layer makes of each window's sound [windows, outputs], and 1 for a window with sound, 0 for one
        without [windows, 1]; arguments as for ``forward``."""
        state = F.gelu(self.down((audio.float() - self.audio_mean) / self.audio_scale))
        score = self.attention(state)  # [A, queries]
        index = window[:, None].expand_as(score)
        peak = score.new_full((windows, score.shape[1]), -torch.inf).scatter_reduce(0, index, score, "amax")
        share = (score - peak[window]).exp()
        total = _sum_by(window, share, windows)
        weighted = (share[:, :, None] * state[:, None, :]).flatten(1)
        pooled = _sum_by(window, weighted, windows)
        pooled = pooled / total.clamp_min(EPSILON).repeat_interleave(state.shape[1], dim=1)
        has_audio = (total[:, :1] > 0).float()
        return self.up(F.gelu(self.mix(pooled))), has_audio

    def flops(self, audio: int, video: int, windows: int) -> int:
        """Operations for ``audio`` and ``video`` tokens in ``windows`` windows, a multiplication and an addition as
        two."""
        width, hidden, queries = self.metadata.width, self.metadata.hidden, self.metadata.queries
        components, outputs = self.metadata.components, self.up.out_features
        per_audio = width * hidden + 2 * hidden * queries
        per_window = queries * hidden * hidden + hidden * outputs
        return 2 * (audio * per_audio + windows * per_window + video * width * components)


class DirectionPredictor(A2VPredictor):
    """Audio tokens of a window to a direction of the coarse space, and a confidence from its cosine agreement with the
    actual video tokens.

    Buffers, measured on the clips held back: ``matched`` [] and ``shuffled`` [], the mean cosine between predicted and
    pooled actual tokens when sound and picture belong together, and when they do not.
    """

    kind = DIRECTION

    matched: Tensor
    shuffled: Tensor

    def __init__(self, metadata: PredictorMetadata):
        super().__init__(metadata, metadata.components)
        self.register_buffer("matched", torch.ones(()))
        self.register_buffer("shuffled", torch.zeros(()))

    def forward(self, audio: Tensor, window: Tensor, windows: int) -> Tensor:
        """Predict the direction of each window's mean video token.

        Args:
            audio: [A, D], audio tokens.
            window: [A] int64, the window that each belongs to.
            windows: how many there are.

        Returns:
            [windows, components] float32, unit length; zeros for a window without sound.
        """
        outputs, has_audio = self._outputs(audio, window, windows)
        return F.normalize(outputs, dim=-1) * has_audio

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


class WordPredictor(A2VPredictor):
    """Audio tokens of a window to how much likelier than usual they make each visual word.

    Buffers, measured on the training clips: ``codebook`` [K, components], the words' centres in the coarse space;
    ``marginal`` [K], the log of each word's share of all video tokens.
    """

    kind = WORDS

    codebook: Tensor
    marginal: Tensor

    def __init__(self, metadata: PredictorMetadata):
        super().__init__(metadata, metadata.words)
        self.register_buffer("codebook", torch.zeros(metadata.words, metadata.components))
        self.register_buffer("marginal", torch.zeros(metadata.words))
        # Untrained, it says of every sound that it tells nothing.
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, audio: Tensor, window: Tensor, windows: int) -> Tensor:
        """Recoverability of each word from each window's sound: ``log p(word | sound) - log p(word)``, natural.

        Args:
            audio: [A, D], audio tokens.
            window: [A] int64, the window that each belongs to.
            windows: how many there are.

        Returns:
            [windows, K] float32; zeros for a window without sound.
        """
        outputs, has_audio = self._outputs(audio, window, windows)
        return (F.log_softmax(self.marginal + outputs, dim=-1) - self.marginal) * has_audio

    def words_of(self, point: Tensor) -> Tensor:
        """The nearest word of each point [..., components] of the coarse space: [...] int64."""
        return (self.codebook.square().sum(-1) - 2 * point @ self.codebook.T).argmin(-1)

    def flops(self, audio: int, video: int, windows: int) -> int:
        compared = 2 * video * self.metadata.components * self.metadata.words
        return super().flops(audio, video, windows) + compared


KINDS: dict[str, type[DirectionPredictor] | type[WordPredictor]] = {
    kind.kind: kind for kind in (DirectionPredictor, WordPredictor)
}


def _sum_by(window: Tensor, values: Tensor, windows: int) -> Tensor:
    """Sum of the rows of ``values`` [A, n] in each window [windows, n], always in the same order: ``index_add`` adds in
    whatever order on CUDA, ``index_put`` on the CPU."""
    total = values.new_zeros(windows, values.shape[1])
    if values.is_cuda:
        return total.index_put((window,), values, accumulate=True)
    return total.index_add(0, window, values)
