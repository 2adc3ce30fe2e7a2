"""ContextGuard for streams: each window is decided when it ends, and never again (arXiv 2605.11605, online variant).

The state carried from window to window does not grow: the last grid, sums for the mean token and for the mean and
spread of the depth scores, and how many tokens were read and kept. A prefix of a video, of whole windows, gives a
prefix of the selection, whatever follows. All windows are decided at once here, each from its own and earlier tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from cg_cli.pruning.budget import Budget, split
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

    Keeps exactly as many tokens as the budget has in total. Where sound or picture starts late or ends early, other
    numbers of each may be kept than the budget's, which are made for the whole clip: a window that is over gives no
    more audio when later ones turn out to be silent. Of a budget that was not made of a keep ratio, both numbers are
    kept, in proportion to the tokens of each window; such a selection depends on the whole clip.

    ValueError for ``prediction="ridge"``, which needs the whole clip.
    """

    name: ClassVar[str] = "contextguard-online"
    causal: ClassVar[bool] = True
    can_fold: ClassVar[bool] = False  # quotas are made of all tokens of a window

    def __post_init__(self) -> None:
        if self.prediction == "ridge":
            raise ValueError("prediction 'ridge' learns from the whole clip, which a stream does not have yet")

    def _allocate(self, stream: TokenStream, rows: Rows, budget: Budget) -> WindowAllocation:
        """After every window as many tokens are kept as the budget of the stream up to there allows."""
        size = len(stream)  # of the table of windows: no less than their number, known to the host
        window = window_number(stream.time_s, self._decision_s).clamp_max(size - 1)
        grid_window = torch.full((rows.grids,), size - 1, device=window.device)
        grid_window = grid_window.scatter_reduce(0, stream.grid[rows.video], window[rows.video], "amin")
        grid_window = grid_window.flip(0).cummin(0).values.flip(0)  # a grid without tokens goes with the next
        counts = [bincount(number, size) for number in (window[rows.video], window[rows.audio], grid_window)]
        if budget.keep and split(len(rows.video), len(rows.audio), rows.grids, budget.keep) == budget:
            video_counts, audio_counts, grid_counts = torch.stack(counts).tolist()
            quotas = causal_quotas(video_counts, audio_counts, grid_counts, budget.keep)
            budget = Budget(sum(quotas[0]), sum(quotas[1]), budget.keep)
            video, audio = torch.tensor(quotas, device=window.device)
        else:
            kept = (
                (count.cumsum(0) * total / count.sum().clamp_min(1) + 0.5).long()
                for count, total in zip(counts, (budget.video, budget.audio))
            )
            video, audio = (each.diff(prepend=each.new_zeros(1)) for each in kept)
        return WindowAllocation(rows, budget, window, grid_window, video, audio)

    def _centred(self, grids: Grids) -> Grids:
        """``grids`` less the mean point of the clip up to each grid."""
        mean = grids.point.sum(1).cumsum(0) / grids.mask.sum(1).cumsum(0).clamp_min(1)[:, None]
        return replace(grids, point=(grids.point - mean[:, None]) * grids.mask[:, :, None])

    def _in_time(self, stream: TokenStream, rows: Rows, grids: Grids, grid: Tensor) -> Tensor:
        """Sound of a later window comes too late: a grid may be shown for longer than its window takes."""
        heard, shown = (
            window_number(time, self._decision_s) for time in (stream.time_s[rows.audio], grids.start_s[grid])
        )
        return heard <= shown

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


def causal_quotas(
    video: Sequence[int], audio: Sequence[int], grids: Sequence[int], keep: float
) -> tuple[list[int], list[int]]:
    """How many video and audio tokens each window keeps, by its own counts [W] and those of earlier windows only.

    After every window as many are kept as ``split`` keeps of the stream up to there: kept_count(n) grows by no more
    than n does, so that each window has room for its share. Video and audio divide it as ``split`` says, as nearly as
    the window's tokens allow; what the window cannot make up for is left to the next ones.
    """
    seen_video = seen_audio = seen_grids = kept = kept_video = 0
    video_quota, audio_quota = [0] * len(video), [0] * len(video)
    for window, (new_video, new_audio, new_grids) in enumerate(zip(video, audio, grids, strict=True)):
        if new_video or new_audio or new_grids:  # most of the table is beyond the end of the clip
            seen_video, seen_audio, seen_grids = seen_video + new_video, seen_audio + new_audio, seen_grids + new_grids
            target = split(seen_video, seen_audio, seen_grids, keep)
            count = target.count - kept
            now = min(max(target.video - kept_video, count - new_audio, 0), new_video, count)
            kept, kept_video = target.count, kept_video + now
            video_quota[window], audio_quota[window] = now, count - now
    return video_quota, audio_quota
