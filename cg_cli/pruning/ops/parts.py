"""Quotas: how many tokens each part of a video keeps, a grid or a window, and which of a grid's."""

from __future__ import annotations

import torch
from torch import Tensor

from cg_cli.pruning.budget import wide
from cg_cli.pruning.ops.grids import Grids
from cg_cli.pruning.ops.indexing import mask_to_index
from cg_cli.pruning.ops.windows import CHUNK_S, window_index


def apportion(weight: Tensor, capacity: Tensor, total: int | Tensor) -> Tensor:
    """Share out ``total``: whole numbers [n] int64 with exactly this sum, in proportion to ``weight`` within
    ``capacity``.

    What exceeds the capacity of a part goes to the others in proportion, and fractions by largest remainder, to earlier
    parts among equals. A part of weight 0 gets what no other has room for. Never waits for the device.

    Args:
        weight: [n], >= 0, of any scale.
        capacity: [n] int64, tokens that there are in each part.
        total: 0 <= total <= sum of ``capacity``.
    """
    weight, capacity = wide(weight).clamp_min(1e-9), wide(capacity)
    order = torch.argsort(capacity / weight, stable=True)  # the parts that fill up first
    full = capacity[order].cumsum(0) - capacity[order]
    rest = weight[order].flip(0).cumsum(0).flip(0)
    # Were the first k parts full, the others would get this times their weight: it grows in k while the next is full.
    factor = ((total - full) / rest).amax()
    share = torch.minimum(weight * factor, capacity)
    whole = share.floor()
    by_rest = torch.argsort(torch.argsort(share - whole, descending=True, stable=True))
    return (whole + (by_rest < total - whole.sum())).long()


def ranks(grids: Grids, score: Tensor) -> Tensor:
    """Rank [G, P] int64 of each token in its grid by ``score`` [V]: the highest is 0, earlier ones first among equals,
    places without a token last."""
    by_cell = torch.cat([score, score.new_full((1,), -torch.inf)])[grids.index]
    return torch.argsort(torch.argsort(by_cell, dim=1, descending=True, stable=True), dim=1)


def best(grids: Grids, score: Tensor, quota: Tensor, count: int) -> Tensor:
    """Places [count] int64, ascending, of the ``quota`` [G] tokens of each grid with the highest ``score`` [V].

    ``count`` is the sum of ``quota``, no grid's of which exceeds its tokens.
    """
    return mask_to_index(grids.flat(ranks(grids, score) < quota[:, None]), count)


def chunks(grids: Grids) -> tuple[Tensor, Tensor]:
    """Number of the 2 s chunk of each grid [G] int64, never falling, and the grid's number in its chunk [G] int64, from
    0."""
    chunk = window_index(grids.start_s.cummax(0).values, CHUNK_S)  # a grid without tokens has no time
    return chunk, torch.arange(len(chunk), device=chunk.device) - torch.searchsorted(chunk, chunk)
