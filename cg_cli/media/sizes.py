"""How many frames, at which times, of which size: pure arithmetic, no files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from cg_cli.media.clip import LINSPACE, DecodeOptions

MAX_PIXEL_ASPECT = 8  # a wider or narrower pixel than this is a damaged header, not a lens


def fit_size(width: int, height: int, max_pixels: float, multiple: int) -> tuple[int, int]:
    """The (width, height) a frame is resized to: both multiples of ``multiple``, area at most ``max_pixels``.

    The arithmetic of ``smart_resize`` in transformers' ``image_processing_qwen2_vl``, without its lower bound and with
    an answer for every aspect ratio: each side goes to the nearest multiple; above the budget both sides shrink by
    the same factor, rounded down. A side never grows past the next multiple. Only where a single square of ``multiple``
    is over the budget does the result exceed it.
    """

    def nearest(side: float) -> int:
        return max(multiple, round(side / multiple) * multiple)

    def below(side: float) -> int:
        return max(multiple, math.floor(side / multiple) * multiple)

    fitted = nearest(width), nearest(height)
    if fitted[0] * fitted[1] <= max_pixels:
        return fitted
    shrink = max(1.0, math.sqrt(width * height / max_pixels))
    wide, high = below(width / shrink), below(height / shrink)
    # A thin frame's short side was lifted to one multiple: the long side pays for it.
    return min(wide, below(max_pixels / high)), min(high, below(max_pixels / wide))


def displayed_size(width: int, height: int, pixel_aspect: Fraction | None, rotation: int) -> tuple[int, int]:
    """Stored pixels to (width, height) as a player shows them: wide pixels widened, then turned by ``rotation``."""
    if pixel_aspect and Fraction(1, MAX_PIXEL_ASPECT) <= pixel_aspect <= MAX_PIXEL_ASPECT:
        width = max(1, round(width * pixel_aspect))
    return (height, width) if rotation % 180 else (width, height)


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is made upright: turned by ``rotation`` degrees counterclockwise (0, 90, 180 or 270), then
    ``mirrored`` left to right."""

    rotation: int = 0
    mirrored: bool = False

    @classmethod
    def of(cls, a: int, b: int, c: int, d: int) -> Orientation:
        """The nearest to a display matrix: the pixel at (x, y) is shown at (a x + c y, b x + d y), y downwards."""
        mirrored = a * d - b * c < 0
        return cls(quarter_turns(math.degrees(math.atan2(-b, -a if mirrored else a))), mirrored)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """The picture [H, W, ...] made upright, as a view."""
        turned = np.rot90(picture, self.rotation // 90)
        return turned[:, ::-1] if self.mirrored else turned


def quarter_turns(rotation: float) -> int:
    """Degrees counterclockwise, of any size and sign, as 0, 90, 180 or 270 (the nearest)."""
    return round(rotation / 90) % 4 * 90


def frame_count(duration_s: Fraction, options: DecodeOptions) -> int:
    """How many frames stand for ``duration_s`` seconds: ``fps`` a second, a multiple of ``frame_multiple``.

    At least one multiple, and ``min_frames``; at most the last multiple not above ``max_frames`` (one multiple if there
    is none). Of LINSPACE any number, and as many at most: a video with fewer frames gives those that it has.
    """
    step = _step(options)
    return max(step, min(uncapped_count(duration_s, options), options.max_frames // step * step))


def counts_above_cap(duration_s: Fraction, options: DecodeOptions) -> range:
    """What ``frame_count`` could be with larger ``max_frames``; empty where these leave out nothing."""
    step = _step(options)
    return range(frame_count(duration_s, options) + step, uncapped_count(duration_s, options) + 1, step)


def uncapped_count(duration_s: Fraction, options: DecodeOptions) -> int:
    """``frame_count`` without ``max_frames``."""
    step = _step(options)
    if options.frames == LINSPACE:
        # In floating point, halves to the even number, as the code that has this rule: 1.65 s are 16 frames of 0.1 s.
        return max(step, options.min_frames, round(float(duration_s) / (1 / options.fps)))
    wished = max(options.min_frames, math.floor(duration_s * Fraction(options.fps) + Fraction(1, 2)))
    return (2 * wished + step) // (2 * step) * step


def _step(options: DecodeOptions) -> int:
    return 1 if options.frames == LINSPACE else options.frame_multiple


def linspace(total: int, count: int) -> list[int]:
    """``count`` of the numbers 0..``total`` - 1, evenly from the first to the last, cut to whole ones; ascending, each
    once, so that there are fewer where ``total`` is smaller."""
    numbers: list[int] = np.unique(np.linspace(0, total - 1, count, dtype=int)).tolist()
    return numbers


def slot_centres(duration_s: Fraction, count: int) -> list[Fraction]:
    """The middle of each of ``count`` equal slots of [0, duration_s), in seconds."""
    slot = duration_s / count
    return [slot * (2 * index + 1) / 2 for index in range(count)]
