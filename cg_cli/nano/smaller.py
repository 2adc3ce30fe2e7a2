"""Rivals of pruning that leave out before the encoders: fewer pixels a frame, or fewer frames, for the same budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.media.grids import spread
from cg_cli.pruning.budget import Budget

STRETCH = 2.0  # times that a picture's sides may change their ratio, for a size that fits the budget better

Change = Callable[[Clip, Budget, DecodeOptions], Clip]


def fewer_pixels(clip: Clip, budget: Budget, options: DecodeOptions) -> Clip:
    """``clip`` with its frames resized, by averaging areas, to the largest size that makes no more than
    ``budget.video`` tokens; as many frames as before."""
    if clip.frames is None:
        return clip
    grids = len(clip.frames) // options.frame_multiple
    side = options.side_multiple
    rows, columns = cells(clip.frames.shape[1] // side, clip.frames.shape[2] // side, budget.video // grids)
    return replace(clip, frames=resized(clip.frames, rows * side, columns * side))


def fewer_frames(clip: Clip, budget: Budget, options: DecodeOptions) -> Clip:
    """``clip`` with evenly spaced ones of its frames, or of its whole grids where it has some, as many as make no more
    than ``budget.video`` tokens; at least one grid."""
    if clip.frames is None or clip.frame_times is None:
        return clip
    frames, height, width = clip.frames.shape[:3]
    of_a_grid = height * width // options.side_multiple**2
    count = min(frames, options.frame_multiple * max(1, budget.video // of_a_grid))
    if clip.grid_starts is not None:
        return clip.with_grids(spread(len(clip.grid_starts), count // options.frame_multiple))
    chosen = spread(frames, count)
    return replace(
        clip,
        frames=clip.frames[chosen],
        frame_times=clip.frame_times[chosen],
        seconds_per_frame=clip.seconds_per_frame * frames / count,
    )


def cells(rows: int, columns: int, most: int) -> tuple[int, int]:
    """The largest (rows, columns), at most ``rows`` x ``columns``, that have ``most`` cells or fewer, and one at least.

    Of equally large ones that which stretches the picture least; more than STRETCH only where nothing else fits.
    """

    def order(size: tuple[int, int]) -> tuple[bool, int, float]:
        ratio = size[0] * columns / (size[1] * rows)
        stretch = max(ratio, 1 / ratio)
        return stretch > STRETCH, -size[0] * size[1], stretch

    sizes = [(high, wide) for high in range(1, rows + 1) for wide in range(1, columns + 1) if high * wide <= most]
    return min(sizes, key=order, default=(1, 1))


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """``frames`` [N, H, W, 3] uint8 at ``height`` x ``width``, each pixel the mean of the area that it covers."""
    pixels: Tensor = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).to(torch.float32)
    small = interpolate(pixels, (height, width), mode="area").round().to(torch.uint8)
    return small.permute(0, 2, 3, 1).contiguous().numpy()
