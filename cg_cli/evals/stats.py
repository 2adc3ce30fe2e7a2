"""Confidence intervals of shares, where questions are clustered by clip."""

from __future__ import annotations

import numpy as np

RESAMPLES = 2000


def interval(value: np.ndarray, clip: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of ``value`` [n]: a bootstrap over clips (``clip`` [n] int, 0 .. clips - 1).

    With ``value`` the difference of two conditions, question by question, the interval is paired.
    """
    total, size = np.bincount(clip, value), np.bincount(clip)
    resampled = np.random.default_rng(0).integers(len(total), size=(RESAMPLES, len(total)))
    low, high = np.percentile(total[resampled].sum(1) / size[resampled].sum(1), [2.5, 97.5])
    return float(low), float(high)
