"""Shares with intervals, where the questions on one clip hang together."""

from __future__ import annotations

import numpy as np

RESAMPLES = 2000


def interval(value: np.ndarray, clip: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of ``value`` [n], by drawing clips anew (bootstrap; ``clip`` [n] int, 0 .. clips - 1).

    With ``value`` the difference of two conditions, question by question, the interval is paired.
    """
    total, size = np.bincount(clip, value), np.bincount(clip)
    drawn = np.random.default_rng(0).integers(len(total), size=(RESAMPLES, len(total)))
    low, high = np.percentile(total[drawn].sum(1) / size[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)
