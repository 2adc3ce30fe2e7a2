"""From an ambience script to frames and audio. ``picture`` and ``soundtrack`` are pure: the same script, the same
pixels."""

from __future__ import annotations

from functools import lru_cache
from math import floor

import numpy as np

from cg_cli.nano.ambience.script import Scene, Script
from cg_cli.nano.ambience.sounds import voice
from cg_cli.nano.ambience.surfaces import SURFACES, draw
from cg_cli.nano.render import add_sound, paint, scene_at, visible
from cg_cli.nano.sounds import RATE
from cg_cli.nano.things import CELL, CELLS, FRAME

REDRAWN_S = 0.5  # every cell is drawn anew after so long
_HISS = 21  # beside (seed, index) in the seed of the room's hiss


@lru_cache(maxsize=4096)
def surface_cells(scene: Scene) -> np.ndarray:
    """The surface of each cell, SURFACES index + 1: [CELLS, CELLS] int64."""
    one = [
        [SURFACES.index(scene.surface_at(row // 2, column // 2)) + 1 for column in range(CELLS)] for row in range(CELLS)
    ]
    return np.array(one)


@lru_cache(maxsize=4)
def _background(scene: Scene, turn: int) -> np.ndarray:
    """The bands as they are drawn for the ``turn``th time, [FRAME, FRAME, 3] float32."""
    rng = np.random.default_rng([scene.looks, turn])
    surfaces = surface_cells(scene)
    cells = np.empty((CELLS, CELLS, CELL, CELL, 3), dtype=np.float32)
    for surface in np.unique(surfaces):
        mask = surfaces == surface
        cells[mask] = draw(SURFACES[surface - 1], int(mask.sum()), rng)
    return cells.transpose(0, 2, 1, 3, 4).reshape(FRAME, FRAME, 3)


def picture(script: Script, time: float) -> np.ndarray:
    """The frame at ``time`` seconds: [FRAME, FRAME, 3] uint8, RGB."""
    scene = scene_at(script, time)
    return paint(_background(scene, max(0, floor(time / REDRAWN_S))), visible(scene.things, scene.number, time))


def soundtrack(script: Script) -> np.ndarray:
    """The clip's audio: [duration * RATE] float32 mono, 16 kHz, in -1..1."""
    rng = np.random.default_rng([script.seed, script.index, _HISS])
    track = rng.standard_normal(script.duration * RATE).astype(np.float32) * script.noise
    for sound in (sound for scene in script.scenes for sound in scene.sounds):
        add_sound(track, voice(sound.kind, sound.end - sound.start, np.random.default_rng(sound.seed)), sound)
    return np.clip(track, -1, 1)
