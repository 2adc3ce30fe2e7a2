"""ContextGuard for streams: decides on each window when it ends, and never again (arXiv 2605.11605, online variant).

What it has to carry from window to window does not grow: the last grid, sums for the mean token and for the mean and
spread of the depth scores, and how many tokens came and stayed. A prefix of a video gives a prefix of the selection.
All windows are decided at once here, each from its own and earlier tokens only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from cg_cli.pruning.base import Rows, evenly_spaced, mask_to_index
from cg_cli.pruning.budget import Budget, split, split_each
from cg_cli.pruning.methods.contextguard import WINDOW_S, ContextGuard, merge_neighbours
from cg_cli.pruning.ops.grids import Grids
from cg_cli.pruning.stream import Merge, TokenStream

DECISION_S = 2.0  # seconds of a window; Qwen2.5-Omni interleaves sound and picture in chunks of this length


@dataclass(frozen=True)
class Shares:
    """The budget by decision window.

    Attributes:
        window, grid: [L] and [G] int64, the window of each row and of each grid.
        video, audio: [W] int64, how many tokens each window keeps; W is no less than any window's number.
    """

    window: Tensor
    grid: Tensor
    video: Tensor
    audio: Tensor


@dataclass(frozen=True)
class ContextGuardOnline(ContextGuard):
    """Causal ContextGuard: left-only depth scores, each window its own share of the budget, merging inside a window."""

    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.prediction == "ridge":
            raise ValueError("prediction 'ridge' learns from the whole clip, which a stream does not have yet")

    def _shares(self, stream: TokenStream, rows: Rows, budget: Budget) -> Shares:
        """After every window as many tokens are kept as the budget of the stream up to there allows."""
        window = (stream.time_s.clamp_min(0) / self._seconds() + 1e-4).long()
        size = len(stream)
        window = window.clamp_max(size - 1)
        start = torch.full((rows.grids,), size, device=window.device)
        start = start.scatter_reduce(0, stream.grid[rows.video], window[rows.video], "amin").clamp_max(size - 1)
        came = [_count(w, size).cumsum(0) for w in (window[rows.video], window[rows.audio], start)]
        totals = budget.video, budget.audio
        if budget.keep and split(len(rows.video), len(rows.audio), rows.grids, budget.keep) == budget:
            stay = split_each(*came, budget.keep)
        else:
            stay = [(count * total / count[-1].clamp_min(1) + 0.5).long() for count, total in zip(came, totals)]
        kept = torch.stack([_reach(*each) for each in zip(stay, came, totals)])
        return Shares(window, start, *kept.diff(dim=1, prepend=torch.zeros_like(kept[:, :1])))

    def _per_grid(self, rows: Rows, budget: Budget, shares: Shares) -> Tensor:
        return shares.video[shares.grid] / _count(shares.grid, len(shares.video))[shares.grid]

    def _best(self, rank: Tensor, rows: Rows, budget: Budget, shares: Shares) -> Tensor:
        window, quota = shares.window[rows.video], shares.video
        by_rank = torch.sort(rank, descending=True, stable=True).indices
        order = by_rank[torch.argsort(window[by_rank], stable=True)]
        held = _count(window, len(quota))
        place = torch.arange(len(order), device=order.device) - (held.cumsum(0) - held)[window[order]]
        stays = torch.zeros(len(order), dtype=torch.bool, device=order.device).scatter_(
            0, order, place < quota[window[order]]
        )
        return mask_to_index(stays, budget.video)

    def _runs(self, segment: Tensor, shares: Shares) -> Tensor:
        return segment + shares.grid  # both never fall, so the sum changes where either does

    def _audio(self, rows: Rows, budget: Budget, shares: Shares) -> tuple[Tensor, Merge | None]:
        total, count = len(rows.audio), budget.audio
        if not 0 < count < total:
            return rows.audio[:count], None
        window = shares.window[rows.audio]
        held = _count(window, len(shares.audio))
        rank = torch.arange(1, total + 1, device=window.device) - (held.cumsum(0) - held)[window]
        stays = evenly_spaced(rank, shares.audio[window], held[window])
        return merge_neighbours(rows.audio, mask_to_index(stays, count), window)

    def _centred(self, grids: Grids) -> Grids:
        total = grids.point.sum(1).cumsum(0) / grids.mask.sum(1).cumsum(0).clamp_min(1)[:, None]
        return replace(grids, point=(grids.point - total[:, None]) * grids.mask[:, :, None])

    def _seconds(self) -> float:
        """Length of a decision window: whole windows of the predictor, so that no decision waits for later sound."""
        window = self._space.card.window_s if self._space else WINDOW_S
        return window * max(1, round(DECISION_S / window))


def _count(number: Tensor, size: int) -> Tensor:
    """How often each of ``range(size)`` is in ``number``: [size] int64."""
    return torch.zeros(size, dtype=torch.int64, device=number.device).index_add_(0, number, torch.ones_like(number))


def _reach(stay: Tensor, came: Tensor, total: int) -> Tensor:
    """How many of the tokens that ``came`` [n] up to each window stay: ``stay`` [n], but never falling, never more than
    ``total``, and never so few that ``total`` gets out of reach. In a stream with sound and picture throughout it is
    ``stay`` itself."""
    falling = stay.clamp_max(total).flip(0).cummin(0).values.flip(0)
    return torch.maximum(falling, total - (came[-1] - came))
