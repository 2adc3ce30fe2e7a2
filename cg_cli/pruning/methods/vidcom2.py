"""VidCom2: frames that stand out keep more, and of each frame the tokens that stand out (arXiv 2505.14454)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cg_cli.pruning.base import ModalityPruner
from cg_cli.pruning.ops.grids import by_grid, layout
from cg_cli.pruning.ops.parts import apportion, best
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.stream import TokenStream

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the Gaussians, in squared distance of unit vectors
PASSES = 16  # over the channels, some at a time
TEMPERATURE = 0.01  # of the softmax over the frames' uniqueness


@dataclass(frozen=True)
class VidCom2(ModalityPruner):
    """Keep the video tokens least like the mean token of the video and of their grid, more of grids that are unlike the
    video.

    In the half of the channels that vary least, a token is like a centre as the sum of five Gaussians of its distance
    to it, at unit length. A grid's share of the budget is 1 + softmax(-its tokens' mean likeness to the video / 0.01),
    less the softmax's mean, at least one token and at most all. Settings are those of the public code.

    Where it differs: a frame is a grid here (two frames); each share is scaled and rounded so that the total is exact;
    with fewer tokens than grids, some grids keep none. Audio, which VidCom2 does not treat, is thinned evenly.
    """

    name: ClassVar[str] = "vidcom2"
    reasons: ClassVar[tuple[str, str]] = ("stands out from the video and its grid", "like the others")

    def pick_video(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        grids = layout(stream, rows)
        quiet = still_channels(stream.embeddings, rows.video)
        sums = by_grid(lambda point, mask: normalize(point[:, :, quiet], dim=-1).sum(1), stream, rows, grids)
        centres = (sums / grids.mask.sum(1, keepdim=True).clamp_min(1), sums.sum(0) / grids.total)

        def like(point: Tensor, mask: Tensor, frame: Tensor) -> Tensor:
            unit = normalize(point[:, :, quiet], dim=-1)
            return torch.stack([likeness(unit, frame[:, None]), likeness(unit, centres[1])], dim=2)

        like_frame, like_video = by_grid(like, stream, rows, grids, centres[0]).unbind(2)
        like_video = like_video * grids.mask
        capacity = grids.mask.sum(1)
        ideal = capacity * shares(like_video.sum(1) / capacity.clamp_min(1), capacity > 0) * count / grids.total
        least = ((capacity > 0) & (count >= (capacity > 0).sum())).long()
        quota = least + apportion((ideal - least).clamp_min(0), capacity - least, count - least.sum())
        return best(grids, -grids.flat(like_video + like_frame), quota, count)


def still_channels(embeddings: Tensor, index: Tensor) -> Tensor:
    """The half of the D channels [D / 2] int64 that vary least over the rows ``index`` [V] of ``embeddings`` [L, D]."""
    columns = embeddings.split(-(-embeddings.shape[1] // PASSES), 1)
    variance = torch.cat([some[index].to(torch.float32).var(0, correction=0) for some in columns])
    return torch.argsort(variance, stable=True)[: max(1, embeddings.shape[1] // 2)]


def likeness(point: Tensor, centre: Tensor) -> Tensor:
    """Sum of Gaussians [...] of the squared distance between ``point`` [..., k] and ``centre``, which broadcasts to
    it."""
    squared = (point - centre).square().sum(-1)
    return torch.stack([torch.exp(-squared / (2 * width)) for width in WIDTHS]).sum(0)


def shares(like_video: Tensor, filled: Tensor) -> Tensor:
    """Frame budgets [G], relative to the clip's keep ratio, from the mean likeness of each grid to the video [G]; their
    mean over the grids that have tokens, ``filled`` [G] bool, is 1."""
    unique = torch.softmax((-like_video / TEMPERATURE).masked_fill(~filled, -torch.inf), dim=0)
    return 1 + unique - 1 / filled.sum()
