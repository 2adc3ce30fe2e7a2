"""``--frames linspace`` and ``spread_pixels``, end to end: frames by their numbers, whatever their times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.media_files import beeps, number_of, steady, write

from cg_cli.media import DecodeOptions
from cg_cli.media.clip import LINSPACE

OPTIONS = DecodeOptions(
    fps=10, min_frames=16, max_frames=768, max_pixels=61_250, frames=LINSPACE, spread_pixels=0.95, audio=False
)
VARIABLE = [0, 0.1, 0.2, 0.3, 1.0, 1.04, 1.08, 1.5, *(2 + number / 50 for number in range(41)), 6, 6.5]


def numbers(total: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, total - 1, count, dtype=int)).tolist()


@pytest.mark.parametrize(
    ("name", "times", "wanted", "options"),
    [
        ("odd.mp4", steady(3.3), 33, {}),
        ("short.mp4", steady(0.5), 16, {}),
        ("few.mp4", steady(2, fps=4), 20, {}),
        ("one.mp4", [0.0], 16, {}),
        ("late.mkv", steady(2, start_s=3), 20, {}),
        ("reordered.ts", steady(4), 40, {"codec_options": {"bf": "3"}}),
        ("raw.h264", steady(4), 40, {}),
        ("variable.mp4", VARIABLE, 70, {"codec_options": {"bf": "2"}}),
    ],
)
def test_frames_are_chosen_by_number_from_the_first_to_the_last(worker, folder, name, times, wanted, options):
    clip = worker.decode(write(folder / f"numbered_{name}", times=times, **options), OPTIONS)
    chosen = numbers(len(times), wanted)
    assert [number_of(frame) for frame in clip.frames] == chosen
    if name != "raw.h264":  # it has no times, so a nominal rate gives them
        assert clip.frame_times == pytest.approx([times[number] - times[0] for number in chosen], abs=2e-3)
    # Grids stand for equal parts of the whole video, as its length and their number say.
    assert clip.seconds_per_frame == pytest.approx(clip.duration_s / len(chosen)) and clip.grid_starts is None
    assert clip.complete and not clip.warnings


def test_the_cap_and_the_size_of_the_frames(worker, folder):
    path = write(folder / "spread.mp4", times=steady(4), size=(640, 480))
    options = replace(OPTIONS, max_pixels=5_000)
    below, at_the_cap = (worker.decode(path, replace(options, max_frames=count)) for count in (48, 31))
    assert below.frames.shape == (40, 56, 84, 3)  # at most .95 * 48 / 40 * 5,000 = 5,700 pixels of 4 : 3
    assert at_the_cap.frames.shape == (31, 56, 56, 3)
    assert [number_of(frame) for frame in at_the_cap.frames] == numbers(100, 31)
    few = worker.decode(path, replace(options, max_frames=48, min_frames=0, fps=0.1))
    assert [number_of(frame) for frame in few.frames] == [0] and few.frames.shape[1:] == (392, 532, 3)


def test_a_damaged_file_gives_what_is_there(worker, folder):
    path = write(folder / "numbered_cut.mkv", times=steady(40, fps=8), gop=100, sound=beeps(40, 48_000))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    clip = worker.decode(path, OPTIONS)
    assert not clip.complete and len(clip.frames) > 16 and (np.diff(clip.frame_times) > 0).all()
