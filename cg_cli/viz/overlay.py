"""The clip itself with what was kept burnt in: same length, with its sound."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cg_cli.errors import CgError
from cg_cli.viz.paint import Veil, colour
from cg_cli.viz.scene import Scene


@dataclass
class Painter:
    """Paints what was kept over a frame. Plain arrays only, so that it can go to another process.

    Attributes:
        start_s: [G], when each grid starts.
        level, merged: [G, rows, columns], as ``Scene.level`` and ``Scene.merged``.
        segment: [G] int.
    """

    start_s: np.ndarray
    level: np.ndarray
    merged: np.ndarray
    segment: np.ndarray
    _veil: tuple[tuple[int, int, int], Veil] | None = field(default=None, repr=False)

    def __call__(self, frame: np.ndarray, seconds: float) -> np.ndarray:
        """``frame`` [H, W, 3] uint8 of a time on the film's clock, painted over."""
        grid = int(np.clip(np.searchsorted(self.start_s, seconds + 1e-6, side="right") - 1, 0, len(self.start_s) - 1))
        which = (grid, *frame.shape[:2])
        if self._veil is None or self._veil[0] != which:
            veil = Veil(self.level[grid], self.merged[grid], colour(int(self.segment[grid])), *frame.shape[:2])
            self._veil = (which, veil)
        return self._veil[1].over(frame)


def painter(scene: Scene) -> Painter:
    """The painter of the first run of ``scene``."""
    run = scene.runs[0]
    segment = np.zeros(scene.grids, int) if run.segment is None else run.segment
    return Painter(scene.grid_start_s, scene.level(run), scene.merged(run), segment)


def write(path: Path, scene: Scene) -> None:
    """Write the film of ``scene`` with its first run painted over it. CgError if that cannot be done."""
    if not scene.grids:
        raise CgError(f"cannot draw {path}: {scene.video} has no picture; .png draws sound alone")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # In a process of its own, as all decoding: a broken file may take it down.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(_repaint, os.path.abspath(scene.video), temporary, painter(scene)).result()
        os.replace(temporary, path)
    except BrokenProcessPool:
        raise CgError(f"cannot draw {path}: the process that decodes {scene.video} died") from None
    except OSError as error:
        raise CgError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _repaint(source: str, target: Path, paint: Painter) -> None:
    from cg_cli.media.transcode import transcode

    try:
        transcode(source, target, paint)
    except Exception as error:  # PyAV's errors, and those of items, do not survive the way between processes
        raise CgError(f"cannot draw over {source}: {' '.join(str(error).split())}") from None
