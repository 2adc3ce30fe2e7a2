"""How kept, dropped and merged cells look: the same in every picture."""

from __future__ import annotations

import numpy as np

# Of segments, in turn: told apart also by those who see fewer colours (after Okabe and Ito).
SEGMENTS = np.array(
    [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233)], np.uint8
)
GREY = np.array((0.299, 0.587, 0.114))
DIM = 0.4  # of its brightness, for what was dropped
TINT = 0.3  # of its segment's colour, in what was merged


def colour(segment: int) -> np.ndarray:
    """[3] uint8 of a segment."""
    return SEGMENTS[segment % len(SEGMENTS)]


class Veil:
    """What lies over the frames of one grid: clear over kept cells, grey and dark over dropped ones, tinted over merged
    ones.

    Args:
        level: [rows, columns] float, 0..1, how far each cell was kept.
        merged: [rows, columns] bool, whether it went into another.
        tint: [3] uint8, colour of the grid's segment.
        height, width: pixels of the frames.
    """

    def __init__(self, level: np.ndarray, merged: np.ndarray, tint: np.ndarray, height: int, width: int):
        row = np.arange(height) * level.shape[0] // height
        column = np.arange(width) * level.shape[1] // width
        self._clear = level[np.ix_(row, column)][:, :, None]
        tinted = (merged * TINT)[np.ix_(row, column)][:, :, None]
        self._dim = (1 - self._clear) * (1 - tinted) * DIM
        self._colour = (1 - self._clear) * tinted * tint

    def over(self, frame: np.ndarray) -> np.ndarray:
        """[height, width, 3] uint8; kept cells are those of ``frame`` to the bit."""
        grey = (frame @ GREY)[:, :, None]
        return (self._clear * frame + self._dim * grey + self._colour + 0.5).astype(np.uint8)
