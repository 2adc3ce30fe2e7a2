"""Auxiliary losses of the decoder: linear heads on its middle layers, and supervised attention.

Answers alone teach a decoder slowly to bind sound and picture of one moment, and to find the moment that a question
means. The generator knows both. So linear heads on the decoder's middle layers predict what is seen and heard at each
audio and video token, and are thrown away afterwards; and two attention heads are trained to attend, where a word of
an answer is predicted, to the tokens that show it. Nothing of the clip is dropped for it.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cg_cli.nano.script import Script
from cg_cli.nano.things import AUDIBLE, COLOURS, COUNTS, DIGITS, KINDS, PLACES, SILENT
from cg_cli.nano.training.evidence import TOKENS_A_SECOND, audio_span, brief_cells, cell_labels, grids_of
from cg_cli.nano.training.towers import IGNORE

LAYER = 2  # the heads read the hidden states after this many decoder layers
LATE_LAYER = 3  # those for brief things, which takes a comparison of moments
POINTING_LAYER, POINTING_HEADS = 3, (0, 2)  # index of the layer after them, and its attention heads
BACKGROUND = 0.3  # weight of class 0, nothing, which most moments belong to
SCENES = 3
CLASSES = {  # of an audio token; name: classes beside 0
    "heard": AUDIBLE,
    "before": AUDIBLE,  # the sound of the last scene that had one
    "sounds": COUNTS,  # how many have been heard up to here
    "large": AUDIBLE,
    "colour": tuple(COLOURS),
    "count": COUNTS,
    "place": PLACES,  # of the large thing, where there is only one
    "tens": DIGITS,
    "units": DIGITS,
    "scene": range(SCENES),
}
SHOWN = ("small", "small_before")  # of an audio token, any number of SILENT: now, and in scenes before this one
# Of a video token: the brief thing that is or was here.
SIGHTS = {"fleeting": SILENT, "fleeting_colour": tuple(COLOURS)}
CHANGE = "was"  # of a video token whose cell has changed: what the grid before showed there


class AuxiliaryHeads(nn.Module):
    """Linear heads on the decoder's middle layers, for training only."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.late_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(classes) + 1) for name, classes in CLASSES.items()})
        self.shown = nn.ModuleDict({name: nn.Linear(width, len(SILENT)) for name in SHOWN})
        self.sights = nn.ModuleDict({name: nn.Linear(width, len(classes) + 1) for name, classes in SIGHTS.items()})
        self.cell_scene = nn.Linear(width, SCENES + 1)
        self.was = nn.Linear(width, len(KINDS) + 1)

    def loss(self, audio: Tensor, video: Tensor, late_video: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Mean loss of the heads.

        Args:
            audio, video: [B, A, width] and [B, V, width], states of the clips' tokens after LAYER layers.
            late_video: [B, V, width], after LATE_LAYER layers.
            labels: of ``token_labels``, stacked over the clips.
        """
        state = self.norm(audio.float())
        losses = [classify(head(state), labels[name]) for name, head in self.heads.items()]
        for name, head in self.shown.items():
            each = F.binary_cross_entropy_with_logits(head(state), labels[name], reduction="none")
            losses.append(2 * balanced(each, labels[name] > 0))
        state, late = self.norm(video.float()), self.late_norm(late_video.float())
        losses.append(classify(self.cell_scene(state), labels["cell_scene"]))
        for score, name in ((self.was(state), CHANGE), *((head(late), name) for name, head in self.sights.items())):
            label = labels[name].long()
            each = F.cross_entropy(score.flatten(0, 1), label.flatten(), ignore_index=IGNORE, reduction="none")
            known = label.flatten() != IGNORE
            losses.append(balanced(each[known], label.flatten()[known] > 0))
        return torch.stack(losses).mean()


def balanced(each: Tensor, positive: Tensor) -> Tensor:
    """Mean of the losses ``each``, the rare positive ones together counting as much as all others."""
    weight = torch.where(positive, 1 / positive.sum().clamp_min(1), 1 / (~positive).sum().clamp_min(1))
    return (each * weight).sum() / weight.sum()


def classify(score: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of ``score`` [..., classes], class 0 counting BACKGROUND."""
    weight = torch.ones(score.shape[-1])
    weight[0] = BACKGROUND
    return F.cross_entropy(score.flatten(0, 1), label.flatten().long(), weight=weight, ignore_index=IGNORE)


def pointing_loss(attention: Tensor, evidence: Tensor) -> Tensor:
    """Negative log of the attention that the pointing heads give to the evidence, mean over words and heads.

    Args:
        attention: [n, heads, L], of each predicted word; each row sums to 1.
        evidence: [n, P] bool, P <= L, the tokens that show the word.
    """
    mass = (attention[..., : evidence.shape[1]].float() * evidence[:, None]).sum(-1)
    return -(mass + 1e-5).log().mean()


@lru_cache(maxsize=8192)
def token_labels(script: Script) -> dict[str, Tensor]:
    """The labels of each token: CLASSES names to [25 * duration] class indices, SHOWN names to
    [25 * duration, len(SILENT)] float32, SIGHTS names, CHANGE and "cell_scene" to [grids * CELLS * CELLS] class
    indices."""
    count = TOKENS_A_SECOND * script.duration
    out = {name: torch.zeros(count, dtype=torch.int16) for name in CLASSES}
    out |= {name: torch.zeros(count, len(SILENT)) for name in SHOWN}
    kind, _ = cell_labels(script)
    out |= {name: torch.zeros(kind.shape, dtype=torch.int16) for name in (*SIGHTS, CHANGE, "cell_scene")}
    kinds: list[str] = []
    for number, scene in enumerate(script.scenes):
        scene_span = audio_span(scene.start, scene.end)
        out["scene"][scene_span] = out["cell_scene"][grids_of(script, scene)] = number + 1
        out["before"][scene_span] = AUDIBLE.index(kinds[-1]) + 1 if kinds else 0
        if scene.sound:
            kinds.append(scene.sound.kind)
            out["heard"][audio_span(scene.sound.start, scene.sound.end)] = AUDIBLE.index(scene.sound.kind) + 1
        out["sounds"][audio_span(scene.sound.start if scene.sound else scene.start, script.duration)] = len(kinds)
        if scene.large:
            out["large"][scene_span] = AUDIBLE.index(scene.large[0].kind) + 1
            out["colour"][scene_span] = list(COLOURS).index(scene.large[0].colour) + 1
            out["count"][scene_span] = len(scene.large)
            out["place"][scene_span] = PLACES.index(scene.large[0].place) + 1 if len(scene.large) == 1 else 0
        for thing in (*scene.small, *([scene.brief] if scene.brief else [])):
            out["small"][audio_span(thing.start, thing.end), SILENT.index(thing.kind)] = 1
            out["small_before"][audio_span(scene.end, script.duration), SILENT.index(thing.kind)] = 1
        if scene.brief:
            came, left = brief_cells(script, scene)
            unknown = (kind == len(AUDIBLE) + SILENT.index(scene.brief.kind) + 1) & ~came
            for name, classes, label in (
                ("fleeting", SILENT, scene.brief.kind),
                ("fleeting_colour", list(COLOURS), scene.brief.colour),
            ):
                out[name][came | left] = classes.index(label) + 1
                out[name][unknown] = IGNORE
        if scene.number:
            written = audio_span(scene.number.start, scene.number.end)
            out["tens"][written], out["units"][written] = (DIGITS.index(d) + 1 for d in scene.number.text)
    out[CHANGE][0] = IGNORE
    changed = (kind[1:] != kind[:-1]) & (kind[1:] != IGNORE) & (kind[:-1] != IGNORE)
    out[CHANGE][1:] = torch.where(changed, kind[:-1], IGNORE)
    for name in (*SIGHTS, CHANGE, "cell_scene"):
        out[name] = out[name].flatten()
    return out
