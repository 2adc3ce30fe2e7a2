"""Nearest neighbours inside groups: each token is compared with those of its own group only, groups side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from cg_cli.pruning.ops.indexing import bincount
from cg_cli.pruning.ops.pieces import PIECE, unit

# Comparisons of all with all, whatever their group, that take less time than calls for each size of group do.
DENSE = {"cpu": 1 << 20, "cuda": 1 << 24}
TILE = 512  # tokens of one group that are compared at a time with as many others


def nearest(
    point: Tensor,
    query: Tensor,
    key: Tensor,
    query_group: Tensor,
    key_group: Tensor,
    groups: int,
    directions: bool = False,
) -> tuple[Tensor, Tensor]:
    """Of each query the nearest key of its group, the first among equals.

    Costs the sum over the groups of queries times keys, to within padding, and waits for the device once, to read the
    sizes of the groups; or, of few, queries times keys without a wait.

    Args:
        point: [n, k], any floating type; compared in float32.
        query, key: [q] and [m] int64, places in ``point``, m > 0.
        query_group, key_group: [q] and [m] int64 < ``groups``, the group of each.
        directions: compare these only, by cosine.

    Returns:
        Places in ``key`` [q] int64, 0 where a group has no key; and the squared distance less the query's own squared
        norm, or -2 times the cosine, [q] float32, infinite there.
    """
    take = partial(unit, point) if directions else lambda index: point[index].to(torch.float32)
    if max(len(query) * len(key), (len(query) + len(key)) * point.shape[1]) <= DENSE.get(point.device.type, 0):
        distance = _distance(take(query), take(key), directions)
        found = distance.masked_fill_(query_group[:, None] != key_group, torch.inf).min(-1)
        return found.indices, found.values
    numbers = (query_group, key_group)
    order = [torch.argsort(number, stable=True) for number in numbers]
    counts = torch.stack([bincount(number, groups) for number in numbers])
    first = counts.cumsum(1) - counts
    sizes = counts.tolist()
    place = torch.zeros(len(query) + 1, dtype=torch.int64, device=point.device)  # the last is of no query
    cost = torch.full((len(query) + 1,), torch.inf, device=point.device)
    for members in _alike(*sizes):
        most = [max(size[group] for group in members) for size in sizes]
        tile = [min(TILE, each) for each in most]
        side_by_side = max(1, PIECE // max(tile[0] * tile[1], sum(tile) * point.shape[1]))
        for some in torch.tensor(members, device=point.device).split(side_by_side):
            for start in range(0, most[0], TILE):
                at, real = _members(order[0], first[0, some], counts[0, some], start, tile[0])
                rows = take(query[at])
                best, where = cost.new_full(at.shape, torch.inf), torch.zeros_like(at)
                for start_key in range(0, most[1], TILE):
                    other, is_key = _members(order[1], first[1, some], counts[1, some], start_key, tile[1])
                    distance = _distance(rows, take(key[other]), directions)
                    found = distance.masked_fill_(~is_key[:, None], torch.inf).min(-1)
                    nearer = found.values < best
                    best = torch.where(nearer, found.values, best)
                    where = torch.where(nearer, other.gather(1, found.indices), where)
                at = at.masked_fill(~real, len(query)).flatten()
                place.index_copy_(0, at, where.flatten())
                cost.index_copy_(0, at, best.flatten())
    return place[:-1], cost[:-1]


def _distance(rows: Tensor, keys: Tensor, directions: bool) -> Tensor:
    """[..., q, m] of ``rows`` [..., q, k] to ``keys`` [..., m, k]: what ``nearest`` returns of the least."""
    distance = -2 * rows @ keys.mT
    return distance if directions else distance.add_(keys.square().sum(-1)[..., None, :])


def _alike(queries: Sequence[int], keys: Sequence[int]) -> list[list[int]]:
    """The groups that have both, those together whose numbers round up to the same powers of two."""
    together: dict[tuple[int, int], list[int]] = {}
    for group, (some, others) in enumerate(zip(queries, keys, strict=True)):
        if some and others:
            together.setdefault(((some - 1).bit_length(), (others - 1).bit_length()), []).append(group)
    return list(together.values())


def _members(order: Tensor, first: Tensor, count: Tensor, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Of each group the ``size`` members from its ``start``-th on [g, size] int64, and which of these are there, bool;
    its members stand in ``order`` from ``first`` [g] on, ``count`` [g] of them."""
    rank = torch.arange(start, start + size, device=order.device)
    real = rank < count[:, None]
    return order[torch.where(real, first[:, None] + rank, 0)], real
