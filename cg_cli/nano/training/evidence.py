"""Where in a clip's tokens an answer is shown: the cells of the thing, the moments of the sound."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cg_cli.nano.questions import Moment, Question
from cg_cli.nano.render import frame_clock, scene_at
from cg_cli.nano.script import Number, Scene, Script, Sound, Thing
from cg_cli.nano.things import CELLS, DIGITS, KINDS
from cg_cli.nano.training.towers import grid_labels

TOKENS_A_SECOND = 25  # of audio


@lru_cache(maxsize=8192)
def seen(script: Script) -> tuple[Tensor, Tensor]:
    """Kind and colour in each cell of each grid: two [grids, CELLS * CELLS] int16, as ``towers.grid_labels`` has
    them."""
    kind, colour, _ = zip(*(grid_labels(script, times) for times in grid_times(script)))
    return torch.from_numpy(np.stack(kind).astype(np.int16)), torch.from_numpy(np.stack(colour).astype(np.int16))


def grid_times(script: Script) -> list[tuple[float, float]]:
    """Seconds of the two frames of each grid."""
    clock = frame_clock(script.duration)
    return list(zip(clock[::2], clock[1::2]))


def grids_of(script: Script, scene: Scene) -> list[int]:
    """The grids of which both frames show ``scene``."""
    return [g for g, times in enumerate(grid_times(script)) if all(scene_at(script, t) == scene for t in times)]


def span(start: float, end: float) -> slice:
    """Audio tokens from ``start`` to ``end`` seconds; empty when it ends first."""
    return slice(round(start * TOKENS_A_SECOND), max(round(start * TOKENS_A_SECOND), round(end * TOKENS_A_SECOND)))


def fleeting(script: Script, scene: Scene) -> tuple[Tensor, Tensor]:
    """Where the brief thing of ``scene`` can be known to be brief, if it has one: (cells that show it and showed
    something else before, cells that it has left), each [grids, CELLS * CELLS] bool."""
    kind = seen(script)[0]
    came, left = torch.zeros(2, *kind.shape, dtype=torch.bool)
    if scene.brief is None:
        return came, left
    shows = kind == KINDS.index(scene.brief.kind) + 1
    grids = grids_of(script, scene)
    shown = [g for g in range(len(shows)) if shows[g].any()]
    if shown and any(g < shown[0] for g in grids):
        came |= shows
    for g in grids:
        if shown and g > shown[-1]:
            left[g] = shows.any(0)
    return came, left


def _tokens(script: Script, told: Thing | Number | Sound | Scene | Moment, grids: Tensor, sound: Tensor) -> None:
    """Mark the tokens of ``told`` in ``grids`` [grids, CELLS * CELLS] and ``sound`` [25 * duration]."""
    kind = seen(script)[0]
    match told:
        case Scene():
            grids[grids_of(script, told)] = True
        case Sound() | Moment():
            sound[span(told.start, told.end)] = True
        case Number():
            grids |= kind > KINDS.index(DIGITS[0])
        case Thing():
            place = torch.arange(CELLS * CELLS)
            upper, left = place < CELLS * CELLS // 2, place % CELLS < CELLS // 2
            quarter = (upper == ("top" in told.place)) & (left == ("left" in told.place))
            grids |= (kind == KINDS.index(told.kind) + 1) & quarter
            if told.brief:
                grids |= fleeting(script, next(s for s in script.scenes if s.brief == told))[1]


def evidence(script: Script, question: Question) -> list[tuple[str, Tensor]]:
    """The parts of the answer, each with the tokens that tell it: [video tokens + audio tokens] bool."""
    out = []
    for part, told in question.shown:
        grids = torch.zeros(script.duration, CELLS * CELLS, dtype=torch.bool)
        sound = torch.zeros(TOKENS_A_SECOND * script.duration, dtype=torch.bool)
        for item in told:
            _tokens(script, item, grids, sound)
        out.append((part, torch.cat([grids.flatten(), sound])))
    return out
