"""Where whole grids stand, and which cells of a film are chosen for what changes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cg_cli.media.change import SIDE, ChangePool
from cg_cli.media.clip import DecodeOptions
from cg_cli.media.grids import pair_starts, pair_times, spread
from cg_cli.media.sizes import frame_count, slot_centres, uncapped_count

properties = settings(derandomize=True, deadline=None, max_examples=60)
options = st.builds(
    DecodeOptions, fps=st.floats(0.01, 240), max_frames=st.integers(1, 400), frame_multiple=st.integers(1, 4)
)
CELLS, GRIDS = 60, 8


@properties
@given(st.fractions(min_value=Fraction(1, 1000), max_value=10_000, max_denominator=90_000), options)
def test_pairs_are_ascending_inside_the_film_and_evenly_spread(duration_s, options):
    count, size = frame_count(duration_s, options), options.frame_multiple
    times = pair_times(duration_s, count, options)
    assert len(times) == count and times == sorted(set(times)) and times[0] >= 0 and times[-1] < duration_s
    middles = [sum(times[at : at + size]) / size for at in range(0, count, size)]
    assert middles == slot_centres(duration_s, count // size)
    starts = pair_starts(duration_s, count, options)
    assert starts[0] >= 0 and all(start < time for start, time in zip(starts, times[::size], strict=True))
    spacing = min(1 / Fraction(options.fps), duration_s / count)
    assert all(times[at + 1] - times[at] == spacing for at in range(0, count, size) if size > 1)


def test_pairs_closer_than_a_second_are_the_evenly_spaced_frames():
    options = DecodeOptions(fps=1)
    assert pair_times(Fraction(10), 20, options) == slot_centres(Fraction(10), 20)
    assert pair_starts(Fraction(10), 20, options) == list(range(10))
    assert uncapped_count(Fraction(10), options) == 10


@properties
@given(st.integers(1, 200), st.data())
def test_spread_is_ascending_and_leaves_no_long_gap(cells, data):
    count = data.draw(st.integers(1, cells))
    chosen = spread(cells, count)
    assert chosen == sorted(set(chosen)) and chosen[0] >= 0 and chosen[-1] < cells
    assert max(np.diff([-1, *chosen, cells]), default=0) <= cells / count + 1


def film(kind: str) -> np.ndarray:
    """[CELLS, 2, SIDE, SIDE] uint8."""
    draw = np.random.default_rng(3)
    texture = draw.integers(60, 190, (SIDE, SIDE))
    out = np.broadcast_to(texture, (CELLS, 2, SIDE, SIDE)).copy()
    time = np.arange(2 * CELLS).reshape(CELLS, 2, 1, 1)
    match kind:
        case "black":
            out[:] = 0
        case "noise":
            out = draw.integers(0, 256, out.shape)
        case "pixel":
            out[41, 1, 3, 3] += 1
        case "pan":
            out = np.stack([[np.roll(texture, at // 2, axis=1) for at in pair] for pair in time[:, :, 0, 0]])
        case "fade":
            out = out * (1 - time / (2 * CELLS))
        case "flicker":
            out = out + 40 * (time % 2)
        case "keyframe":  # all of it jumps a little where an I-frame stands
            out = out + (time // 24 % 2) * 2
        case "brief":  # a thing in a corner for one cell, beside one that swings all the time
            out[37, :, 2:5, 10:13] = 250
            out[::2, :, 9:12, 3:6], out[1::2, :, 9:12, 4:7] = 240, 240
        case "cuts":
            for start in (13, 22, 44):
                out[start:] = draw.integers(0, 256, (SIDE, SIDE))
    return out.astype(np.uint8)


FILMS = ("still", "black", "noise", "pixel", "pan", "fade", "flicker", "keyframe", "brief", "cuts")


def chosen(pictures: np.ndarray, grids: int = GRIDS, room: int = CELLS) -> list[int]:
    pool = ChangePool[int](len(pictures), grids, room)
    loaded = []
    for cell, frames in enumerate(pictures):
        pool.add(cell, frames, lambda: loaded.append(cell) or cell)  # noqa: B023 (called at once)
    cells = pool.chosen()
    assert all(cell == kept for cell, kept in cells) and {cell for cell, _ in cells} <= set(loaded)
    return [cell for cell, _ in cells]


@pytest.mark.parametrize("room", [GRIDS, CELLS])
@pytest.mark.parametrize("kind", FILMS)
def test_any_film_gets_its_grids_without_a_long_gap(kind, room):
    cells = chosen(film(kind), room=room)
    assert cells == chosen(film(kind), room=room)
    assert len(cells) == GRIDS and cells == sorted(set(cells))
    assert set(spread(CELLS, GRIDS // 2)) <= set(cells)
    assert max(np.diff([-1, *cells, CELLS])) <= CELLS / (GRIDS / 2) + 1


@pytest.mark.parametrize("room", [GRIDS, CELLS])
def test_what_shows_for_a_moment_and_every_scene_get_a_grid(room):
    assert 37 in chosen(film("brief"), room=room)
    scenes = np.searchsorted([13, 22, 44], chosen(film("cuts"), room=room), side="right")
    assert set(scenes) == {0, 1, 2, 3}


def test_a_still_film_is_spread_as_evenly_as_it_can_be():
    assert max(np.diff([0, *chosen(film("still")), CELLS])) <= CELLS / GRIDS + 4


@pytest.mark.parametrize(("cells", "grids"), [(1, 1), (2, 1), (2, 2), (3, 2), (7, 5), (5, 5)])
def test_few_cells(cells, grids):
    for room in (grids - -(-grids // 2), 20):
        assert len(chosen(film("noise")[:cells], grids, room)) == grids


def test_no_more_wait_than_there_is_room_for():
    pool = ChangePool[int](CELLS, GRIDS, GRIDS // 2)
    for cell, frames in enumerate(film("noise")):
        pool.add(cell, frames, lambda: 0)
        assert len(pool._kept) <= GRIDS
