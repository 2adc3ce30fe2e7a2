"""OmniSIFT without its trained part: details of a chunk's first grid, changes in its second (arXiv 2602.04804)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cg_cli.pruning.base import ModalityPruner
from cg_cli.pruning.methods.evs import change
from cg_cli.pruning.ops.grids import by_grid, layout
from cg_cli.pruning.ops.parts import apportion, best, chunks
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.stream import TokenStream


@dataclass(frozen=True)
class OmniSift(ModalityPruner):
    """In each 2 s chunk keep, of the first grid, the tokens least like their grid's mean, of the second, those least
    like the token at the same place of the first; by cosine, every grid the same share.

    Only the rule for video: OmniSIFT trains a selector that picks audio by the kept video, and fine-tunes the language
    model with it. Neither is included, so audio is thinned evenly, and the paper's figures do not apply.

    Where it differs besides: the share follows from the budget, the same for all grids to within one token. Where a
    chunk has more grids than two, they alternate; where it has one, that is a first one.
    """

    name: ClassVar[str] = "omnisift"
    reasons: ClassVar[tuple[str, str]] = ("a detail of its chunk, or changed", "common, or unchanged")

    def pick_video(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        grid, row, column = (values[rows.video] for values in (stream.grid, stream.row, stream.column))
        grids = layout(stream, rows)
        _, number = chunks(grids)
        details = grids.flat(by_grid(detail, stream, rows, grids))
        score = torch.where((number % 2 == 0)[grid], details, change(stream.embeddings, rows.video, grid, row, column))
        capacity = grids.mask.sum(1)
        return best(grids, score, apportion(capacity, capacity, count), count)


def detail(point: Tensor, mask: Tensor) -> Tensor:
    """Distinctness of each token in its grid [g, P]: 1 - cosine of ``point`` [g, P, D] with the mean of those in
    ``mask`` [g, P]."""
    mean = normalize(point.sum(1) / mask.sum(1, keepdim=True).clamp_min(1), dim=-1)
    return 1 - (normalize(point, dim=-1) * mean[:, None]).sum(-1)
