"""A stream's video tokens as a table, one grid a row, in a coarse space in which they are compared cheaply."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .base import Rows
from .stream import Merge, TokenStream


@dataclass(frozen=True)
class Grids:
    """Video tokens by grid; the table is as wide as the largest grid.

    Attributes:
        index: [G, P] int64, places in ``rows.video``; V, the number of video tokens, where a grid has fewer.
        point: [G, P, k] float32, the tokens in the coarse space, centred; 0 where there is none.
        place: [G, P, 2] float32, where in the picture each token is: down and right, 0..1 of its sides.
        start_s: [G] float32, when each grid starts, seconds.
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
        """``values`` [G, P] in the order of ``rows.video`` [V]."""
        return values.new_zeros(self.total + 1).scatter_(0, self.index.flatten(), values.flatten())[:-1]


def table(stream: TokenStream, rows: Rows, point: Tensor) -> Grids:
    """The table of ``stream``'s video tokens, at ``point`` [V, k], which stand in ``rows.video``; V > 0."""
    grid, total, device = stream.grid[rows.video], len(rows.video), point.device
    place = torch.arange(total, device=device)
    order = torch.argsort(grid, stable=True)  # streams come in this order already; nothing here relies on it
    rank = torch.empty_like(place).scatter_(0, order, place)
    first = torch.full((rows.grids,), total, device=device).scatter_reduce(0, grid, rank, "amin")
    index = torch.full((rows.grids, rows.cells), total, device=device)
    index[grid, rank - first[grid]] = place
    start = torch.zeros(rows.grids, device=device).scatter_reduce(0, grid, stream.time_s[rows.video], "amax")
    where = torch.stack([stream.row[rows.video], stream.column[rows.video]], dim=1).to(torch.float32)
    where = where / (where.amax(0) + 1)
    padded = [torch.cat([values, values.new_zeros(1, values.shape[1])])[index] for values in (point, where)]
    return Grids(index, *padded, start, total)


def similarity(grids: Grids) -> Tensor:
    """Of each grid with the next: the mean cosine of the tokens at the same place [G - 1]."""
    unit = normalize(grids.point, dim=-1)
    both = grids.mask[1:] & grids.mask[:-1]
    return ((unit[1:] * unit[:-1]).sum(-1) * both).sum(1) / both.sum(1).clamp_min(1)


def merge_in_time(grids: Grids, rows: Rows, kept: Tensor, run: Tensor, dropped: int, similar: float) -> Merge:
    """Fold each dropped token into the last kept one at its place in its run of grids, if they are similar.

    Args:
        kept: [G, P] bool.
        run: [G] int64, never falling; tokens of different runs do not merge.
        dropped: how many tokens are not kept. Known, so that the device need not be asked.
        similar: least cosine between two tokens that merge.
    """
    grid = torch.arange(len(run), device=run.device)[:, None]
    last = torch.where(kept, grid, -1).cummax(0).values
    taker = last.clamp_min(0)
    begin = torch.where(torch.cat([run.new_ones(1, dtype=torch.bool), run[1:] != run[:-1]]), grid[:, 0], 0).cummax(0).values
    unit = normalize(grids.point, dim=-1)
    alike = (unit * unit.gather(0, taker[:, :, None].expand_as(unit))).sum(-1) >= similar
    merges = alike & (last >= begin[:, None]) & grids.mask
    into = grids.flat(grids.index.gather(0, taker))
    weight = grids.flat(merges.to(torch.float32))
    out = torch.argsort(grids.flat(kept).to(torch.uint8), stable=True)[:dropped]
    # A token that merges with nothing goes, with weight 0, into any kept one.
    into = torch.where(weight[out] > 0, into[out], grids.flat(kept).to(torch.uint8).argmax())
    return Merge(rows.video[out], rows.video[into], weight[out])
