"""DyCoke, temporal token merging: keep every fourth frame, and of the others what changed (arXiv 2411.15024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cg_cli.pruning.base import ModalityPruner
from cg_cli.pruning.methods.evs import change
from cg_cli.pruning.ops.grids import table
from cg_cli.pruning.ops.indexing import evenly_spaced, mask_to_index
from cg_cli.pruning.ops.parts import apportion, ranks
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.stream import TokenStream

GROUP = 4  # frames


@dataclass(frozen=True)
class DyCoke(ModalityPruner):
    """Keep every fourth grid whole, and of the three after it the tokens that differ most, by cosine, from the token at
    the same place: of the second and the fourth grid from the one before, of the third from the first.

    The first stage of DyCoke; the second prunes the KV cache while decoding, which no pruner here does. What it calls
    merging is dropping, in the public code too.

    Where it differs: a frame is a grid here (two frames). The published rate leaves (1 + 3 r) / 4 of the tokens; here r
    follows from the budget, the same for all grids to within one token. Below a quarter, where r would be negative,
    evenly spaced tokens of every fourth grid stay. Audio is thinned evenly; its variant "V&A" is not described
    publicly.
    """

    name: ClassVar[str] = "dycoke"
    reasons: ClassVar[tuple[str, str]] = (
        "changed since the grid that its group keeps whole",
        "like the grid that its group keeps whole",
    )

    def pick_video(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        grid, row, column = (values[rows.video] for values in (stream.grid, stream.row, stream.column))
        score = novelty(stream.embeddings, rows.video, grid, row, column)
        grids = table(stream, rows, score[:, None])
        capacity = grids.mask.sum(1)
        first_of_group = torch.arange(rows.grids, device=grid.device) % GROUP == 0
        first_capacity, rest_capacity = capacity * first_of_group, capacity * ~first_of_group
        quota = apportion(first_capacity, first_capacity, first_capacity.sum().clamp_max(count)) + apportion(
            rest_capacity, rest_capacity, (count - first_capacity.sum()).clamp_min(0)
        )
        quota, capacity = quota[:, None], capacity[:, None].clamp_min(1)
        place = torch.arange(1, rows.cells + 1, device=grid.device)
        kept = torch.where(first_of_group[:, None], evenly_spaced(place, quota, capacity), ranks(grids, score) < quota)
        return mask_to_index(grids.flat(kept), count)


def novelty(embeddings: Tensor, index: Tensor, grid: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """How much each video token differs from the token at the same place of the grid that it is compared with.

    Args:
        embeddings: [L, D].
        index: [V] int64, the rows that the video tokens are, V > 0.
        grid, row, column: [V] int64.

    Returns:
        [V] float32, ``1 - cosine`` in 0..2; infinite where there is no such token, as in the first grid of a group.
    """
    # `change` compares with the predecessor at an equal place. Places made distinct by pair, or by group and parity,
    # hold just the two grids to compare.
    height = row.max() + 1
    to_previous = change(embeddings, index, grid, row + height * (grid // 2), column)
    to_first = change(embeddings, index, grid, row + height * (grid // GROUP * 2 + grid % 2), column)
    return torch.where(grid % GROUP == 2, to_first, to_previous)
