"""The audio-to-visual (A2V) predictor: what the picture roughly shows, as far as the sound tells it.

ContextGuard (arXiv 2605.11605) states that such a predictor exists, is light and trained on its own; its form here is
our own. A window of the backbone's audio tokens is pooled by a few learned queries and mapped to a point of a *coarse
visual space*: the leading principal directions of the backbone's own video tokens, centred, since raw cosines share a
large common part.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cg_cli.errors import UsageError

FORMAT = "cg.a2v/1"
EPSILON = 1e-6


@dataclass(frozen=True)
class PredictorMetadata:
    """What a predictor was made for and from: the metadata of its file.

    Attributes:
        backbone, revision, family: the model whose tokens it reads.
        width: D, size of the backbone's audio and video tokens.
        hidden, queries, components: sizes of the predictor; components is the dimension of the coarse visual space.
        window_s: seconds of sound that one prediction hears.
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
    """Audio tokens of a window to a direction of the coarse visual space, and how far the picture bears it out.

    Buffers, measured on the training clips: ``audio_mean`` [D] and ``audio_scale`` []; ``video_mean`` [D] and ``basis``
    [D, components], the principal directions of the video tokens; ``matched`` [] and ``shuffled`` [], the mean cosine
    between predicted and pooled actual tokens when sound and picture belong together, and when they do not.
    """

    def __init__(self, card: PredictorMetadata):
        super().__init__()
        self.metadata = card
        width, hidden, components = card.width, card.hidden, card.components
        self.down = nn.Linear(width, hidden)
        self.attention = nn.Linear(hidden, card.queries)
        self.mix = nn.Linear(card.queries * hidden, hidden)
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
        """Predict each window's picture.

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
        heard = (total[:, :1] > 0).float()
        return F.normalize(self.up(F.gelu(self.mix(pooled))), dim=-1) * heard

    def raw_audio(self, audio: Tensor, window: Tensor, windows: int) -> Tensor:
        """A control that has learned nothing: each window's mean audio token, centred, as a direction of the coarse
        space. Arguments and result are those of ``forward``."""
        total = audio.new_zeros(windows, audio.shape[1], dtype=torch.float32).index_add(
            0, window, audio.float() - self.audio_mean
        )
        return F.normalize(total @ self.basis, dim=-1)

    def confidence(self, cosine: Tensor) -> Tensor:
        """How far each window's picture is explained by its sound.

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
        card = self.metadata
        per_audio = card.width * card.hidden + 2 * card.hidden * card.queries
        per_window = card.queries * card.hidden * card.hidden + card.hidden * card.components
        return 2 * (audio * per_audio + windows * per_window + video * card.width * card.components)


def save(predictor: A2VPredictor, path: Path) -> None:
    """Write weights and card as one safetensors file."""
    metadata = {"format": FORMAT, "card": json.dumps(asdict(predictor.metadata))}
    save_file({k: v.contiguous() for k, v in predictor.state_dict().items()}, path, metadata)


def load(path: Path, name: str = "") -> A2VPredictor:
    """Read a predictor; ``name`` is what messages call it, if not by its path. UsageError, in one line, if the file is
    none.

    The card may lie: nothing is allocated by its sizes, only the tensors that are in the file.
    """
    name = name or str(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            # Copied, since safetensors maps the file, which may be written anew while this runs.
            state = {key: file.get_tensor(key).to(torch.float32, copy=True) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise UsageError(f"no predictor file {name}") from None
    except (OSError, SafetensorError) as error:
        raise UsageError(f"predictor {name} cannot be read: {' '.join(str(error).split())}") from error
    if metadata.get("format") != FORMAT:
        raise UsageError(f"{name} is no predictor of format {FORMAT}: train one with `cg train-predictor`")
    try:
        card = PredictorMetadata(**json.loads(metadata["card"]))
        if not all(
            isinstance(word, str) and word.isprintable() for word in (card.backbone, card.revision, card.family)
        ):
            raise ValueError("its card does not say what it was made for")
        if not 0 < card.window_s < math.inf:
            raise ValueError(f"its windows last {card.window_s} s")
        with torch.device("meta"):
            predictor = A2VPredictor(card)
        predictor.load_state_dict(state, assign=True)
        if not all(value.isfinite().all() for value in state.values()):
            raise ValueError("it holds weights that are no numbers")
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"predictor {name} is damaged ({reason}): fetch or train it again") from error
    return predictor.requires_grad_(False).eval()


def check_fits(predictor: A2VPredictor, backbone: str, revision: str, width: int, name: str) -> None:
    """UsageError unless the predictor was trained on the tokens of this model (its id or its revision, and its
    width)."""
    card = predictor.metadata
    if card.width != width or (card.backbone != backbone and card.revision != revision):
        raise UsageError(
            f"predictor {name} was trained for {card.backbone} (tokens of {card.width}), not for {backbone} (tokens of "
            f"{width}): train one with `cg train-predictor VIDEOS --model {backbone} -o FILE`, or leave --predictor out"
        )
