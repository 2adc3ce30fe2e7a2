"""Which grids repeat what was looked at before."""

from __future__ import annotations

import numpy as np
import pytest

from cg_cli.errors import UsageError
from cg_cli.media.repeats import REFRESH, grid_sources
from cg_cli.settings.look_once import levels


def film(*values: int, side: int = 28) -> np.ndarray:
    """Grids of two frames, each of one grey."""
    grids = np.array(values, np.uint8).repeat(2)
    return np.broadcast_to(grids[:, None, None, None], (len(grids), side, side, 3)).copy()


def test_a_still_film_is_looked_at_again_after_so_many_grids():
    sources = grid_sources(film(*[7] * (2 * REFRESH + 1)), 2, 0)
    assert sources.tolist() == [0] * REFRESH + [REFRESH] * REFRESH + [2 * REFRESH]


def test_grids_are_compared_with_the_one_looked_at_and_not_with_their_neighbour():
    drift = film(*range(100, 112))
    assert grid_sources(drift, 2, 4).tolist() == [0] * 5 + [5] * 5 + [10] * 2
    assert grid_sources(drift, 2, 0).tolist() == list(range(12))
    assert grid_sources(film(5, 9, 5), 2, 0).tolist() == [0, 1, 2]  # back again, but not the one before


@pytest.mark.parametrize("place", [0, 1, 28 * 28 * 3 - 1, 28 * 28 * 3, 2 * 28 * 28 * 3 - 1])
def test_one_value_of_a_grid_is_enough_to_be_looked_at(place: int):
    frames = film(50, 50)
    frames.reshape(2, -1)[1, place] += 3
    assert grid_sources(frames, 2, 2).tolist() == [0, 1]
    assert grid_sources(frames, 2, 3).tolist() == [0, 0]
    assert grid_sources(frames, 2, None).tolist() == [0, 1]


def test_dark_and_light_differ_by_more_than_their_bytes_may_say():
    assert grid_sources(film(255, 0), 2, 64).tolist() == [0, 1]  # 255 - 0 is 1 in a signed byte's arithmetic


def test_the_settings_words():
    assert [levels(word) for word in ("off", "exact", "0", "8", "64")] == [None, 0, 0, 8, 64]
    for word in ("", "-1", "65", "8.0", "on", "²"):
        with pytest.raises(UsageError, match="give off, exact or a number of grey levels from 0 to 64"):
            levels(word)
