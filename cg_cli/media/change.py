"""Which cells of a film are read where its picture changes: chosen in one pass, with bounded memory.

About half of the grids are the cells at the middles of equal parts of the film. Each of the others is the cell that is
farthest from all chosen so far (farthest-first, Gonzalez 1985), by the picture and, a little, by time: cuts, writing
and things that show for a second are far from what stands around them, and a still film is spread evenly. So no two
grids that follow each other start farther apart than an even part and a cell.

How far apart two pictures are is how far each of them is outside of what the other shows in the neighbourhood of the
same spot: what moves a little is the same picture still.

A film that is longer than there is memory for is not kept whole. Of the cells that were not chosen beforehand at most
``room`` wait; when one more comes, the one nearest to another is dropped. All distances are whole numbers, so the same
pictures give the same cells on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from cg_cli.media.grids import spread

SIDE = 16  # a picture is SIDE x SIDE spots of brightness
REACH = 1  # spots in each direction that are the neighbourhood of one
TIME_LEVELS = 1  # of brightness, of 255, in every spot: what an even part of the film counts as

T = TypeVar("T")
_FAR = np.iinfo(np.int64).max


class ChangePool(Generic[T]):
    """Takes the cells of a film one after another, with what is to be kept of each, and chooses.

    Args:
        cells: of the film.
        grids: how many are chosen, at most ``cells``.
        room: of the cells that are not chosen beforehand, how many may wait; at least as many as will be chosen.
    """

    def __init__(self, cells: int, grids: int, room: int):
        even = spread(cells, -(-grids // 2))
        self._even = frozenset(even)
        self._needed, self._room, self._size = grids - len(even), room, (cells, len(even))
        self._cells = np.empty(0, np.int64)
        self._kept: list[T] = []
        self._pictures = np.empty((0, 3, SIDE * SIDE), np.int32)  # as from ``_shown``
        self._nearest = np.empty(0, np.int64)  # distance of each to the nearest other
        self._time_weight = 0

    def add(self, cell: int, frames: np.ndarray, load: Callable[[], T]) -> None:
        """Takes the next cell, in order from 0.

        Args:
            frames: [n, SIDE, SIDE] uint8, the brightness of its frames; as many in all cells.
            load: makes what is kept of the cell; called only if it is.
        """
        # A distance is a sum of squares over the spots, of sums over the frames.
        self._time_weight = SIDE * SIDE * (len(frames) * TIME_LEVELS) ** 2
        picture = _shown(frames)
        if cell not in self._even and not self._make_room(cell, picture):
            return
        distance = self._distances(cell, picture)
        self._nearest = np.append(np.minimum(self._nearest, distance), distance.min(initial=_FAR))
        self._pictures = np.concatenate([self._pictures, picture[None]])
        self._cells = np.append(self._cells, cell)
        self._kept.append(load())

    def chosen(self) -> list[tuple[int, T]]:
        """The chosen cells, ascending, with what was kept of each."""
        index = np.flatnonzero(self._is_even()).tolist()
        nearest = np.full(len(self._cells), _FAR)
        for number in index:
            np.minimum(nearest, self._from(number), out=nearest)
        for _ in range(min(self._needed, len(self._cells) - len(index))):
            nearest[index] = -1
            index.append(int(nearest.argmax()))
            np.minimum(nearest, self._from(index[-1]), out=nearest)
        return [(int(self._cells[number]), self._kept[number]) for number in sorted(index)]

    def _is_even(self) -> np.ndarray:
        return np.array([cell in self._even for cell in self._cells.tolist()], bool)

    def _make_room(self, cell: int, picture: np.ndarray) -> bool:
        """Drops the waiting cell that is nearest to another, if too many wait; False if that is the new one."""
        waiting = ~self._is_even()
        if waiting.sum() < self._room:
            return True
        if not self._room:
            return False
        dropped = int(np.where(waiting, self._nearest, _FAR).argmin())
        if self._distances(cell, picture).min() <= self._nearest[dropped]:
            return False
        lost = np.flatnonzero(self._from(dropped) == self._nearest)  # it was the nearest of these
        del self._kept[dropped]
        self._cells, self._nearest = (np.delete(values, dropped) for values in (self._cells, self._nearest))
        self._pictures = np.delete(self._pictures, dropped, axis=0)
        for other in (lost[lost != dropped] - (lost[lost != dropped] > dropped)).tolist():
            distance = self._from(other)
            distance[other] = _FAR
            self._nearest[other] = distance.min()
        return True

    def _from(self, number: int) -> np.ndarray:
        return self._distances(int(self._cells[number]), self._pictures[number])

    def _distances(self, cell: int, picture: np.ndarray) -> np.ndarray:
        """From a cell to all that are there [n] int64."""
        spots, low, high = picture
        others, lows, highs = self._pictures.swapaxes(0, 1)
        apart = _outside(spots, lows, highs) + _outside(others, low, high)
        cells, parts = self._size
        return apart + self._time_weight * ((self._cells - cell) * parts) ** 2 // cells**2


def _shown(frames: np.ndarray) -> np.ndarray:
    """Of frames [n, SIDE, SIDE] the brightness of each spot, and its least and greatest in the neighbourhood, each
    times n [3, SIDE * SIDE] int32."""
    count = len(frames)
    low, high = frames.min(axis=0).astype(np.int32), frames.max(axis=0).astype(np.int32)
    for axis in (0, 1):
        low, high = _over_neighbours(np.minimum, low, axis), _over_neighbours(np.maximum, high, axis)
    return np.stack([frames.sum(axis=0, dtype=np.int32), count * low, count * high]).reshape(3, -1)


def _over_neighbours(function: np.ufunc, values: np.ndarray, axis: int) -> np.ndarray:
    """``function`` of each value and those up to REACH before and behind it."""
    width = [(REACH, REACH) if axis == number else (0, 0) for number in range(values.ndim)]
    padded, length = np.pad(values, width, mode="edge"), values.shape[axis]
    return function.reduce([np.take(padded, range(at, at + length), axis) for at in range(2 * REACH + 1)])


def _outside(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Sum of the squares of how far values [..., SIDE * SIDE] are outside of low..high, int64."""
    beyond = np.maximum(np.maximum(values - high, low - values), 0)
    return (beyond * beyond).sum(axis=-1, dtype=np.int64)
