"""Which grids of frames show, and which blocks of sound hold, what there was before. Pure numpy."""

from __future__ import annotations

import numpy as np

# A grid is looked at again after so many at the latest, so that what crept in below the threshold does not stay.
REFRESH = 16
SPARSE = 97  # every so many-th value is compared first: moving pictures differ there already


def grid_sources(frames: np.ndarray, of_a_grid: int, tolerance: int | None) -> np.ndarray:
    """The grid in which each one was last looked at: its own number where it is looked at itself.

    A grid repeats the one that was looked at last if none of its values differs from it by more than ``tolerance``. It
    is compared with that one and not with its neighbour, so that slow drift shows; and by the largest difference, as a
    cursor or small text vanishes in a mean.

    Args:
        frames: [N, H, W, 3] uint8; N a multiple of ``of_a_grid``.
        tolerance: 0 for exact repetition, None to look at all.

    Returns:
        [N / of_a_grid] int64, never falling.
    """
    grids = frames.reshape(len(frames) // of_a_grid, -1)
    sources = np.arange(len(grids))
    if tolerance is None:
        return sources
    last = 0
    for number in range(1, len(grids)):
        if number - last < REFRESH and _same(grids[number], grids[last], tolerance):
            sources[number] = last
        else:
            last = number
    return sources


def block_sources(samples: np.ndarray, block: int, overlap: int) -> np.ndarray:
    """The block of sound in which each one was last listened to: its own number where it is listened to itself.

    A block repeats the one that was listened to last if all of its samples are the same, and the ``overlap`` behind
    it: in practice, digital silence.

    Args:
        samples: [S]; block b begins at ``b * block``. What is too short for a block and its overlap is none.

    Returns:
        [B] int64, never falling.
    """
    count = max(0, (len(samples) - overlap) // block)
    sources, last = np.arange(count), 0
    for number in range(1, count):
        start, before = number * block, last * block
        size = block + overlap
        if samples[start] == samples[before] and np.array_equal(
            samples[start : start + size], samples[before : before + size]
        ):
            sources[number] = last
        else:
            last = number
    return sources


def _same(one: np.ndarray, other: np.ndarray, tolerance: int) -> bool:
    return all(
        int((np.maximum(a, b) - np.minimum(a, b)).max()) <= tolerance
        for a, b in ((one[::SPARSE], other[::SPARSE]), (one, other))
    )
