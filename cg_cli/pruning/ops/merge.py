"""Token merging (ToMe, arXiv 2210.09461): which kept token takes which dropped one."""

from __future__ import annotations

import torch
from torch import Tensor

from cg_cli.pruning.ops.grids import Grids
from cg_cli.pruning.ops.indexing import bincount, complement
from cg_cli.pruning.ops.match import nearest
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.stream import Merge

STRETCH = 4096  # tokens of a run at most: 28 s of video at 144 tokens a grid of a second


def merge_nearest(grids: Grids, rows: Rows, kept: Tensor, run: Tensor) -> Merge:
    """Fold each dropped token into the nearest kept one of its run of grids, by distance in the coarse space; where
    none of its run is kept, it is lost (weight 0).

    Takes time linear in the length of the video, since a long run is merged in ``stretches``. Waits for the device
    once.

    Args:
        kept: [K] int64, places in ``rows.video``, K > 0.
        run: [G] int64, never falling; tokens of different runs do not merge.
    """
    dropped = complement(grids.total, kept)
    stretch = grids.flat(stretches(run, rows.cells)[:, None].expand_as(grids.index))
    into, distance = nearest(grids.flat(grids.point), dropped, kept, stretch[dropped], stretch[kept], rows.grids)
    return Merge(rows.video[dropped], rows.video[kept[into]], (distance < torch.inf).to(torch.float32))


def stretches(run: Tensor, cells: int) -> Tensor:
    """Number of the stretch of each grid [G] int64, from 0, never falling: a run of ``run`` [G] int64, or, of one of
    more than STRETCH tokens at ``cells`` a grid, one of its equal parts, of whole grids, that have no more."""
    at = torch.arange(len(run), device=run.device)
    size = bincount(_renumbered(run), len(run))[_renumbered(run)]
    parts = -(-size // max(1, STRETCH // cells))
    part = (at - torch.searchsorted(run, run)) * parts // size
    return _renumbered(run * len(run) + part)


def _renumbered(run: Tensor) -> Tensor:
    """``run`` [G], never falling, in numbers from 0 on without gaps."""
    return torch.cat([run.new_zeros(1), (run[1:] != run[:-1]).cumsum(0)])


def merge_neighbours(audio: Tensor, kept: Tensor, window: Tensor) -> tuple[Tensor, Merge]:
    """The rows ``audio`` [A] at the places ``kept`` [m], ascending, m > 0; each of the others merges into the last kept
    one before it, or, where none is, the first, if both are in one ``window`` [A]."""
    places = torch.arange(len(audio), device=audio.device)
    into = kept[torch.searchsorted(kept, places, right=True).clamp_min(1) - 1]
    dropped = complement(len(audio), kept)
    weight = (window[dropped] == window[into[dropped]]).to(torch.float32)
    return audio[kept], Merge(audio[dropped], audio[into[dropped]], weight)


def joined(merges: list[Merge]) -> Merge | None:
    """All of ``merges`` as one; None where there is none."""
    if not merges:
        return None
    return Merge(*(torch.cat(parts) for parts in zip(*((m.dropped, m.into, m.weight) for m in merges))))
