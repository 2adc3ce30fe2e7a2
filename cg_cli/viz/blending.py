"""Colours of kept, dropped and merged cells, the same in every picture, and how they are blended with a frame."""

from __future__ import annotations

import numpy as np

# Of segments, in turn: a palette for colour-blind readers, too (after Okabe and Ito).
SEGMENTS = np.array(
    [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233)], np.uint8
)
LUMA = np.array((0.299, 0.587, 0.114))
DIM = 0.4  # of the brightness of a dropped cell
TINT = 0.3  # of the segment's colour in a merged cell


def segment_colour(segment: int) -> np.ndarray:
    """[3] uint8 of a segment."""
    return SEGMENTS[segment % len(SEGMENTS)]


class GridOverlay:
    """The overlay of one grid's frames: kept cells as they are, dropped ones grey and dark, merged ones tinted.

    Args:
        kept: [rows, columns] float, 0..1, as ``VideoTokens.kept``.
        merged: [rows, columns] bool, whether each was merged into another.
        tint: [3] uint8, colour of the grid's segment.
        height, width: pixels of the frames.
    """

    def __init__(self, kept: np.ndarray, merged: np.ndarray, tint: np.ndarray, height: int, width: int):
        row = np.arange(height) * kept.shape[0] // height
        column = np.arange(width) * kept.shape[1] // width
        self._kept = kept[np.ix_(row, column)][:, :, None]
        tinted = (merged * TINT)[np.ix_(row, column)][:, :, None]
        self._dim = (1 - self._kept) * (1 - tinted) * DIM
        self._colour = (1 - self._kept) * tinted * tint

    def blend(self, frame: np.ndarray) -> np.ndarray:
        """The frame [height, width, 3] uint8 under the overlay; kept cells are those of ``frame`` bit for bit."""
        grey = (frame @ LUMA)[:, :, None]
        return (self._kept * frame + self._dim * grey + self._colour + 0.5).astype(np.uint8)
