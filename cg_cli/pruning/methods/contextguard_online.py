"""ContextGuard for streams: each window is decided when it ends, and never again (arXiv 2605.11605, online variant).

The state carried from window to window does not grow: the last grid, sums for the mean token and for the mean and
spread of the depth scores, and how many tokens were read and kept. A prefix of a video gives a prefix of the selection.
All windows are decided at once here, each from its own and earlier tokens only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from cg_cli.pruning.budget import Budget, split, split_each
from cg_cli.pruning.methods.contextguard import Allocation, ContextGuard
from cg_cli.pruning.ops.grids import Grids
from cg_cli.pruning.ops.indexing import bincount, evenly_spaced, mask_to_index
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.ops.windows import window_number
from cg_cli.pruning.stream import TokenStream

DECISION_S = 2.0  # seconds of a window; Qwen2.5-Omni interleaves sound and picture in chunks of this length


@dataclass(frozen=True)
class ContextGuardOnline(ContextGuard):
    """Causal ContextGuard: left-only depth scores, a budget for each window, merging inside a window.

    ValueError for ``prediction="ridge"``, which needs the whole clip.
    """

    name: ClassVar[str] = "contextguard-online"
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.prediction == "ridge":
            raise ValueError("prediction 'ridge' learns from the whole clip, which a stream does not have yet")

    def _allocate(self, stream: TokenStream, rows: Rows, budget: Budget) -> WindowAllocation:
        """After every window as many tokens are kept as the budget of the stream up to there allows."""
        size = len(stream)  # of the table of windows: no less than their number, known to the host
        window = window_number(stream.time_s, self._decision_s).clamp_max(size - 1)
        grid_window = torch.full((rows.grids,), size, device=window.device)
        grid_window = grid_window.scatter_reduce(0, stream.grid[rows.video], window[rows.video], "amin")
        grid_window = grid_window.clamp_max(size - 1)
        video, audio = (bincount(window[index], size).cumsum(0) for index in (rows.video, rows.audio))
        if budget.keep and split(len(rows.video), len(rows.audio), rows.grids, budget.keep) == budget:
            video_kept, audio_kept = split_each(video, audio, bincount(grid_window, size).cumsum(0), budget.keep)
        else:
            video_kept, audio_kept = (
                (count * total / count[-1].clamp_min(1) + 0.5).long()
                for count, total in ((video, budget.video), (audio, budget.audio))
            )
        kept = torch.stack([_attainable(video_kept, video, budget.video), _attainable(audio_kept, audio, budget.audio)])
        quota = kept.diff(dim=1, prepend=torch.zeros_like(kept[:, :1]))
        return WindowAllocation(rows, budget, window, grid_window, quota[0], quota[1])

    def _centred(self, grids: Grids) -> Grids:
        """``grids`` less the mean point of the clip up to each grid."""
        mean = grids.point.sum(1).cumsum(0) / grids.mask.sum(1).cumsum(0).clamp_min(1)[:, None]
        return replace(grids, point=(grids.point - mean[:, None]) * grids.mask[:, :, None])

    @property
    def _decision_s(self) -> float:
        """Length of a decision window: whole windows of the predictor, so that no decision waits for later sound."""
        return self._window_s * max(1, round(DECISION_S / self._window_s))


@dataclass(frozen=True)
class WindowAllocation(Allocation):
    """A budget for each decision window.

    Attributes:
        window, grid_window: [L] and [G] int64, the window of each row and of each grid.
        video_quota, audio_quota: [W] int64, how many tokens each window keeps; W is no less than the number of windows.
    """

    window: Tensor
    grid_window: Tensor
    video_quota: Tensor
    audio_quota: Tensor

    def per_grid(self) -> Tensor:
        grids = bincount(self.grid_window, len(self.video_quota))
        return self.video_quota[self.grid_window] / grids[self.grid_window]

    def best(self, score: Tensor) -> Tensor:
        window = self.window[self.rows.video]
        by_score = torch.sort(score, descending=True, stable=True).indices
        order = by_score[torch.argsort(window[by_score], stable=True)]
        window = window[order]
        size = bincount(window, len(self.video_quota))
        rank = torch.arange(len(order), device=order.device) - (size.cumsum(0) - size)[window]
        kept = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        kept.scatter_(0, order, rank < self.video_quota[window])
        return mask_to_index(kept, self.budget.video)

    def runs(self, segment: Tensor) -> Tensor:
        return segment + self.grid_window  # both never fall, so the sum changes where either does

    def _spaced_audio(self) -> tuple[Tensor, Tensor]:
        window = self.window[self.rows.audio]
        size = bincount(window, len(self.audio_quota))
        rank = torch.arange(1, len(window) + 1, device=window.device) - (size.cumsum(0) - size)[window]
        kept = evenly_spaced(rank, self.audio_quota[window], size[window])
        return mask_to_index(kept, self.budget.audio), window


def _attainable(kept: Tensor, total: Tensor, budget: int) -> Tensor:
    """``kept`` [n], the tokens to keep of ``total`` [n] up to each window, made attainable: never falling, never more
    than ``budget``, and never so few that ``budget`` is out of reach. In a stream with sound and picture throughout it
    is ``kept`` itself."""
    monotone = kept.clamp_max(budget).flip(0).cummin(0).values.flip(0)
    return torch.maximum(monotone, budget - (total[-1] - total))
