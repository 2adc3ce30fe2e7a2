"""The tokens of a clip that are evidence for an answer: the cells of a thing, the audio tokens of a sound.

Scripts and scenes of type Any are of any world.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cg_cli.nano.questions import Item, Moment, Question
from cg_cli.nano.render import frame_clock, scene_at
from cg_cli.nano.script import Number, Scene, Script, Sound, Thing
from cg_cli.nano.things import CELLS, DIGITS, KINDS
from cg_cli.nano.training.towers import grid_labels

TOKENS_A_SECOND = 25  # of audio


@lru_cache(maxsize=8192)
def cell_labels(script: Any) -> tuple[Tensor, Tensor]:
    """Kind and colour in each cell of each grid: two [grids, CELLS * CELLS] int16, as ``towers.grid_labels`` has
    them."""
    kind, colour, _ = zip(*(grid_labels(script, times) for times in grid_times(script)))
    return torch.from_numpy(np.stack(kind).astype(np.int16)), torch.from_numpy(np.stack(colour).astype(np.int16))


def grid_times(script: Any) -> list[tuple[float, float]]:
    """Seconds of the two frames of each grid."""
    clock = frame_clock(script.duration)
    return list(zip(clock[::2], clock[1::2]))


def grids_of(script: Any, scene: Any) -> list[int]:
    """The grids of which both frames show ``scene``."""
    return [g for g, times in enumerate(grid_times(script)) if all(scene_at(script, t) == scene for t in times)]


def audio_span(start: float, end: float) -> slice:
    """Audio tokens from ``start`` to ``end`` seconds; empty when it ends first."""
    return slice(round(start * TOKENS_A_SECOND), max(round(start * TOKENS_A_SECOND), round(end * TOKENS_A_SECOND)))


def brief_cells(script: Any, scene: Any) -> tuple[Tensor, Tensor]:
    """Where the brief thing of ``scene``, if it has one, can be known to be brief: (cells that show it, where grids of
    the scene before them do not; cells that it has left), each [grids, CELLS * CELLS] bool."""
    kind = cell_labels(script)[0]
    came, left = torch.zeros(2, *kind.shape, dtype=torch.bool)
    if scene.brief is None:
        return came, left
    shows = kind == KINDS.index(scene.brief.kind) + 1
    grids = grids_of(script, scene)
    present = [g for g in range(len(shows)) if shows[g].any()]
    if present and any(g < present[0] for g in grids):
        came |= shows
    for g in grids:
        if present and g > present[-1]:
            left[g] = shows.any(0)
    return came, left


def _mark(script: Script, item: Item, grids: Tensor, audio: Tensor) -> None:
    """Mark the tokens of ``item`` in ``grids`` [grids, CELLS * CELLS] and ``audio`` [25 * duration], both bool."""
    kind = cell_labels(script)[0]
    match item:
        case Scene():
            grids[grids_of(script, item)] = True
        case Sound() | Moment():
            audio[audio_span(item.start, item.end)] = True
        case Number():
            grids |= kind > KINDS.index(DIGITS[0])
        case Thing():
            place = torch.arange(CELLS * CELLS)
            upper, left = place < CELLS * CELLS // 2, place % CELLS < CELLS // 2
            quarter = (upper == ("top" in item.place)) & (left == ("left" in item.place))
            grids |= (kind == KINDS.index(item.kind) + 1) & quarter
            if item.brief:
                grids |= brief_cells(script, next(s for s in script.scenes if s.brief == item))[1]


def evidence(script: Script, question: Question) -> list[tuple[str, Tensor]]:
    """The parts of the answer, each with the tokens that show it: [video tokens + audio tokens] bool."""
    out = []
    for part, items in question.parts:
        grids = torch.zeros(script.duration, CELLS * CELLS, dtype=torch.bool)
        audio = torch.zeros(TOKENS_A_SECOND * script.duration, dtype=torch.bool)
        for item in items:
            _mark(script, item, grids, audio)
        out.append((part, torch.cat([grids.flatten(), audio])))
    return out
