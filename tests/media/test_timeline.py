from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import pytest

from cg_cli.media.damage import Damage
from cg_cli.media.timeline import COMPANY, Survey

FRAME = 40  # milliseconds


def survey(times: list[int | None], limit: Fraction | None = None, duration: int = FRAME, film: bool = True):
    """Timeline and damage of packets at ``times`` (milliseconds, in storage order); every tenth is a keyframe."""
    damage = Damage()
    stream = SimpleNamespace(time_base=Fraction(1, 1000), average_rate=25, type="video" if film else "audio")
    built = Survey(stream, damage)
    for index, time in enumerate(times):
        key = index % 10 == 0
        packet = SimpleNamespace(
            pts=time, dts=time, duration=duration, is_keyframe=key, is_corrupt=False, is_discard=False
        )
        built.add(packet, limit)
    return built.timeline(), damage


STEADY = list(range(0, 100 * FRAME, FRAME))


def test_the_end_is_the_last_timestamp_and_what_it_lasts():
    line, damage = survey([1000 + time for time in STEADY])
    assert (line.start, line.end, line.packets, line.keyframes) == (1, 5, 100, 10) and damage.complete


def test_an_unknown_last_duration_is_taken_from_the_gap_before():
    shuffled = [0, 120, 40, 80, 160, 400, 300]
    assert survey(shuffled, duration=0)[0].end == Fraction(500, 1000)


@pytest.mark.parametrize("strays", [1, COMPANY - 1])
def test_a_few_packets_far_ahead_are_strays(strays):
    times = STEADY[:50] + [10**7 + index for index in range(strays)] + STEADY[50:]
    line, damage = survey(times)
    assert line.end == 4 and damage.unreadable == strays and not damage.complete


def test_a_long_pause_is_believed_once_the_film_goes_on():
    line, damage = survey(STEADY + [10**6 + time for time in STEADY])
    assert line.end == 1004 and damage.complete


def test_a_last_picture_after_a_long_pause_counts():
    line, damage = survey([0, 40, 200_000])
    assert line.end == Fraction(200_040, 1000) and damage.complete


def test_a_timestamp_beyond_the_limit_is_damage():
    line, damage = survey(STEADY + [9_000], limit=Fraction(8))
    assert line.end == 4 and damage.unreadable == 1


def test_a_clock_that_starts_again_is_noticed():
    line, damage = survey(STEADY + STEADY)
    assert line.end == 4 and damage.restarts == 1 and not damage.complete


def test_what_comes_before_the_first_keyframe_does_not_count():
    line, _ = survey([None, 5, 6, 7, 8, 9, 10, 11, 12, 13, 500, 300, 540])
    assert line.start == Fraction(500, 1000)


def test_a_raw_stream_is_counted_at_its_rate():
    line, _ = survey([None] * 50)
    assert (line.start, line.end, line.counted) == (0, 2, Fraction(1, 25))


def test_a_stream_without_packets_has_no_timeline():
    assert survey([])[0] is None
