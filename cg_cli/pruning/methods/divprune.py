"""DivPrune: keep the tokens that are farthest from each other (arXiv 2503.02175)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from cg_cli.pruning.base import ModalityPruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.ops.farthest import insertion_radius
from cg_cli.pruning.ops.grids import PAIRS, layout
from cg_cli.pruning.ops.indexing import mask_to_index
from cg_cli.pruning.ops.parts import apportion
from cg_cli.pruning.ops.pieces import pieces, unit
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.stream import TokenStream


@dataclass(frozen=True)
class DivPrune(ModalityPruner):
    """Keep, window by window, the video tokens whose smallest distance to each other (1 - cosine) is largest, greedily.

    The first is the one farthest from its nearest neighbour; each next one is the one farthest from all that were
    picked, earlier ones first among equals.

    Where it differs: the paper solves one problem an image, which over a whole video is O(k n^2); here, as in SEATS
    (arXiv 2605.20035), each window of grids is one, all windows side by side, with its share of the budget by its
    tokens. Audio is thinned evenly.

    Args:
        window: grids in a window, >= 1. ValueError below. The default is SEATS's, 2 s at 2 frames a second.
    """

    name: ClassVar[str] = "divprune"
    reasons: ClassVar[tuple[str, str]] = ("far from what is kept", "near to what is kept")

    window: int = 2

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1 grid, not {self.window}")

    def flops(self, budget: Budget, audio: int, video: int, grids: int, width: int) -> int:
        if not 0 < budget.video < video:
            return 0
        window = min(self.window, grids)
        return 2 * width * -(-grids // window) * (window * -(-video // grids)) ** 2

    def pick_video(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        grids = layout(stream, rows)
        window = min(self.window, rows.grids)
        index = pad(grids.index, (0, 0, 0, -rows.grids % window), value=grids.total).view(-1, window * rows.cells)
        return far_apart(stream.embeddings, rows.video, index, count)


def far_apart(embeddings: Tensor, rows: Tensor, index: Tensor, count: int) -> Tensor:
    """Places [count] int64, ascending, of the tokens that are farthest from each other in their windows, each of which
    keeps in proportion to its tokens.

    Args:
        embeddings: [L, D].
        rows: [n] int64, the rows that the tokens are.
        index: [W, size] int64, places in ``rows`` of the tokens of each window, ``n`` where it has fewer; every token
            is in one window.
        count: 0 < count < n.
    """
    total, size = len(rows), index.shape[1]
    mask = index < total
    capacity = mask.sum(1)
    quota = apportion(capacity, capacity, count)
    most = min(size, -(-count * size // total))  # no quota is larger; which the largest is, only the device knows
    row = torch.cat([rows, rows[:1]])[index]
    step = max(1, PAIRS // size**2)
    together = zip(row.split(step), mask.split(step), strict=True)
    order = torch.cat([diverse(distances(embeddings, some), some_mask, most) for some, some_mask in together])
    kept = torch.zeros(total + 1, dtype=torch.bool, device=index.device)
    kept.index_copy_(0, index.flatten(), (order < quota[:, None]).flatten())
    return mask_to_index(kept[:-1], count)


def distances(embeddings: Tensor, row: Tensor) -> Tensor:
    """1 - cosine of the tokens of each window with each other [W, n, n] float32; they are the rows ``row`` [W, n] of
    ``embeddings`` [L, D]."""
    windows = (unit(embeddings, some) for some in pieces(row, row.shape[1] * embeddings.shape[1]))
    return torch.cat([1 - window @ window.mT for window in windows])


def diverse(distance: Tensor, mask: Tensor, picks: int) -> Tensor:
    """Farthest point sampling: the order in which tokens are picked, in each window on its own, the first being the one
    farthest from its nearest neighbour.

    Args:
        distance: [W, n, n] float32, of the tokens with each other; where ``mask`` [W, n] bool is False there is none.
        picks: how many are picked in each window; one with fewer tokens picks all of them.

    Returns:
        [W, n] int64, from 0; tokens that are not picked come after those that are.
    """
    diagonal = torch.eye(distance.shape[1], dtype=torch.bool, device=distance.device)
    nearest = distance.masked_fill(diagonal | ~mask[:, None], torch.inf).amin(-1)
    first = nearest.masked_fill(~mask, -torch.inf).argmax(1)
    radius = insertion_radius(distance, mask, first, picks)
    return torch.argsort(torch.argsort(radius, dim=1, descending=True, stable=True), dim=1)
