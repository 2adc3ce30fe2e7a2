"""Uniform sampling in time: what sampling fewer frames would give, at an exact token count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cg_cli.pruning.base import ModalityPruner
from cg_cli.pruning.ops.indexing import evenly_spaced_mask, mask_to_index
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.stream import TokenStream


@dataclass(frozen=True)
class Uniform(ModalityPruner):
    """Keep evenly spaced grids whole, as far as the budget goes, and spread the remainder over the other grids.

    Reads no embedding. Audio is thinned evenly.
    """

    name: ClassVar[str] = "uniform"
    reasons: ClassVar[tuple[str, str]] = ("in an evenly spaced grid", "between the grids that are kept")

    def pick_video(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        grid = stream.grid[rows.video]
        every = torch.ones(rows.grids, dtype=torch.bool, device=grid.device)
        whole = evenly_spaced_mask(every, count * rows.grids // len(grid))[grid]
        rest = evenly_spaced_mask(~whole, count - whole.sum())
        # Grids of one clip are equally large, so that the whole ones fit; else `mask_to_index` would cut the last.
        return mask_to_index(whole | rest, count)
