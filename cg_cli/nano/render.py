"""From a script to frames and audio. ``picture`` and ``soundtrack`` are pure: the same script, the same pixels."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import floor, pi, sin
from typing import Any, NamedTuple

import numpy as np

from cg_cli.nano.script import Backdrop, Number, Script, Sound, Thing
from cg_cli.nano.sounds import RATE, voice
from cg_cli.nano.things import CELL, CELLS, COLOURS, FRAME, KINDS, silhouette

FPS = 25  # frames a second of the files written
DIGIT_SIZE = 49  # pixels, height of a written digit
_DIGIT_STEP = 40  # pixels from one digit to the next
_DARK = 0.28  # brightness of a thing's details
# The lamp of this world hangs above, and its left side is warm: every frame tells up from down and left from right.
_LIGHT = np.linspace(1.2, 0.72, FRAME, dtype=np.float32)[:, None, None]
_WARMTH = np.linspace(1, -1, FRAME, dtype=np.float32)[None, :, None] * np.array([20, 2, -20], dtype=np.float32)


class Sprite(NamedTuple):
    """A silhouette in the frame."""

    kind: str
    colour: str
    size: int  # pixels
    left: int
    top: int


@lru_cache(maxsize=8)
def _tile(backdrop: Backdrop) -> np.ndarray:
    """One period of the background, [FRAME, FRAME, 3] float32; it drifts around the torus."""
    rng = np.random.default_rng(backdrop.seed)
    base = rng.uniform(70, 130) + rng.uniform(-22, 22, 3)
    contrast = rng.uniform(8, 20)
    y, x = np.mgrid[0:FRAME, 0:FRAME] * (2 * pi / FRAME)
    if backdrop.texture == "stripes":
        waves = rng.integers(2, 9, 2)
        pattern = np.sin(waves[0] * x + waves[1] * y)
    elif backdrop.texture == "checks":
        count = int(rng.integers(3, 8))
        pattern = np.sign(np.sin(count * x) * np.sin(count * y)) * 0.7
    else:
        pattern = sum(
            np.sin(a * x[:1] + p) * np.sin(b * y[:, :1] + q)
            for a, b, p, q in zip(*rng.integers(1, 9, (2, 6)), *rng.uniform(0, 2 * pi, (2, 6)))
        )
        pattern = pattern / 2
    grain = rng.standard_normal((FRAME, FRAME), dtype=np.float32) * 2
    return (
        base.astype(np.float32)
        + (pattern * contrast + grain).astype(np.float32)[..., None] * rng.uniform(0.7, 1.3, 3).astype(np.float32)
    ).astype(np.float32)


def _at(thing: Thing, time: float) -> tuple[int, int]:
    """Top left pixel of ``thing`` at ``time``: it swings while it is active and stands still before and after."""
    x, y = thing.centre
    if thing.active:
        moving = min(max(time, thing.active[0]), thing.active[1]) - thing.active[0]
        right, down, hertz, phase = thing.swing
        x += right * sin(2 * pi * hertz * moving + phase)
        y += down * sin(2 * pi * 0.7 * hertz * moving + phase)
    return round(x - thing.size / 2), round(y - thing.size / 2)


def visible(things: Iterable[Thing], number: Number | None, time: float) -> list[Sprite]:
    """Everything that shows at ``time``, the things first."""
    out = [Sprite(t.kind, t.colour, t.size, *_at(t, time)) for t in things if t.start <= time < t.end]
    if number and number.start <= time < number.end:
        x, y = number.centre
        for i, digit in enumerate(number.text):
            left = round(x + (i - (len(number.text) - 1) / 2) * _DIGIT_STEP - DIGIT_SIZE / 2)
            out.append(Sprite(digit, number.colour, DIGIT_SIZE, left, round(y - DIGIT_SIZE / 2)))
    return out


def _inside(left: int, top: int, size: int) -> tuple[slice, slice, slice, slice]:
    """Slices of the frame and of the silhouette where the two overlap."""
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size, FRAME), min(top + size, FRAME)
    return slice(y0, y1), slice(x0, x1), slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)


def scene_at(script: Any, time: float) -> Any:
    """The scene of ``script``, of any world, that shows at ``time`` (the last one from its end on)."""
    return next((s for s in script.scenes if time < s.end), script.scenes[-1])


def paint(background: np.ndarray, sprites: Iterable[Sprite]) -> np.ndarray:
    """A frame, [FRAME, FRAME, 3] uint8: the lamp on ``background`` [FRAME, FRAME, 3] float32, and ``sprites``, which it
    does not light, before it."""
    image = background * _LIGHT + _WARMTH
    for kind, colour, size, left, top in sprites:
        body, detail = silhouette(kind, size)
        rows, columns, from_rows, from_columns = _inside(left, top, size)
        colour_of = np.array(COLOURS[colour], dtype=np.float32)
        for cover, shade in ((body, 1.0), (detail, _DARK)):
            alpha = cover[from_rows, from_columns, None]
            image[rows, columns] += alpha * (colour_of * shade - image[rows, columns])
    return np.clip(image, 0, 255).astype(np.uint8)


def picture(script: Script, time: float) -> np.ndarray:
    """The frame at ``time`` seconds: [FRAME, FRAME, 3] uint8, RGB."""
    scene = scene_at(script, time)
    drift = [round(v * (time - scene.start)) for v in scene.backdrop.drift]
    background = np.roll(_tile(scene.backdrop), (drift[1], drift[0]), axis=(0, 1))
    return paint(background, visible(scene.things, scene.number, time))


def cover(sprites: Iterable[Sprite]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is in each merged patch: kind (0 none, else KINDS index + 1), colour (0 none, else index + 1) and the share
    of the cell that it covers, each [CELLS, CELLS]. Of several in one cell, the one that covers most."""
    kinds, colours = np.zeros((2, CELLS, CELLS), dtype=np.int64)
    best = np.zeros((CELLS, CELLS), dtype=np.float32)
    for kind, colour, size, left, top in sprites:
        canvas = np.zeros((FRAME, FRAME), dtype=np.float32)
        rows, columns, from_rows, from_columns = _inside(left, top, size)
        canvas[rows, columns] = silhouette(kind, size)[0][from_rows, from_columns]
        share = canvas.reshape(CELLS, CELL, CELLS, CELL).mean(axis=(1, 3))
        wins = share > best
        kinds[wins], colours[wins] = KINDS.index(kind) + 1, list(COLOURS).index(colour) + 1
        best = np.maximum(best, share)
    return kinds, colours, best


def cells(script: Any, time: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is in each merged patch of ``script``, of any world, at ``time``, as ``cover`` has it."""
    scene = scene_at(script, time)
    return cover(visible(scene.things, scene.number, time))


def add_sound(track: np.ndarray, wave: np.ndarray, sound: Sound) -> None:
    """Add ``wave``, of peak 1 and as long as ``sound``, to ``track`` at the level of ``sound``, faded at its ends."""
    wave = wave * sound.level
    fade = min(320, len(wave) // 2)
    wave[:fade] *= np.linspace(0, 1, fade, dtype=np.float32)
    wave[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    start = round(sound.start * RATE)
    track[start : start + len(wave)] += wave[: len(track) - start]


def soundtrack(script: Script) -> np.ndarray:
    """The clip's audio: [duration * RATE] float32 mono, 16 kHz, in -1..1."""
    rng = np.random.default_rng([script.seed, script.index, 1])
    track = rng.standard_normal(script.duration * RATE).astype(np.float32) * script.noise
    for scene in script.scenes:
        if scene.sound:
            sound = scene.sound
            add_sound(track, voice(sound.kind, sound.end - sound.start, np.random.default_rng(sound.seed)), sound)
    return np.clip(track, -1, 1)


def frame_clock(duration: float, fps: float = 2.0) -> list[float]:
    """Times of the file's frames that ``cg`` reads from a clip of ``duration`` seconds at ``fps``: centres of equal
    slots, rounded down to the file's own frames."""
    count = max(2, 2 * round(duration * fps / 2))
    return [floor((i + 0.5) * duration / count * FPS) / FPS for i in range(count)]
