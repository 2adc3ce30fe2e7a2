"""Why a pruner kept what it kept: for pictures and pages, computed when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

KEPT, DROPPED = "kept", "dropped"  # where a pruner says no more than that


@dataclass(frozen=True)
class Explanation:
    """What a pruner thought of each row of a stream.

    Attributes:
        reason: [L] int64, places in ``reasons``, for kept and dropped rows alike.
        reasons: a few words each.
        score: [L] float32, by which tokens are ranked, the highest kept first; NaN where there is none. None if the
            method has none.
        recoverable: [G] float32, 0..1, how far sound tells each grid's picture; None if the method does not ask.
        segment: [G] int64, never falling, the run of like grids that each belongs to; None if the method knows none.
    """

    reason: Tensor
    reasons: tuple[str, ...]
    score: Tensor | None = None
    recoverable: Tensor | None = None
    segment: Tensor | None = None
