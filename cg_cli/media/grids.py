"""Where whole grids of frames stand: pure arithmetic, no files.

A cell is what would be a grid without ``max_frames``: ``frame_multiple`` frames next to each other.
"""

from __future__ import annotations

from fractions import Fraction

from cg_cli.media.clip import DecodeOptions
from cg_cli.media.sizes import slot_centres


def pair_times(duration_s: Fraction, count: int, options: DecodeOptions) -> list[Fraction]:
    """Times of ``count`` frames, in seconds, ascending: grid g around the middle of the g-th of as many equal slots as
    there are grids, its frames ``1 / fps`` apart, or closer if the slot is shorter."""
    size, spacing = options.frame_multiple, spacing_s(duration_s, count, options)
    return [
        middle + spacing * Fraction(2 * number + 1 - size, 2)
        for middle in slot_centres(duration_s, count // size)
        for number in range(size)
    ]


def pair_starts(duration_s: Fraction, count: int, options: DecodeOptions) -> list[Fraction]:
    """When each grid of ``pair_times`` starts, in seconds: half a spacing before its first frame, as the first grid of
    evenly spaced frames starts at 0."""
    times = pair_times(duration_s, count, options)
    half = spacing_s(duration_s, count, options) / 2
    return [time - half for time in times[:: options.frame_multiple]]


def spacing_s(duration_s: Fraction, count: int, options: DecodeOptions) -> Fraction:
    """Seconds from one frame of a grid to the next."""
    return min(1 / Fraction(options.fps), duration_s / count)


def spread(cells: int, count: int) -> list[int]:
    """The numbers of ``count`` <= ``cells`` of so many cells, one at the middle of each of ``count`` equal parts."""
    return [(2 * index + 1) * cells // (2 * count) for index in range(count)]
