"""VisionZip: a few dominant tokens, and contextual ones that the rest merges into (arXiv 2412.04467)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.ops.grids import Grids, by_grid, layout
from cg_cli.pruning.ops.indexing import complement, evenly_spaced, evenly_spaced_index, mask_to_index
from cg_cli.pruning.ops.parts import apportion, ranks
from cg_cli.pruning.ops.pieces import by_rows
from cg_cli.pruning.ops.rows import assemble, check_fits, rows_of
from cg_cli.pruning.stream import Merge, Selection, TokenStream

CONTEXTUAL = 10 / 64  # of a grid's kept tokens; the public settings are 54 dominant + 10 contextual, and multiples


@dataclass(frozen=True)
class VisionZip(Pruner):
    """In each grid keep the dominant tokens and, of the others, evenly spaced contextual ones, into which the rest
    merges.

    Every dropped token is averaged into the contextual token of its grid that is most like it by cosine.

    Where it differs: VisionZip ranks by the attention that a token receives in the vision encoder and compares keys.
    A stream carries no attention maps, so the feature norm ranks, as in the public port to Qwen2.5-Omni (VidCom2,
    branch omni), and embeddings are compared. Merged tokens get proportional attention, which VisionZip's do not:
    ``Merge`` knows no averaging without that. Every grid is an image and keeps the same share to within one token, at
    least one of two or more being contextual; where a grid keeps none or one, its dropped tokens are lost. Audio is
    thinned evenly.
    """

    name: ClassVar[str] = "visionzip"
    reasons: ClassVar[tuple[str, str]] = ("dominant, or stands for others", "stood for by another")

    def flops(self, budget: Budget, audio: int, video: int, grids: int, width: int) -> int:
        if not 0 < budget.video < video:
            return 0
        cells = -(-video // grids)
        return 2 * width * grids * cells * _contextual_at_most(budget.video, video, cells)

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        rows = rows_of(stream)
        check_fits(rows, budget)
        count, total = budget.video, len(rows.video)
        audio = rows.audio[evenly_spaced_index(len(rows.audio), budget.audio, rows.audio.device)]
        if not 0 < count < total:
            return assemble(rows, rows.video[:count], audio)
        grids = layout(stream, rows)
        norm = by_rows(lambda tokens: tokens.norm(dim=-1), stream.embeddings, rows.video)
        dominant, anchor = dominant_and_contextual(grids, norm, count)
        kept = mask_to_index(grids.flat(dominant | anchor), count)
        most = _contextual_at_most(count, total, rows.cells)
        nearest = by_grid(partial(merge_targets, most=most), stream, rows, grids, anchor)
        into = grids.flat(grids.index.gather(1, nearest))
        weight = grids.flat(anchor.any(1, keepdim=True).expand_as(nearest)).to(torch.float32)
        dropped = complement(total, kept)
        into, weight = into[dropped], weight[dropped]
        into = torch.where(weight > 0, into, kept[0])  # of a grid without anchors: lost, with weight 0
        merge = Merge(rows.video[dropped], rows.video[into], weight)
        return Selection(assemble(rows, rows.video[kept], audio).indices, merge)


def _contextual_at_most(count: int, total: int, cells: int) -> int:
    """Contextual tokens of a grid of ``cells`` of ``total`` tokens where ``count`` are kept; no grid has more. At
    least 1."""
    return max(1, int(CONTEXTUAL * -(-count * cells // total) + 0.5))


def dominant_and_contextual(grids: Grids, norm: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The dominant tokens, by ``norm`` [V], and the contextual ones, [G, P] bool each; together ``count``, the same
    share of every grid."""
    capacity = grids.mask.sum(1)
    quota = apportion(capacity, capacity, count)[:, None]
    contextual = torch.minimum((CONTEXTUAL * quota + 0.5).long().clamp_min(1), quota - 1).clamp_min(0)
    dominant = ranks(grids, norm) < quota - contextual
    rest = grids.mask & ~dominant
    anchor = rest & evenly_spaced(rest.cumsum(1), contextual, rest.sum(1, keepdim=True).clamp_min(1))
    return dominant, anchor


def merge_targets(point: Tensor, mask: Tensor, anchor: Tensor, most: int) -> Tensor:
    """For each token ``point`` [g, P, D] the place in its grid [g, P] int64 of the ``anchor`` [g, P] bool most like it;
    any, in a grid without one. No grid has more than ``most`` anchors."""
    unit = normalize(point, dim=-1)
    cell = torch.argsort((~anchor).to(torch.uint8), dim=1, stable=True)[:, :most]
    cosine = unit @ unit.gather(1, cell[:, :, None].expand(-1, -1, unit.shape[2])).mT
    return cell.gather(1, cosine.masked_fill(~anchor.gather(1, cell)[:, None], -torch.inf).argmax(-1))
