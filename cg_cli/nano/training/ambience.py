"""What the ambience world's generator knows about each token of a clip, for the training: labels and evidence."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cg_cli.nano.ambience.questions import Item
from cg_cli.nano.ambience.render import surface_cells
from cg_cli.nano.ambience.script import Band, Scene, Script
from cg_cli.nano.ambience.surfaces import HEARD, SURFACES
from cg_cli.nano.questions import Moment, Question
from cg_cli.nano.render import scene_at
from cg_cli.nano.script import Number, Sound, Thing
from cg_cli.nano.things import CELLS, COLOURS, DIGITS, KINDS, SILENT
from cg_cli.nano.training.auxiliary import balanced, classify
from cg_cli.nano.training.evidence import (
    TOKENS_A_SECOND,
    audio_span,
    brief_cells,
    cell_labels,
    grid_times,
    grids_of,
)
from cg_cli.nano.training.towers import IGNORE

SCENES = 2
CLASSES = {"scene": range(SCENES), "tens": DIGITS, "units": DIGITS}  # of an audio token; name: classes beside 0
# Of an audio token, any number of them: what sounds; the surfaces and the things of the scene.
SEVERAL = {"heard": HEARD, "surfaces": SURFACES, "things": SILENT}
# Of a video token: the brief thing that is or was here.
SIGHTS = {"fleeting": SILENT, "fleeting_colour": tuple(COLOURS)}


def ground(script: Script, times: tuple[float, float]) -> np.ndarray:
    """The surface of each cell of the grid of the frames at ``times``, also under a thing: [CELLS * CELLS] int64,
    SURFACES index + 1, IGNORE where the two frames differ."""
    first, second = (surface_cells(scene_at(script, time)) for time in times)
    return np.where(first == second, first, IGNORE).reshape(-1)


def sound_labels(script: Script) -> Tensor:
    """What sounds at each audio token: [25 * duration, len(HEARD)] float32, 0 or 1."""
    out = torch.zeros(TOKENS_A_SECOND * script.duration, len(HEARD))
    for sound in (sound for scene in script.scenes for sound in scene.sounds):
        out[audio_span(sound.start, sound.end), HEARD.index(sound.kind)] = 1
    return out


class AmbienceHeads(nn.Module):
    """Linear heads on the decoder's middle layers, for training only."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.late_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(classes) + 1) for name, classes in CLASSES.items()})
        self.several = nn.ModuleDict({name: nn.Linear(width, len(classes)) for name, classes in SEVERAL.items()})
        self.sights = nn.ModuleDict({name: nn.Linear(width, len(classes) + 1) for name, classes in SIGHTS.items()})
        self.cell_scene = nn.Linear(width, SCENES + 1)
        self.ground = nn.Linear(width, len(SURFACES) + 1)

    def loss(self, audio: Tensor, video: Tensor, late_video: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Mean loss of the heads; arguments as of ``AuxiliaryHeads.loss``."""
        state = self.norm(audio.float())
        losses = [classify(head(state), labels[name]) for name, head in self.heads.items()]
        for name, head in self.several.items():
            each = F.binary_cross_entropy_with_logits(head(state), labels[name], reduction="none")
            losses.append(2 * balanced(each, labels[name] > 0))
        state, late = self.norm(video.float()), self.late_norm(late_video.float())
        losses.append(classify(self.cell_scene(state), labels["cell_scene"]))
        ground = labels["ground"].flatten().long()
        each = F.cross_entropy(self.ground(late).flatten(0, 1), ground, ignore_index=IGNORE, reduction="none")
        known = ground != IGNORE
        losses.append(balanced(each[known], labels["covered"].flatten()[known] > 0))
        for name, head in self.sights.items():
            label = labels[name].flatten().long()
            each = F.cross_entropy(head(late).flatten(0, 1), label, ignore_index=IGNORE, reduction="none")
            known = label != IGNORE
            losses.append(balanced(each[known], label[known] > 0))
        return torch.stack(losses).mean()


@lru_cache(maxsize=8192)
def token_labels(script: Script) -> dict[str, Tensor]:
    """The labels of each token: CLASSES names to [25 * duration] class indices, SEVERAL names to
    [25 * duration, classes] float32; SIGHTS names, "cell_scene", "ground" and "covered" (1 where a thing is) to
    [grids * CELLS * CELLS]."""
    count = TOKENS_A_SECOND * script.duration
    out = {name: torch.zeros(count, dtype=torch.int16) for name in CLASSES}
    out |= {name: torch.zeros(count, len(classes)) for name, classes in SEVERAL.items()}
    kind, _ = cell_labels(script)
    out |= {name: torch.zeros(kind.shape, dtype=torch.int16) for name in (*SIGHTS, "cell_scene")}
    out["heard"] = sound_labels(script)
    out["covered"] = (kind > 0).to(torch.int16)
    grounds = np.stack([ground(script, times) for times in grid_times(script)])
    out["ground"] = torch.from_numpy(grounds.astype(np.int16))
    for number, scene in enumerate(script.scenes, start=1):
        span = audio_span(scene.start, scene.end)
        out["scene"][span] = out["cell_scene"][grids_of(script, scene)] = number
        out["surfaces"][span, [SURFACES.index(surface) for surface in {band.surface for band in scene.bands}]] = 1
        for thing in scene.things:
            out["things"][audio_span(thing.start, thing.end), SILENT.index(thing.kind)] = 1
        if scene.number:
            written = audio_span(scene.number.start, scene.number.end)
            out["tens"][written], out["units"][written] = (DIGITS.index(digit) + 1 for digit in scene.number.text)
        if scene.brief:
            came, left = brief_cells(script, scene)
            unknown = (kind == KINDS.index(scene.brief.kind) + 1) & ~came
            for name, classes, label in (
                ("fleeting", SILENT, scene.brief.kind),
                ("fleeting_colour", list(COLOURS), scene.brief.colour),
            ):
                out[name][came | left] = classes.index(label) + 1
                out[name][unknown] = IGNORE
    for name in (*SIGHTS, "cell_scene", "ground", "covered"):
        out[name] = out[name].flatten()
    return out


def _scene_of(script: Script, item: Thing | Number | Band) -> Scene:
    return next(s for s in script.scenes if item in (*s.things, *s.bands, s.number))


def _mark(script: Script, item: Item, grids: Tensor, audio: Tensor) -> None:
    """Mark the tokens of ``item`` in ``grids`` [grids, CELLS * CELLS] and ``audio`` [25 * duration], both bool."""
    kind, colour = cell_labels(script)
    if isinstance(item, (Sound, Moment)):
        audio[audio_span(item.start, item.end)] = True
        return
    scene = _scene_of(script, item)
    here = torch.zeros_like(grids)
    # Also the grid in which the scene begins or ends, half of which is another's.
    here[[g for g, times in enumerate(grid_times(script)) if scene in [scene_at(script, t) for t in times]]] = True
    match item:
        case Number():
            grids |= here & (kind > KINDS.index(DIGITS[0]))
        case Thing():
            same = (kind == KINDS.index(item.kind) + 1) & (colour == list(COLOURS).index(item.colour) + 1)
            grids |= here & same
            if item.brief:
                grids |= brief_cells(script, scene)[1]
        case Band():
            place = torch.arange(CELLS * CELLS)
            across = (place % CELLS if scene.upright else place // CELLS) // 2
            grids |= here & (kind == 0) & (item.first <= across) & (across < item.last)


def evidence(script: Script, question: Question) -> list[tuple[str, Tensor]]:
    """The parts of the answer, each with the tokens that show it: [video tokens + audio tokens] bool."""
    out = []
    for part, items in question.parts:
        grids = torch.zeros(len(grid_times(script)), CELLS * CELLS, dtype=torch.bool)
        audio = torch.zeros(TOKENS_A_SECOND * script.duration, dtype=torch.bool)
        for item in items:
            _mark(script, item, grids, audio)
        out.append((part, torch.cat([grids.flatten(), audio])))
    return out
