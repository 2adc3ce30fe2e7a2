"""Token Merging (ToMe): similar tokens merge, pair by pair, until the budget is met (arXiv 2210.09461)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.ops.grids import layout
from cg_cli.pruning.ops.indexing import complement, evenly_spaced_index, mask_to_index
from cg_cli.pruning.ops.merge import joined, merge_neighbours
from cg_cli.pruning.ops.pieces import pieces
from cg_cli.pruning.ops.rows import Rows, assemble, check_fits, rows_of
from cg_cli.pruning.stream import Merge, Selection, TokenStream


@dataclass(frozen=True)
class ToMe(Pruner):
    """Merge the most similar video tokens, round by round (bipartite soft matching, section 3 of the paper).

    In every round the tokens that are left of a window of grids, in the order of the stream, are split alternately into
    sets A and B, each of A proposes to the one of B that is most like it by cosine, and the most similar pairs of the
    whole video merge into their tokens of B. A merged token is the mean of all that it stands for, which later rounds
    compare, and gets proportional attention. Every round merges equally many, as in the paper's constant schedule, or
    as many as there surely are pairs where that is fewer; then there are more rounds.

    Where it differs: ToMe merges inside the vision encoder, between attention and MLP of every block, and compares
    keys; a stream has no keys, so embeddings are compared before the language model, and ``rounds`` stands for the
    blocks. Pairs are looked for inside windows of grids, which keeps the work linear in the length of the video; which
    of them merge is decided over the whole video, as over the whole sequence in the paper. A window has more grids
    where the budget has not room for two tokens in each. Audio is thinned evenly, and what is dropped merges into the
    last kept token before it.

    Args:
        window: grids in a window, >= 1. ValueError below.
        rounds: of merging, >= 1. ValueError below. The default is that of the smallest encoder in the paper (ViT-S and
            ViT-B have 12 blocks).
    """

    name: ClassVar[str] = "tome"
    reasons: ClassVar[tuple[str, str]] = ("stands for tokens like it", "merged into a token like it")

    window: int = 2
    rounds: int = 12

    def __post_init__(self) -> None:
        for name, value in (("window", self.window), ("rounds", self.rounds)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")

    def flops(self, budget: Budget, audio: int, video: int, grids: int, width: int) -> int:
        if not 0 < budget.video < video:
            return 0
        window = window_size(self.window, grids, budget.video)
        windows, tokens = -(-grids // window), window * -(-video // grids)
        # A round sums what is merged into each token, by a matrix of zeros and ones, and compares A with B.
        pairs = tokens**2 + -(-tokens // 2) * (tokens // 2)
        return 2 * width * windows * pairs * len(schedule(video, budget.video, windows, self.rounds))

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        rows = rows_of(stream)
        check_fits(rows, budget)
        video, audio = rows.video[: budget.video], rows.audio[: budget.audio]
        merges = []
        if 0 < budget.video < len(rows.video):
            video, merge = fold(rows.video, self._video(stream, rows, budget.video), budget.video)
            merges.append(merge)
        if 0 < budget.audio < len(rows.audio):
            kept = evenly_spaced_index(len(rows.audio), budget.audio, rows.audio.device)
            audio, merge = merge_neighbours(rows.audio, kept, torch.zeros_like(rows.audio))
            merges.append(merge)
        return Selection(assemble(rows, video, audio).indices, joined(merges))

    def _video(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        """For each video token the place in ``rows.video`` [V] int64 of the one that it ends up in."""
        grids = layout(stream, rows)
        window = window_size(self.window, rows.grids, count)
        index = pad(grids.index, (0, 0, 0, -rows.grids % window), value=grids.total).view(-1, window * rows.cells)
        row = torch.cat([rows.video, rows.video[:1]])[index]
        counts = schedule(grids.total, count, len(index), self.rounds)
        root = match(stream.embeddings, row, index < grids.total, counts)
        into = torch.empty(grids.total + 1, dtype=torch.int64, device=index.device)
        return into.scatter_(0, index.flatten(), index.gather(1, root).flatten())[:-1]


def window_size(window: int, grids: int, count: int) -> int:
    """Grids in a window: ``window``, or more where ``count`` kept tokens would not be two a window."""
    return min(grids, max(window, -(-grids // max(1, count // 2))))


def schedule(total: int, count: int, windows: int, rounds: int) -> list[int]:
    """How many pairs merge in each round, so that ``count`` of ``total`` tokens in ``windows`` windows are left.

    A window of n > 1 tokens has n / 2 pairs at least, so m windows with n tokens together have (n - m) / 2 at least,
    however the tokens are spread over them.
    """
    counts: list[int] = []
    left = total
    while left > count:
        equal = -(-(left - count) // max(1, rounds - len(counts)))
        counts.append(min(equal, (left - windows + 1) // 2))
        left -= counts[-1]
    return counts


def match(embeddings: Tensor, row: Tensor, mask: Tensor, counts: Sequence[int]) -> Tensor:
    """Bipartite soft matching: for each token the place in its window [W, n] int64 of the one that it ends up in, its
    own if it is left.

    Args:
        embeddings: [L, D].
        row: [W, n] int64, the rows that the tokens of each window are; where ``mask`` [W, n] bool is False there is
            none.
        counts: how many pairs of all windows together merge in each round; there have to be as many.
    """
    size = mask.shape[1]
    half = -(-size // 2)
    place = torch.arange(size, device=mask.device).expand_as(mask)
    left, root = mask, place
    for count in counts:
        second = left & (left.cumsum(1) % 2 == 0)
        first = left & ~second
        # A and B, then the others; at most half of a window is in either.
        a, b = (torch.argsort((~side).to(torch.uint8), dim=1, stable=True) for side in (first, second))
        a, b = a[:, :half], b[:, : size - half]
        cosine, best = proposals(embeddings, row, root, (a, first.gather(1, a)), (b, second.gather(1, b)))
        order = torch.argsort(cosine.flatten(), descending=True, stable=True)[:count]
        merged = torch.zeros_like(a, dtype=torch.bool).view(-1).scatter_(0, order, True).view_as(a)
        left = left.scatter(1, a, left.gather(1, a) & ~merged)
        root = place.scatter(1, a, torch.where(merged, b.gather(1, best), a)).gather(1, root)
    return root


def proposals(
    embeddings: Tensor, row: Tensor, root: Tensor, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """For each of set A the cosine with the one of set B that is most like it, and which it is in ``b``: [W, A] each.

    Args:
        root: [W, n] int64, the place of the token that each of ``row`` [W, n] is merged into by now. A merged token is
            compared by its sum, which has the direction of its mean.
        a, b: places [W, A] and [W, B] int64, and whether there is a token [W, A] and [W, B] bool.
    """
    values, indices = [], []
    for some in pieces(torch.arange(len(row), device=row.device), row.shape[1] * embeddings.shape[1]):
        point = embeddings[row[some]].to(torch.float32)
        # A product, not ``index_add``, whose order of summation on GPUs differs from run to run.
        unit_a, unit_b = (
            normalize((root[some][:, None] == place[some][:, :, None]).to(point.dtype) @ point, dim=-1)
            for place, _ in (a, b)
        )
        real = a[1][some][:, :, None] & b[1][some][:, None]
        best = (unit_a @ unit_b.mT).masked_fill(~real, -torch.inf).max(2)
        values.append(best.values)
        indices.append(best.indices)
    return torch.cat(values), torch.cat(indices)


def fold(rows: Tensor, into: Tensor, count: int) -> tuple[Tensor, Merge]:
    """The ``count`` of ``rows`` [n] int64 that stay, and the merge of all others into these.

    Args:
        into: [n] int64, the place in ``rows`` that each ends up in; of one that stays, its own.
    """
    kept = mask_to_index(into == torch.arange(len(rows), device=rows.device), count)
    dropped = complement(len(rows), kept)
    return rows[kept], Merge(rows[dropped], rows[into[dropped]], torch.ones(len(dropped), device=rows.device))
