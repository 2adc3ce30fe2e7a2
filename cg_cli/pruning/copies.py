"""Tokens that repeat others: left out before a pruner ranks, and merged into what becomes of those they repeat."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cg_cli.pruning.explain import Explanation
from cg_cli.pruning.stream import Merge, Selection, TokenStream, apply

REPEATED = "repeated"  # why a copy is dropped


@dataclass(frozen=True)
class Folded:
    """A stream without its copies.

    Attributes:
        stream: [F] rows, none of which repeats another.
        rows: [F] int64, ascending, which rows of the whole stream these are.
        copies: [C] int64, the other rows of the whole stream.
        source: [C] int64, the row of ``stream`` that each of them repeats.
    """

    stream: TokenStream
    rows: Tensor
    copies: Tensor
    source: Tensor

    def unfold(self, selection: Selection) -> Selection:
        """``selection`` of ``stream`` as one of the whole stream: a copy goes where the token goes that it repeats,
        with the same weight."""
        kept, merge = selection.indices, selection.merge
        into = torch.full_like(self.rows, int(kept[0]))  # of what is lost: anywhere, with weight 0
        weight = torch.zeros(len(self.rows), device=kept.device)
        if merge is not None:
            into.scatter_(0, merge.dropped, merge.into)
            weight.scatter_(0, merge.dropped, merge.weight.to(weight.dtype))
        into.scatter_(0, kept, kept)
        weight.scatter_(0, kept, 1.0)
        dropped, target, share = self.copies, into[self.source], weight[self.source]
        if merge is not None:
            dropped = torch.cat([self.rows[merge.dropped], dropped])
            target = torch.cat([merge.into, target])
            share = torch.cat([merge.weight.to(share.dtype), share])
        return Selection(self.rows[kept], Merge(dropped, self.rows[target], share))

    def folded(self, selection: Selection) -> Selection:
        """The kept rows of ``selection``, of the whole stream, in ``stream``; without its merge."""
        return Selection(torch.searchsorted(self.rows, selection.indices))

    def explained(self, explanation: Explanation) -> Explanation:
        """``explanation``, of ``stream``, for the whole stream."""
        size = len(self.rows) + len(self.copies)
        reason = torch.full((size,), len(explanation.reasons), device=self.rows.device)
        reason[self.rows] = explanation.reason
        score = explanation.score
        if score is not None:
            score = score.new_full((size,), torch.nan).index_copy(0, self.rows, score)
        return replace(explanation, reason=reason, reasons=(*explanation.reasons, REPEATED), score=score)


def fold(stream: TokenStream) -> Folded:
    """``stream`` without the rows that repeat another, by its ``same_as``, which is not None. Waits for the device
    once."""
    assert stream.same_as is not None
    is_copy = stream.same_as != torch.arange(len(stream), device=stream.same_as.device)
    rows, copies = (~is_copy).nonzero()[:, 0], is_copy.nonzero()[:, 0]
    source = torch.searchsorted(rows, stream.same_as[copies])
    return Folded(apply(stream, Selection(rows)), rows, copies, source)
