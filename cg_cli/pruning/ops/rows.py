"""The rows of a stream by modality, and the selection made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cg_cli.pruning.budget import Budget
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, Selection, TokenStream


@dataclass(frozen=True)
class Rows:
    """Row numbers of each modality in a stream: ``text`` [T], ``video`` [V], ``audio`` [A] int64, ascending.

    ``grids`` is the number of temporal patches, as ``budget.plan`` counts them; ``cells`` the tokens of the largest.
    """

    text: Tensor
    video: Tensor
    audio: Tensor
    grids: int
    cells: int


def rows_of(stream: TokenStream) -> Rows:
    """Sort the rows of ``stream`` by modality. Waits for the device once, to read five counts."""
    kinds = (TEXT, VIDEO, AUDIO)  # ascending, so that one stable sort lines the modalities up in this order
    counts = [(stream.modality == kind).sum() for kind in kinds]
    by_grid = torch.zeros(len(stream) + 1, dtype=torch.int64, device=stream.grid.device)
    by_grid.index_add_(0, stream.grid + 1, torch.ones_like(stream.grid))
    largest = by_grid[1:].max()
    *sizes, grids, cells = torch.stack([*counts, stream.grid.max() + 1, largest]).tolist()
    text, video, audio = torch.argsort(stream.modality, stable=True).split(sizes)
    return Rows(text, video, audio, grids, cells)


def check_fits(rows: Rows, budget: Budget) -> None:
    """Raise ValueError unless the stream holds as many tokens as ``budget`` asks for."""
    for name, count, held in (("video", budget.video, len(rows.video)), ("audio", budget.audio, len(rows.audio))):
        if not 0 <= count <= held:
            raise ValueError(f"the budget asks for {count} {name} tokens of a stream that holds {held}")


def assemble(rows: Rows, video: Tensor, audio: Tensor) -> Selection:
    """The selection of every text row, ``video`` [k] and ``audio`` [m], distinct row numbers in any order."""
    return Selection(torch.cat([rows.text, video, audio]).sort().values)
