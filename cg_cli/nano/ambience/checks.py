"""Whether the ambience world is what it is meant to be, before anything is trained on it.

``python -m cg_cli.nano.ambience.checks --seed 7 --count 40`` prints the cosines of neighbours and successors, in pixels
and in the tokens of a vision tower (``--model``); brightness, contrast and spectrum of heard against silent surfaces,
and how often the three tell them apart; and the things of a scene against a budget.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np

from cg_cli.backbones.base import Backbone
from cg_cli.media.clip import Clip
from cg_cli.nano.ambience.render import picture, surface_cells
from cg_cli.nano.ambience.script import Scene, Script, write_script
from cg_cli.nano.ambience.surfaces import HEARD, SILENT_SURFACES, draw
from cg_cli.nano.render import cells, frame_clock, scene_at
from cg_cli.nano.things import CELL, CELLS, FRAME
from cg_cli.pruning.budget import split
from cg_cli.pruning.stream import VIDEO
from cg_cli.settings import models

AUDIO_TOKENS = 25  # a second
CLEAR, FAINT = 0.15, 0.03  # of a cell: from the first on it shows a thing, up to the second only its surface
BANDS = 7  # rings of the radial spectrum


@dataclass(frozen=True)
class Cosines:
    """Medians of the cosine of two cells of one surface: side by side, one after the other, anywhere in the clip; and
    of cells of two surfaces. Of features less their mean over all cells."""

    neighbours: float
    successors: float
    same: float
    other: float


def cosines(features: np.ndarray, surfaces: np.ndarray, rng: np.random.Generator) -> Cosines:
    """Of ``features`` [T, CELLS, CELLS, D] of a clip whose cells show ``surfaces`` [T, CELLS, CELLS] (0: a thing)."""
    free = surfaces > 0
    unit = features - features[free].mean(0)
    unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True).clip(1e-9)

    def pairs(one: Any, other: Any) -> np.ndarray:
        alike = (surfaces[one] == surfaces[other]) & free[one]
        return (unit[one] * unit[other]).sum(-1)[alike]

    rows = pairs(np.s_[:, :-1], np.s_[:, 1:]), pairs(np.s_[:, :, :-1], np.s_[:, :, 1:])
    flat, label = unit[free], surfaces[free]
    first, second = rng.integers(len(flat), size=(2, 20_000))
    anywhere, alike = (flat[first] * flat[second]).sum(-1), label[first] == label[second]
    return Cosines(
        float(np.median(np.concatenate(rows))),
        float(np.median(pairs(np.s_[:-1], np.s_[1:]))),
        float(np.median(anywhere[alike & (first != second)])),
        float(np.median(anywhere[~alike])),
    )


def frame_surfaces(script: Script, time: float) -> np.ndarray:
    """The surface of each cell at ``time`` as ``surface_cells`` has it, 0 where a thing is in it: [CELLS, CELLS]."""
    return np.where(cells(script, time)[2] > FAINT, 0, surface_cells(scene_at(script, time)))


def pixel_cosines(script: Script, rng: np.random.Generator) -> Cosines:
    """The cosines of the cells' pixels in the frames that ``cg`` reads."""
    clock = frame_clock(script.duration)
    frames = np.stack([picture(script, time) for time in clock]).astype(np.float32)
    tiles = frames.reshape(-1, CELLS, CELL, CELLS, CELL, 3).swapaxes(2, 3).reshape(len(clock), CELLS, CELLS, -1)
    return cosines(tiles, np.stack([frame_surfaces(script, time) for time in clock]), rng)


def token_cosines(script: Script, backbone: Backbone, rng: np.random.Generator) -> Cosines:
    """The cosines of the video tokens of ``backbone``, whose tower makes one of each cell of two frames."""
    clock = frame_clock(script.duration)
    frames = np.stack([picture(script, time) for time in clock])
    stream = backbone.encode(Clip("", frames, None, 0.5, None, "off", float(script.duration), FRAME, FRAME))
    tokens = stream.embeddings[stream.modality == VIDEO].float().cpu().numpy()
    first, second = (np.stack([frame_surfaces(script, time) for time in times]) for times in (clock[::2], clock[1::2]))
    return cosines(tokens.reshape(*first.shape, -1), np.where(first == second, first, 0), rng)


def statistics(surface: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Of each of ``count`` cells of ``surface``: mean and standard deviation of its brightness, distance from grey, and
    the share of its power in each of BANDS rings of the spectrum. [count, 3 + BANDS]"""
    tiles = draw(surface, count, rng)
    light = tiles.mean(-1)
    power = np.abs(np.fft.fft2(light - light.mean((1, 2), keepdims=True))) ** 2
    radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(CELL) * CELL] * 2))
    ring = np.clip(radius / (CELL / 2) * BANDS, 0, BANDS - 1).astype(int)
    rings = np.stack([power[:, ring == i].sum(1) for i in range(BANDS)], 1)
    chroma = np.sqrt(((tiles - light[..., None]) ** 2).mean((1, 2, 3)))
    return np.column_stack([light.mean((1, 2)), light.std((1, 2)), chroma, rings / rings.sum(1, keepdims=True)])


def told_apart(count: int, rng: np.random.Generator) -> float:
    """Share of cells that a linear rule on ``statistics``, fitted to as many others by least squares, calls rightly
    heard or silent; 0.5 is chance."""

    def sample() -> tuple[np.ndarray, np.ndarray]:
        x = np.concatenate([statistics(surface, count, rng) for surface in (*HEARD, *SILENT_SURFACES)])
        return x, np.repeat([1.0, -1.0], [len(HEARD) * count, len(SILENT_SURFACES) * count])

    (x, y), (unseen, truth) = sample(), sample()
    scale = lambda values: np.column_stack([(values - x.mean(0)) / x.std(0), np.ones(len(values))])
    rule = np.linalg.lstsq(scale(x), y, rcond=None)[0]
    return float(((scale(unseen) @ rule > 0) == (truth > 0)).mean())


@dataclass(frozen=True)
class Demand:
    """Of a scene, in video tokens: what a keep ratio leaves it; the cells of its things, each counted once however long
    it shows; and, of each kind of surface, the cells without a thing, all of them new every half second."""

    budget: int
    things: int
    silent: int
    heard: int


def demand(script: Script, scene: Scene, keep: float) -> Demand:
    """What ``scene`` asks of the budget at ``keep``."""
    seconds = scene.end - scene.start
    video = round(seconds * CELLS * CELLS)
    budget = split(video, round(seconds * AUDIO_TOKENS), round(seconds), keep).video
    times = [time for time in frame_clock(script.duration) if scene.start <= time < scene.end]
    covered = np.stack([cells(script, time)[0] * (cells(script, time)[2] > CLEAR) for time in times])
    things = sum(int((covered == kind).any(0).sum()) for kind in np.unique(covered[covered > 0]))
    free = np.stack([frame_surfaces(script, time) for time in times[::2]])
    return Demand(budget, things, int((free > len(HEARD)).sum()), int(((free > 0) & (free <= len(HEARD))).sum()))


def _means(rows: Iterable) -> str:
    rows = list(rows)
    values = np.nanmean([astuple(row) for row in rows], axis=0)
    return ", ".join(f"{field.name} {value:.2f}" for field, value in zip(fields(rows[0]), values))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.nano.ambience.checks", description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="of the world")
    parser.add_argument("--count", type=int, default=40, help="clips")
    parser.add_argument("--model", default="nano", help="whose vision tower makes the tokens")
    parser.add_argument("--keep", type=float, default=0.15)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    scripts = [write_script(options.seed, index) for index in range(options.count)]
    backbone = models.load(options.model, device="auto", dtype="auto", offline=True)
    print("median cosines, mean over clips")
    print(" pixels:", _means(pixel_cosines(script, rng) for script in scripts))
    print(f" tokens of {options.model}:", _means(token_cosines(script, backbone, rng) for script in scripts))
    print("mean of cells: brightness, its deviation, distance from grey, share of power by ring of the spectrum")
    for name, surfaces in (("heard", HEARD), ("silent", SILENT_SURFACES)):
        values = np.concatenate([statistics(surface, 400, rng) for surface in surfaces]).mean(0)
        print(f" {name}:", " ".join(f"{value:.3g}" for value in values))
    print(f" told apart by a linear rule on these: {told_apart(400, rng):.3f} of cells")
    print(f"video tokens of a scene at keep {options.keep:g}, mean")
    print(" ", _means(demand(script, scene, options.keep) for script in scripts for scene in script.scenes))


if __name__ == "__main__":
    main()
