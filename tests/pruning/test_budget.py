"""Properties of the one place where a keep ratio becomes counts, over a grid of stream sizes and ratios."""

from __future__ import annotations

from itertools import product

import pytest
from helpers.synthetic_stream import SHAPES, make_stream

from cg_cli.pruning.budget import VIDEO_FLOOR, Budget, kept_count, plan, split
from cg_cli.pruning.stream import AUDIO, VIDEO

KEEPS = [0.001, 0.01, 0.05, *(step / 20 for step in range(2, 20)), 0.999, 1.0]
STREAMS = [  # video, audio, grids
    (grids * size, audio, grids)
    for grids, size, audio in product((0, 1, 2, 9), (1, 4, 64), (0, 1, 50, 200))
    if grids * size + audio
]
streams = pytest.mark.parametrize(("video", "audio", "grids"), STREAMS)


def test_kept_count_rounds_half_up_and_keeps_at_least_one():
    assert [kept_count(10, keep) for keep in (0.04, 0.149, 0.15, 0.25, 0.35, 1.0)] == [1, 1, 2, 3, 4, 10]
    assert kept_count(0, 0.5) == 0
    assert kept_count(200, 0.45) == 90


@pytest.mark.parametrize("tokens", [1, 2, 3, 17, 712, 100_000])
def test_kept_count_is_within_half_a_token_and_monotone(tokens: int):
    counts = [kept_count(tokens, keep) for keep in KEEPS]
    assert counts == sorted(counts)
    assert counts[-1] == tokens
    for keep, count in zip(KEEPS, counts, strict=True):
        assert 1 <= count <= tokens
        assert count == 1 or abs(count - keep * tokens) <= 0.5 + 1e-9


@streams
def test_split_adds_up_and_stays_inside_the_stream(video: int, audio: int, grids: int):
    for keep in KEEPS:
        budget = split(video, audio, grids, keep)
        assert budget.count == budget.video + budget.audio == kept_count(video + audio, keep)
        assert 0 <= budget.video <= video
        assert 0 <= budget.audio <= audio
    assert split(video, audio, grids, 1.0) == Budget(video, audio)


@streams
def test_each_modality_grows_with_keep(video: int, audio: int, grids: int):
    budgets = [split(video, audio, grids, keep) for keep in KEEPS]
    for less, more in zip(budgets, budgets[1:], strict=False):
        assert less.video <= more.video
        assert less.audio <= more.audio


@streams
def test_audio_stays_whole_while_video_has_its_floor(video: int, audio: int, grids: int):
    for keep in KEEPS:
        budget = split(video, audio, grids, keep)
        floor = max(min(grids, video), video // VIDEO_FLOOR)
        if budget.count >= floor + audio:
            assert budget.audio == audio
            assert budget.video >= floor
        elif video and audio:  # the sound gives way, but no further than the video's share asks
            assert budget.video <= floor
            if budget.count >= 2 * grids:
                assert budget.video >= min(grids, video)
            if budget.video > grids:
                assert budget.video / video <= budget.audio / audio + 1e-9 or budget.video == budget.count * video // (
                    video + audio
                )


def test_the_default_ratio_keeps_all_sound_of_a_nano_clip():
    assert split(512, 200, 8, 0.45) == Budget(120, 200)
    assert split(512, 200, 8, 0.25) == Budget(102, 76)
    assert split(512, 200, 8, 0.10) == Budget(51, 20)  # in proportion


@pytest.mark.parametrize("shape", SHAPES)
def test_plan_counts_the_stream(shape: str):
    stream = make_stream(**SHAPES[shape])
    kinds, grids = stream.modality.tolist(), len(set(stream.grid.tolist()) - {-1})
    for keep in (0.1, 0.45, 1.0):
        assert plan(stream, keep) == split(kinds.count(VIDEO), kinds.count(AUDIO), grids, keep)
