"""Clips of the world of things whose pictures stand still: between one thing that appears or goes and the next, all of
the time (slides) or from half of it on (frozen). What they sound like and what is asked about them stays."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

import numpy as np

from cg_cli.nano import render
from cg_cli.nano.script import Script


def slides(script: Script, time: float) -> np.ndarray:
    """The frame at ``time`` seconds of pictures that do not move at all: [FRAME, FRAME, 3] uint8."""
    return render.picture(script, held(script, time, 0.0))


def frozen(script: Script, time: float) -> np.ndarray:
    """The same of pictures that move for the first half of the time until something appears or goes."""
    return render.picture(script, held(script, time, 0.5))


def held(script: Script, time: float, moving: float) -> float:
    """The time whose picture shows at ``time``, where only the share ``moving`` of each stretch moves."""
    changes = _changes(script)
    number = bisect_right(changes, time) - 1
    start, end = changes[number], changes[number + 1]
    return min(time, start + moving * (end - start))


@lru_cache(maxsize=8)
def _changes(script: Script) -> list[float]:
    """When something appears or goes, ascending, from 0 to beyond the clip's end."""
    shown = [item for scene in script.scenes for item in (scene, *scene.things, scene.number) if item]
    times = {time for item in shown for time in (item.start, item.end) if time < script.duration}
    return sorted({0.0, *times, float(script.duration) + 1})
