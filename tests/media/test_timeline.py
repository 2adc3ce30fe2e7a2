from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import pytest

from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.timeline import MIN_AGREEING, TimelineBuilder

FRAME = 40  # milliseconds


def survey(times: list[int | None], limit: Fraction | None = None, duration: int = FRAME, is_video: bool = True):
    """Timeline and errors of packets at ``times`` (milliseconds, in storage order); every tenth is a keyframe."""
    errors = DecodeErrors()
    stream = SimpleNamespace(
        index=0, time_base=Fraction(1, 1000), average_rate=25, type="video" if is_video else "audio"
    )
    builder = TimelineBuilder(stream, errors)
    for index, time in enumerate(times):
        key = index % 10 == 0
        packet = SimpleNamespace(
            pts=time, dts=time, duration=duration, is_keyframe=key, is_corrupt=False, is_discard=False
        )
        builder.add(packet, limit)
    return builder.timeline(), errors


STEADY = list(range(0, 100 * FRAME, FRAME))


def test_the_end_is_the_last_timestamp_and_what_it_lasts():
    timeline, errors = survey([1000 + time for time in STEADY])
    assert (timeline.start, timeline.end, timeline.packets, timeline.keyframes) == (1, 5, 100, 10) and errors.complete


def test_an_unknown_last_duration_is_taken_from_the_gap_before():
    shuffled = [0, 120, 40, 80, 160, 400, 300]
    assert survey(shuffled, duration=0)[0].end == Fraction(500, 1000)


@pytest.mark.parametrize("strays", [1, MIN_AGREEING - 1])
def test_a_few_packets_far_ahead_are_strays(strays):
    times = STEADY[:50] + [10**7 + index for index in range(strays)] + STEADY[50:]
    timeline, errors = survey(times)
    assert timeline.end == 4 and errors.read_errors == strays and not errors.complete


def test_a_long_pause_is_believed_once_the_film_goes_on():
    timeline, errors = survey(STEADY + [10**6 + time for time in STEADY])
    assert timeline.end == 1004 and errors.complete


def test_a_last_picture_after_a_long_pause_counts():
    timeline, errors = survey([0, 40, 200_000])
    assert timeline.end == Fraction(200_040, 1000) and errors.complete


def test_a_timestamp_beyond_the_limit_is_damage():
    timeline, errors = survey([*STEADY, 9_000], limit=Fraction(8))
    assert timeline.end == 4 and errors.read_errors == 1


def test_a_clock_that_starts_again_goes_on():
    timeline, errors = survey(STEADY + STEADY)
    assert timeline.end == 8 and timeline.shifts == ((100, 4000),) and errors.complete


def test_what_comes_before_the_first_keyframe_does_not_count():
    timeline, _ = survey([None, 5, 6, 7, 8, 9, 10, 11, 12, 13, 500, 300, 540])
    assert timeline.start == Fraction(500, 1000)


def test_a_raw_stream_is_counted_at_its_rate():
    timeline, _ = survey([None] * 50)
    assert (timeline.start, timeline.end, timeline.nominal_frame_s) == (0, 2, Fraction(1, 25))


def test_a_stream_without_packets_has_no_timeline():
    assert survey([])[0] is None


def test_a_first_timestamp_far_off_is_a_stray():
    timeline, errors = survey([10**7, *STEADY[1:]])
    assert (timeline.start, timeline.end, timeline.shifts) == (Fraction(FRAME, 1000), 4, ())
    assert errors.read_errors == 1
