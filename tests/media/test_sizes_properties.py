"""Sizes, frame counts and zero-order hold, for any input."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from cg_cli.media.clip import DecodeOptions
from cg_cli.media.frames import zero_order_hold
from cg_cli.media.sizes import counts_above_cap, fit_size, frame_count, slot_centres

properties = settings(derandomize=True, deadline=None, max_examples=200)
sides = st.integers(1, 100_000)
multiples = st.integers(1, 64)
durations = st.fractions(min_value=Fraction(1, 1000), max_value=100_000, max_denominator=90_000)


@properties
@given(sides, sides, st.integers(1, 10**8), multiples)
def test_fit_size_gives_multiples_within_the_budget(width, height, max_pixels, multiple):
    fitted = fit_size(width, height, max_pixels, multiple)
    assert all(side > 0 and side % multiple == 0 for side in fitted)
    assert fitted[0] * fitted[1] <= max(max_pixels, multiple**2)
    assert fitted[0] < width + multiple and fitted[1] < height + multiple


@properties
@given(sides, sides, st.integers(1, 10**8), multiples)
def test_fit_size_of_a_turned_frame_is_turned_where_no_side_is_lifted(width, height, max_pixels, multiple):
    fitted = fit_size(width, height, max_pixels, multiple)
    if min(fitted) > multiple:
        assert fit_size(height, width, max_pixels, multiple) == fitted[::-1]


@properties
@given(sides, sides, st.integers(1, 10**8), multiples)
def test_fit_size_leaves_a_fitted_size_as_it_is(width, height, max_pixels, multiple):
    fitted = fit_size(width, height, max_pixels, multiple)
    assert fit_size(*fitted, max_pixels, multiple) == fitted


options = st.builds(
    DecodeOptions,
    fps=st.floats(0.01, 240),
    max_frames=st.integers(1, 2000),
    min_frames=st.integers(0, 2000),
    frame_multiple=st.integers(1, 16),
)


@properties
@given(durations, options)
def test_frame_count_is_a_multiple_between_its_bounds(duration_s, options):
    count, step = frame_count(duration_s, options), options.frame_multiple
    assert count % step == 0 and step <= count <= max(step, options.max_frames)
    if options.min_frames <= options.max_frames - step:
        assert count > options.min_frames - step
    if step < count < options.max_frames - step and count > options.min_frames + step:
        assert abs(count - duration_s * Fraction(options.fps)) <= Fraction(step + 1, 2)


@properties
@given(durations, options)
def test_counts_above_the_cap_are_those_that_a_larger_cap_gives(duration_s, options):
    counts = counts_above_cap(duration_s, options)
    uncapped = frame_count(duration_s, replace(options, max_frames=10**9))
    assert bool(counts) == (uncapped > frame_count(duration_s, options))
    if counts:
        assert counts[-1] == uncapped
        for count in (counts[0], counts[-1]):
            assert frame_count(duration_s, replace(options, max_frames=count)) == count


@properties
@given(durations, durations, options)
def test_a_longer_video_has_no_fewer_frames(one, other, options):
    short, long = sorted((one, other))
    assert frame_count(short, options) <= frame_count(long, options)


@properties
@given(durations, st.integers(1, 500))
def test_slot_centres_lie_inside_and_are_evenly_spaced(duration_s, count):
    centres = slot_centres(duration_s, count)
    assert len(centres) == count and centres[0] > 0 and centres[-1] < duration_s
    assert len({later - earlier for earlier, later in zip(centres, centres[1:])}) <= 1


@properties
@given(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=30),
    st.lists(st.integers(-1200, 1200), min_size=1, max_size=30).map(sorted),
)
def test_zero_order_hold_serves_every_time_once_with_the_last_item_before_it(item_times, times):
    kept = [time for index, time in enumerate(item_times) if time > max(item_times[:index], default=-(10**9))]
    held = [
        time for time, _, repeats in zero_order_hold([(t, None) for t in item_times], times) for _ in range(repeats)
    ]
    assert held == [max((t for t in kept if t <= time), default=kept[0]) for time in times]
