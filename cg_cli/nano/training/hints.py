"""What the middle of the decoder should know at each audio token: which picture goes with this moment of the sound.

Answers alone teach a decoder slowly to bind sound and picture of one moment. The generator knows what is seen at each
audio token, so linear read-outs of the decoder's middle layer are trained on that beside the answers, and thrown away
afterwards. Nothing of the clip is dropped for it.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..script import Script
from ..things import AUDIBLE, COLOURS, COUNTS, DIGITS, PLACES, SILENT

TOKENS_A_SECOND = 25
LAYER = 2  # the read-outs see the hidden states after this many decoder layers
BACKGROUND = 0.3  # weight of class 0, nothing, which most moments belong to
CLASSES = {  # name: classes beside 0
    "heard": AUDIBLE,
    "before": AUDIBLE,  # the sound of the last scene that had one
    "large": AUDIBLE,
    "colour": tuple(COLOURS),
    "count": COUNTS,
    "place": PLACES,  # of the large thing, where there is only one
    "gone": SILENT,  # a brief thing of this scene that has left
    "gone_colour": tuple(COLOURS),
    "tens": DIGITS,
    "units": DIGITS,
}


class Hints(nn.Module):
    """Linear read-outs of the decoder's middle layer."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(classes) + 1) for name, classes in CLASSES.items()})
        self.small = nn.Linear(width, len(SILENT))

    def loss(self, hidden: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Mean loss of the read-outs.

        Args:
            hidden: [B, A, width], states of the clips' audio tokens.
            labels: of ``moments``, stacked over the clips.
        """
        state = self.norm(hidden.float())
        losses = [F.binary_cross_entropy_with_logits(self.small(state), labels["small"])]
        for name, head in self.heads.items():
            score = head(state).flatten(0, 1)
            weight = torch.ones(score.shape[1])
            weight[0] = BACKGROUND
            losses.append(F.cross_entropy(score, labels[name].flatten(), weight=weight))
        return torch.stack(losses).mean()


@lru_cache(maxsize=8192)
def moments(script: Script) -> dict[str, Tensor]:
    """What each audio token should know: CLASSES names to [25 * duration] int64 class indices, and "small" to
    [25 * duration, len(SILENT)] float32, 1 for each small thing that shows."""
    count = TOKENS_A_SECOND * script.duration
    out = {name: torch.zeros(count, dtype=torch.long) for name in CLASSES}
    out["small"] = torch.zeros(count, len(SILENT))
    before = 0
    for scene in script.scenes:
        scene_span = _span(scene.start, scene.end)
        out["before"][scene_span] = before
        if scene.sound:
            before = AUDIBLE.index(scene.sound.kind) + 1
            out["heard"][_span(scene.sound.start, scene.sound.end)] = before
        if scene.large:
            out["large"][scene_span] = AUDIBLE.index(scene.large[0].kind) + 1
            out["colour"][scene_span] = list(COLOURS).index(scene.large[0].colour) + 1
            out["count"][scene_span] = len(scene.large)
            out["place"][scene_span] = PLACES.index(scene.large[0].place) + 1 if len(scene.large) == 1 else 0
        for thing in (*scene.small, *([scene.brief] if scene.brief else [])):
            out["small"][_span(thing.start, thing.end), SILENT.index(thing.kind)] = 1
        if scene.brief:
            after = _span(scene.brief.end + 1, scene.end)  # the next whole second shows that it has left
            out["gone"][after] = SILENT.index(scene.brief.kind) + 1
            out["gone_colour"][after] = list(COLOURS).index(scene.brief.colour) + 1
        if scene.number:
            shown = _span(scene.number.start, scene.number.end)
            out["tens"][shown], out["units"][shown] = (DIGITS.index(d) + 1 for d in scene.number.text)
    return out


def _span(start: float, end: float) -> slice:
    """Audio tokens from ``start`` to ``end`` seconds; empty when it ends first."""
    return slice(round(start * TOKENS_A_SECOND), max(round(start * TOKENS_A_SECOND), round(end * TOKENS_A_SECOND)))
