"""For cases worked out by hand and for references by loops: rows at angles, what was kept, and plain Python
arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.stream import AUDIO, VIDEO, Selection, TokenStream, apply

Cell = tuple[int, int, int]  # grid, row, column


def at_angles(grids: list[list[float]]) -> Tensor:
    """Unit rows [tokens, 2] at these angles in degrees, one list a grid."""
    flat = torch.tensor([angle for grid in grids for angle in grid], dtype=torch.float32).deg2rad()
    return torch.stack([flat.cos(), flat.sin()], dim=1)


def kept_rows(pruner: Pruner, stream: TokenStream, count: int) -> list[int]:
    """Row numbers of the ``count`` video tokens kept of ``stream``; all of its audio stays."""
    chosen = pruner.select(stream, Budget(count, int((stream.modality == AUDIO).sum()))).indices.tolist()
    return [i for i in chosen if stream.modality[i] == VIDEO]


def kept_video(pruner: Pruner, stream: TokenStream, count: int) -> list[tuple[int, int]]:
    """(grid, column) of the ``count`` video tokens kept of ``stream``, whose grids are one row high; all of its audio
    stays."""
    return [(int(stream.grid[i]), int(stream.column[i])) for i in kept_rows(pruner, stream, count)]


def uneven(stream: TokenStream, lost: float = 0.3, seed: int = 0) -> TokenStream:
    """``stream`` without some of its video tokens: grids of unequal size, whose places have no token in some of
    them."""
    stays = torch.rand(len(stream), generator=torch.Generator().manual_seed(seed)) >= lost
    return apply(stream, Selection((stays | (stream.modality != VIDEO)).nonzero()[:, 0]))


def tokens(stream: TokenStream, modality: int = VIDEO) -> dict[int, list[float]]:
    """Row number of each token of a modality: its embedding."""
    rows = (stream.modality == modality).nonzero()[:, 0].tolist()
    return dict(zip(rows, stream.embeddings[rows].double().tolist(), strict=True))


def cells(stream: TokenStream) -> dict[int, Cell]:
    """Row number of each video token: where it is."""
    where = zip(stream.grid.tolist(), stream.row.tolist(), stream.column.tolist(), strict=True)
    return {i: cell for i, cell in enumerate(where) if cell[0] >= 0}


def by_grid(stream: TokenStream) -> dict[int, list[int]]:
    """Grid: row numbers of its tokens."""
    out: dict[int, list[int]] = {grid: [] for grid in range(int(stream.grid.max()) + 1)}
    for i, (grid, _, _) in cells(stream).items():
        out[grid].append(i)
    return out


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def mean(rows: Iterable[list[float]]) -> list[float]:
    rows = list(rows)
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def top(scores: dict[int, float], count: int) -> set[int]:
    """The ``count`` keys with the highest score, lower keys first among equals."""
    return set(sorted(scores, key=lambda i: (-scores[i], i))[:count])


def even(items: list[int], count: int) -> list[int]:
    """``count`` evenly spaced ones of ``items``: those at which the line from 1/2 to ``count`` + 1/2 reaches a whole
    number."""
    steps = [math.floor(count * i / len(items) + 0.5) for i in range(len(items) + 1)] if items else []
    return [item for item, before, after in zip(items, steps, steps[1:], strict=False) if after > before]


def shared(weight: list[float], capacity: list[int], total: int) -> list[int]:
    """Parts of ``total`` in proportion to ``weight``: fill up those that overflow, one round after the other, then the
    largest remainders."""
    share, unfilled, left = [0.0] * len(weight), set(range(len(weight))), float(total)
    while unfilled:
        factor = left / sum(weight[i] for i in unfilled)
        full = {i for i in unfilled if weight[i] * factor >= capacity[i]}
        for i in full or unfilled:
            share[i] = capacity[i] if full else weight[i] * factor
        left -= sum(capacity[i] for i in full)
        unfilled = unfilled - full if full else set()
    whole = [math.floor(x + 1e-9) for x in share]
    for i in sorted(range(len(weight)), key=lambda i: (-round(share[i] - whole[i], 9), i))[: total - sum(whole)]:
        whole[i] += 1
    return whole
