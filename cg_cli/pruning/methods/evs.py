"""Efficient Video Sampling: keep what changes over time (arXiv 2510.14624; vLLM's ``--video-pruning-rate``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cg_cli.pruning.base import ModalityPruner
from cg_cli.pruning.ops.indexing import evenly_spaced_mask
from cg_cli.pruning.ops.pieces import pieces, unit
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.stream import TokenStream


@dataclass(frozen=True)
class Evs(ModalityPruner):
    """Keep the video tokens that differ most, by cosine, from the token at the same place one grid earlier.

    The first grid is kept before anything else, then the largest changes of the whole clip, earlier tokens first among
    equals. The paper stops at one grid; a budget below that keeps evenly spaced tokens of the first grid. Unlike vLLM,
    kept tokens keep their positions. Audio, which EVS does not treat, is thinned evenly.
    """

    name: ClassVar[str] = "evs"
    reasons: ClassVar[tuple[str, str]] = ("differs from the grid before", "like the grid before")

    def pick_video(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        video = rows.video
        score = change(stream.embeddings, video, stream.grid[video], stream.row[video], stream.column[video])
        first = score.isinf()
        score = score.masked_fill(
            first & ~evenly_spaced_mask(first, count), -1.0
        )  # below every change, which is in 0..2
        return torch.sort(score, descending=True, stable=True).indices[:count]


def change(embeddings: Tensor, index: Tensor, grid: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """How much each video token differs from its predecessor: the token of the grid before at the same place.

    Args:
        embeddings: [L, D].
        index: [V] int64, the rows that the video tokens are, V > 0.
        grid, row, column: [V] int64.

    Returns:
        [V] float32, ``1 - cosine`` in 0..2; infinite for a token without predecessor, that is for the first grid.
    """
    place = row * (column.max() + 1) + column
    order = torch.argsort(place * (grid.max() + 1) + grid)  # by place, then by time
    by_time = index[order]
    # |a - b|^2 / 2 is 1 - cosine for unit vectors, but exactly 0 for equal ones, so that still places tie.
    steps = [
        unit(embeddings, later).sub_(unit(embeddings, earlier)).square_().sum(-1) / 2
        for earlier, later in zip(*(pieces(rows, embeddings.shape[1]) for rows in (by_time[:-1], by_time[1:])))
    ]
    step = torch.cat(steps)
    same_place = place[order][1:] == place[order][:-1]
    by_place = torch.cat([step.new_full((1,), torch.inf), step.masked_fill(~same_place, torch.inf)])
    return torch.empty_like(by_place).scatter_(0, order, by_place)
