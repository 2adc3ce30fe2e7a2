"""Which grids repeat what was looked at before."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.media_files import number_of, steady, write

from cg_cli.errors import UsageError
from cg_cli.media import DecodeOptions
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


def _pan(number: int, picture: np.ndarray) -> np.ndarray:
    return np.roll(picture, number, axis=1)


def _fade(number: int, picture: np.ndarray) -> np.ndarray:
    return picture + 2 * number


def _flicker(number: int, picture: np.ndarray) -> np.ndarray:
    return picture + 20 * (number % 2)


def _noise(number: int, picture: np.ndarray) -> np.ndarray:
    return picture + np.random.default_rng(number).integers(-3, 4, picture.shape)


def _cursor(number: int, picture: np.ndarray) -> np.ndarray:
    picture = picture.copy()
    picture[10:18, 4:8] = 250 if number % 2 else 40
    return picture


def _key_frames(number: int, picture: np.ndarray) -> np.ndarray:
    return picture + (4 if number // 4 % 2 else 0)  # an encoder's jump every so often


@pytest.mark.parametrize(
    ("footage", "tolerance", "expected"),
    [
        (_pan, 8, list(range(12))),
        (_fade, 0, list(range(12))),
        (_fade, 8, [0] * 5 + [5] * 5 + [10] * 2),  # 2 levels a grid
        (_flicker, 8, list(range(12))),
        (_noise, 2, list(range(12))),
        (_noise, 6, [0] * 12),
        (_cursor, 16, list(range(12))),
        (_key_frames, 0, [0] * 4 + [4] * 4 + [8] * 4),
        (_key_frames, 4, [0] * 12),
    ],
)
def test_what_is_taken_for_a_still_picture(footage, tolerance: int, expected: list[int]):
    picture = np.random.default_rng(0).integers(40, 180, (28, 28, 3))
    grids = [footage(number, picture).astype(np.uint8) for number in range(12) for _ in range(2)]
    assert grid_sources(np.stack(grids), 2, tolerance).tolist() == expected


@pytest.mark.parametrize(
    "film",
    [
        dict(times=steady(48, fps=1 / 8), codec="gif", pix_fmt="rgb8"),
        dict(times=[0.0, 8.0, 16.0, 24.0, 29.0, 32.0, 40.0, 48.0]),  # a variable rate
    ],
)
def test_a_frame_that_stays_is_looked_at_once(worker, folder, film):
    path = write(folder / f"stays.{'gif' if 'codec' in film else 'mp4'}", **film)
    clip = worker.decode(path, DecodeOptions())
    sources = grid_sources(clip.frames, 2, 0).tolist()
    shown = [number_of(frame) for frame in clip.frames]
    pairs = list(zip(shown[::2], shown[1::2]))
    assert len(set(sources)) == len(set(pairs)) < len(pairs)
    assert all(pairs[number] == pairs[source] for number, source in enumerate(sources))


def test_the_settings_words():
    assert [levels(word) for word in ("off", "exact", "0", "8", "64")] == [None, 0, 0, 8, 64]
    for word in ("", "-1", "65", "8.0", "on", "²"):
        with pytest.raises(UsageError, match="give off, exact or a number of grey levels from 0 to 64"):
            levels(word)
