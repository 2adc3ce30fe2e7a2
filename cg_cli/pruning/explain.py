"""Why a pruner kept what it kept: for pictures and pages, computed on demand."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

KEPT, DROPPED = "kept", "dropped"  # the reasons of a pruner that has no others


@dataclass(frozen=True)
class Explanation:
    """Scores and reasons of each row of a stream.

    Attributes:
        reason: [L] int64, places in ``reasons``, for kept and dropped rows alike.
        reasons: a few words each.
        score: [L] float32, by which tokens are ranked, the highest kept first; NaN where there is none. None if the
            method has none.
        recoverable: [G] float32, 0..1, recoverability of each grid's picture from sound; None if the method has none.
        segment: [G] int64, never falling, the segment of similar grids that each belongs to; None if the method has
            none.
    """

    reason: Tensor
    reasons: tuple[str, ...]
    score: Tensor | None = None
    recoverable: Tensor | None = None
    segment: Tensor | None = None
