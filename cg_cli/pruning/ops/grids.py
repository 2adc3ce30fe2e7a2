"""The video tokens of a stream as a table, one grid a row: cosine between grids, and token merging."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cg_cli.pruning.ops.indexing import complement
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.stream import Merge, TokenStream

PAIRS = 1 << 24  # tokens compared with each other at a time, to bound memory


@dataclass(frozen=True)
class Grids:
    """Video tokens by grid; the table is as wide as the largest grid.

    Attributes:
        index: [G, P] int64, places in ``rows.video``; V, the number of video tokens, where a grid has fewer.
        point: [G, P, k] float32, the tokens in the coarse space, centred; 0 where there is none.
        place: [G, P, 2] float32, where in the picture each token is: down and right, 0..1 of its sides.
        start_s: [G] float32, when each grid starts, seconds; 0 for one without tokens.
        total: V.
    """

    index: Tensor
    point: Tensor
    place: Tensor
    start_s: Tensor
    total: int

    @property
    def mask(self) -> Tensor:
        """[G, P] bool, True for a token."""
        return self.index < self.total

    def mean(self) -> Tensor:
        """Mean point of each grid [G, k]."""
        return self.point.sum(1) / self.mask.sum(1, keepdim=True).clamp_min(1)

    def flat(self, values: Tensor) -> Tensor:
        """``values`` [G, P, ...] in the order of ``rows.video`` [V, ...]."""
        out = values.new_zeros(self.total + 1, *values.shape[2:])
        return out.index_copy_(0, self.index.flatten(), values.flatten(0, 1))[:-1]


def table(stream: TokenStream, rows: Rows, point: Tensor) -> Grids:
    """The table of ``stream``'s video tokens; ``point`` [V, k] are these in the order of ``rows.video``, V > 0."""
    grid, total, device = stream.grid[rows.video], len(rows.video), point.device
    place = torch.arange(total, device=device)
    order = torch.argsort(grid, stable=True)  # streams come in this order already; nothing here relies on it
    rank = torch.empty_like(place).scatter_(0, order, place)
    first = torch.full((rows.grids,), total, device=device).scatter_reduce(0, grid, rank, "amin")
    index = torch.full((rows.grids, rows.cells), total, device=device)
    index[grid, rank - first[grid]] = place
    start = torch.zeros(rows.grids, device=device).scatter_reduce(0, grid, stream.time_s[rows.video], "amax")
    cell = torch.stack([stream.row[rows.video], stream.column[rows.video]], dim=1).to(torch.float32)
    cell = cell / (cell.amax(0) + 1)
    padded_point, padded_cell = (torch.cat([x, x.new_zeros(1, x.shape[1])])[index] for x in (point, cell))
    return Grids(index, padded_point, padded_cell, start, total)


def similarity(grids: Grids) -> Tensor:
    """Of each grid with the next: the mean cosine of the tokens at the same place [G - 1]."""
    unit = normalize(grids.point, dim=-1)
    both = grids.mask[1:] & grids.mask[:-1]
    return ((unit[1:] * unit[:-1]).sum(-1) * both).sum(1) / both.sum(1).clamp_min(1)


def merge_nearest(grids: Grids, rows: Rows, kept: Tensor, run: Tensor) -> Merge:
    """Fold each dropped token into the nearest kept one of its run of grids, by distance in the coarse space; where
    none of its run is kept, it is lost (weight 0).

    Args:
        kept: [K] int64, places in ``rows.video``, K > 0.
        run: [G] int64; tokens of different runs do not merge.
    """
    point = grids.flat(grids.point)
    run = grids.flat(run[:, None].expand_as(grids.index))
    dropped = complement(grids.total, kept)
    into, merged = [], []
    for piece in dropped.split(max(1, PAIRS // len(kept))):
        # Squared distance, less the dropped token's own squared norm.
        distance = point[kept].square().sum(-1) - 2 * point[piece] @ point[kept].T
        best = distance.masked_fill(run[piece][:, None] != run[kept], torch.inf).min(1)
        into.append(kept[best.indices])
        merged.append(best.values < torch.inf)
    return Merge(rows.video[dropped], rows.video[torch.cat(into)], torch.cat(merged).to(torch.float32))
