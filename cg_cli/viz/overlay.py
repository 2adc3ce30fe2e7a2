"""The clip itself with an overlay of what was kept burnt in: same length, with its sound."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cg_cli.errors import CgError
from cg_cli.util.atomic import atomic_path
from cg_cli.util.ipc import safe_path
from cg_cli.util.text import one_line
from cg_cli.viz import MARK
from cg_cli.viz.blending import GridOverlay, segment_colour
from cg_cli.viz.scene import Scene


@dataclass
class FrameOverlay:
    """Blends the overlay of a clip into its frames. Plain arrays only, so that it can go to another process.

    Attributes:
        start_s: [G], start of each grid.
        kept, merged: [G, rows, columns], as ``Scene.kept_map`` and ``Scene.merged_map``.
        segment: [G] int.
    """

    start_s: np.ndarray
    kept: np.ndarray
    merged: np.ndarray
    segment: np.ndarray
    _last: tuple[tuple[int, int, int], GridOverlay] | None = field(default=None, repr=False)

    def __call__(self, frame: np.ndarray, seconds: float) -> np.ndarray:
        """``frame`` [H, W, 3] uint8 at a time on the film's clock, under the overlay."""
        grid = int(np.clip(np.searchsorted(self.start_s, seconds + 1e-6, side="right") - 1, 0, len(self.start_s) - 1))
        height, width = frame.shape[:2]
        if self._last is None or self._last[0] != (grid, height, width):
            tint = segment_colour(int(self.segment[grid]))
            overlay = GridOverlay(self.kept[grid], self.merged[grid], tint, height, width)
            self._last = ((grid, height, width), overlay)
        return self._last[1].blend(frame)


def frame_overlay(scene: Scene) -> FrameOverlay:
    """The overlay of the first result of ``scene``."""
    result = scene.results[0]
    segment = np.zeros(scene.grids, int) if result.segment is None else result.segment
    return FrameOverlay(scene.grid_start_s, scene.kept_map(result), scene.merged_map(result), segment)


def write(path: Path, scene: Scene) -> None:
    """Write the film of ``scene`` under the overlay of its first result. CgError if that cannot be done."""
    if not scene.grids:
        raise CgError(f"cannot draw {path}: {scene.video} has no picture; .png draws sound alone")
    try:
        # In a process of its own, as all decoding: a broken file may take it down.
        with (
            atomic_path(path) as temporary,
            safe_path(),
            ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        ):
            pool.submit(
                _render, os.path.abspath(scene.video), temporary, frame_overlay(scene), scene.clip.audio_track or 0
            ).result()
    except BrokenProcessPool:
        raise CgError(f"cannot draw {path}: the process that decodes {scene.video} died") from None
    except OSError as error:
        raise CgError(f"cannot write {path}: {error.strerror or error}") from error


def _render(source: str, target: Path, overlay: FrameOverlay, audio_track: int) -> None:
    from cg_cli.media.transcode import transcode

    try:
        transcode(source, target, overlay, audio_track, comment=MARK)
    except Exception as error:  # PyAV's errors, and those of items, cannot be pickled back to the parent
        raise CgError(f"cannot draw over {source}: {one_line(error)}") from None
