from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from cg_cli.media.clip import DecodeOptions
from cg_cli.media.sizes import displayed_size, fit_size, frame_count, quarter_turns, slot_centres


def shapes(count: int = 3000):
    """(width, height, max_pixels, multiple), log-uniform, extreme ratios included; one square always fits."""
    draw = random.Random(7)
    for _ in range(count):
        multiple = draw.choice([1, 2, 14, 16, 28, 32])
        width, height = (round(math.exp(draw.uniform(0, math.log(60_000)))) for _ in range(2))
        yield width, height, max(multiple**2, round(math.exp(draw.uniform(3, 15)))), multiple


def test_fit_size_keeps_to_multiples_and_budget():
    for width, height, budget, multiple in shapes():
        wide, high = fit_size(width, height, budget, multiple)
        assert wide % multiple == high % multiple == 0 and wide > 0 and high > 0
        assert wide * high <= budget, (width, height, budget, multiple)


def test_fit_size_never_grows_past_the_next_multiple():
    for width, height, budget, multiple in shapes():
        wide, high = fit_size(width, height, budget, multiple)
        assert wide < width + multiple and high < height + multiple


def test_fit_size_keeps_the_aspect_within_one_multiple():
    for width, height, budget, multiple in shapes():
        wide, high = fit_size(width, height, budget, multiple)
        if min(wide, high) >= 4 * multiple:
            bound = (1 + multiple / wide) * (1 + multiple / high)
            assert 1 / bound**1.1 <= (wide / high) / (width / height) <= bound**1.1, (width, height, budget, multiple)


def test_fit_size_spends_the_budget_of_a_large_frame():
    for width, height, budget, multiple in shapes():
        wide, high = fit_size(width, height, budget, multiple)
        if width * height > budget and min(wide, high) > multiple:
            assert (wide + multiple) * (high + multiple) > budget * 0.99


@pytest.mark.parametrize(
    # From transformers 5.23 `smart_resize(height, width, factor=28, min_pixels=1, max_pixels=100352)`.
    ("source", "fitted"),
    [
        ((1920, 1080), (420, 224)),
        ((3840, 2160), (420, 224)),
        ((480, 640), (252, 364)),
        ((320, 240), (308, 252)),
        ((64, 48), (56, 56)),
    ],
)
def test_fit_size_agrees_with_smart_resize(source, fitted):
    assert fit_size(*source, 128 * 28 * 28, 28) == fitted


@pytest.mark.parametrize("multiple", [1, 2, 3, 4])
def test_frame_count_is_a_bounded_multiple_near_the_wish(multiple):
    for tenths in range(1, 4000, 7):
        options = DecodeOptions(fps=2.0, max_frames=128, frame_multiple=multiple)
        count = frame_count(Fraction(tenths, 10), options)
        assert count % multiple == 0 and multiple <= count <= 128
        if multiple <= tenths / 5 <= 128 - multiple:
            assert abs(count - tenths / 5) <= multiple / 2 + 0.5


def test_frame_count_takes_the_last_multiple_below_max_frames():
    assert frame_count(Fraction(100), DecodeOptions(max_frames=7, frame_multiple=2)) == 6
    assert frame_count(Fraction(100), DecodeOptions(max_frames=1, frame_multiple=2)) == 2


def test_slot_centres_divide_the_duration_evenly():
    centres = slot_centres(Fraction(7, 3), 6)
    assert len(centres) == 6 and centres[0] * 2 == Fraction(7, 18) and sum(centres) == 6 * Fraction(7, 6)
    assert {b - a for a, b in zip(centres, centres[1:])} == {Fraction(7, 18)}


def test_displayed_size_widens_pixels_then_turns():
    assert displayed_size(720, 576, Fraction(64, 45), 0) == (1024, 576)
    assert displayed_size(720, 576, Fraction(64, 45), 270) == (576, 1024)
    assert displayed_size(720, 576, Fraction(1, 5000), 180) == displayed_size(720, 576, None, 0) == (720, 576)


def test_quarter_turns_is_the_nearest_right_angle():
    assert [quarter_turns(angle) for angle in (0, 90, -90, 180, -180, 270, 359.6, 91)] == [
        0,
        90,
        270,
        180,
        180,
        270,
        0,
        90,
    ]
