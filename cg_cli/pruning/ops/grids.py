"""The video tokens of a stream as a table, one grid a row, and the cosine between grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cg_cli.pruning.ops.pieces import pieces
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.stream import TokenStream

PAIRS = 1 << 22  # tokens compared with each other at a time, to bound memory


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

    def centred(self) -> Grids:
        """The same less the clip's mean point."""
        mean = self.point.sum((0, 1)) / self.total
        return replace(self, point=(self.point - mean) * self.mask[:, :, None])

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


def layout(stream: TokenStream, rows: Rows) -> Grids:
    """As ``table``, without points: where the tokens themselves are too large for a table."""
    return table(stream, rows, stream.embeddings.new_empty((len(rows.video), 0), dtype=torch.float32))


def by_grid(function: Callable[..., Tensor], stream: TokenStream, rows: Rows, grids: Grids, *others: Tensor) -> Tensor:
    """``function`` of the tokens of each grid [G, P, ...], some grids at a time: it is given these [g, P, D] float32, 0
    where there is no token, their mask [g, P], and the same grids of ``others`` [G, ...]."""
    row = torch.cat([rows.video, rows.video[:1]])
    numbers = pieces(torch.arange(len(grids.index), device=row.device), rows.cells * stream.embeddings.shape[1])
    out = []
    for some in numbers:
        mask = grids.mask[some]
        point = stream.embeddings[row[grids.index[some]]].to(torch.float32)
        out.append(function(point.mul_(mask[:, :, None]), mask, *(other[some] for other in others)))
    return torch.cat(out)


def similarity(grids: Grids) -> Tensor:
    """Of each grid with the next: the mean cosine of the tokens at the same place [G - 1]."""
    unit = normalize(grids.point, dim=-1)
    both = grids.mask[1:] & grids.mask[:-1]
    return ((unit[1:] * unit[:-1]).sum(-1) * both).sum(1) / both.sum(1).clamp_min(1)
