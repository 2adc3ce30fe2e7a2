"""Fewer pixels and fewer frames, for a budget of tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.nano.smaller import cells, fewer_frames, fewer_pixels, resized
from cg_cli.pruning.budget import Budget

OPTIONS = DecodeOptions()


def clip(frames: int = 12, height: int = 224, width: int = 224) -> Clip:
    pixels = np.arange(frames, dtype=np.uint8)[:, None, None, None] + np.zeros((1, height, width, 3), np.uint8)
    times = np.arange(frames) / 2
    return Clip("a.mp4", pixels, times, 0.5, None, "absent", frames / 2, width, height)


@pytest.mark.parametrize(
    ("rows", "columns", "most", "expected"),
    [
        (8, 8, 64, (8, 8)),
        (8, 8, 100, (8, 8)),
        (8, 8, 15, (3, 5)),  # 15 cells; stretched by 5 / 3
        (8, 8, 13, (3, 4)),  # not 1 x 13, nor any other row of one
        (8, 8, 9, (3, 3)),
        (8, 8, 1, (1, 1)),
        (8, 8, 0, (1, 1)),
        (4, 16, 16, (2, 8)),
        (1, 16, 3, (1, 3)),  # nothing else fits
    ],
)
def test_the_largest_size_that_fits_and_does_not_stretch(rows, columns, most, expected):
    assert cells(rows, columns, most) == expected


def test_fewer_pixels_are_as_many_frames_and_no_more_tokens_than_the_budget():
    small = fewer_pixels(clip(), Budget(15 * 6 + 5, 7), OPTIONS)
    assert small.frames.shape == (12, 3 * 28, 5 * 28, 3) and small.frames.dtype == np.uint8
    assert small.seconds_per_frame == 0.5 and (small.frames[:, 0, 0, 0] == np.arange(12)).all()
    assert fewer_pixels(clip(), Budget(64 * 6, 7), OPTIONS).frames.shape == clip().frames.shape


def test_a_pixel_is_the_mean_of_its_area():
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    pixels[0, :2, :2] = [[[0, 4, 8]] * 2, [[100, 4, 8]] * 2]
    assert resized(pixels, 2, 2)[0].tolist() == [[[50, 4, 8], [0, 0, 0]], [[0, 0, 0]] * 2]


def test_fewer_frames_are_evenly_spaced_and_whole():
    few = fewer_frames(clip(), Budget(2 * 64 + 63, 7), OPTIONS)
    assert few.frames[:, 0, 0, 0].tolist() == [1, 4, 7, 10] and few.frame_times.tolist() == [0.5, 2, 3.5, 5]
    assert few.seconds_per_frame == 1.5
    assert len(fewer_frames(clip(), Budget(3, 7), OPTIONS).frames) == 2  # one grid is the least


def test_of_whole_grids_fewer_are_kept_whole():
    uneven = replace(clip(), grid_starts=np.array([0.0, 1, 2, 3, 4.5, 5.5]))
    few = fewer_frames(uneven, Budget(2 * 64, 7), OPTIONS)
    assert few.frames[:, 0, 0, 0].tolist() == [2, 3, 8, 9] and few.grid_starts.tolist() == [1, 4.5]
    assert few.frame_times.tolist() == [1, 1.5, 4, 4.5] and few.seconds_per_frame == 1.5


def test_a_clip_without_a_picture_stays_as_it_is():
    silent = Clip("a.wav", None, None, 0.0, np.zeros(16000, np.float32), "used", 1.0, 0, 0)
    assert (
        fewer_pixels(silent, Budget(0, 5), OPTIONS) is silent and fewer_frames(silent, Budget(0, 5), OPTIONS) is silent
    )
