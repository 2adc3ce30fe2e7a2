"""Timelines of any packets."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.timeline import MAX_JUMP_S, MAX_REORDER_S, TimelineBuilder

properties = settings(derandomize=True, deadline=None, max_examples=200)
FRAME = 40  # milliseconds
packets = st.builds(
    SimpleNamespace,
    pts=st.none() | st.integers(-(10**9), 10**9),
    dts=st.none() | st.integers(-(10**9), 10**9),
    duration=st.none() | st.integers(0, 10**5),
    is_keyframe=st.booleans(),
    is_corrupt=st.booleans(),
    is_discard=st.booleans(),
)


def build(items, kind="video", limit=None):
    errors = DecodeErrors()
    builder = TimelineBuilder(SimpleNamespace(index=0, time_base=Fraction(1, 1000), average_rate=25, type=kind), errors)
    for packet in items:
        builder.add(packet, limit)
    return builder.timeline(), errors


def packet(time: int) -> SimpleNamespace:
    return SimpleNamespace(pts=time, dts=time, duration=FRAME, is_keyframe=True, is_corrupt=False, is_discard=False)


@properties
@given(st.lists(packets, max_size=40), st.sampled_from(["video", "audio"]))
def test_any_packets_give_a_timeline_that_ends_no_earlier_than_it_starts(items, kind):
    timeline, errors = build(items, kind)
    if not items:
        assert timeline is None
        return
    assert timeline.packets == len(items) >= timeline.keyframes and timeline.duration >= 0
    assert errors.corrupt_packets == sum(item.is_corrupt for item in items) and errors.read_errors <= len(items)


@properties
@given(st.integers(-(10**6), 10**6), st.integers(2, 200), st.randoms(use_true_random=False))
def test_decoding_order_does_not_matter(start, count, random):
    times = [start + FRAME * index for index in range(count)]
    group = MAX_REORDER_S * 1000 // FRAME // 2
    shuffled = [
        time
        for first in range(0, count, group)
        for time in random.sample(times[first : first + group], len(times[first : first + group]))
    ]
    timeline, errors = build(map(packet, shuffled), "audio")
    assert (timeline.start * 1000, timeline.end * 1000) == (start, start + FRAME * count) and errors.complete


@properties
@given(st.integers(2, 100), st.integers(1, 7), st.integers(MAX_JUMP_S * 1000 + 1, 10**9), st.data())
def test_a_few_packets_far_ahead_are_read_errors_wherever_they_are(count, outliers, jump, data):
    place = data.draw(st.integers(1, count - 1))
    times = [FRAME * index for index in range(count)]
    times[place:place] = [times[place - 1] + jump + index for index in range(outliers)]
    timeline, errors = build(map(packet, times))
    assert timeline.end * 1000 == FRAME * count and errors.read_errors == outliers and not errors.complete
