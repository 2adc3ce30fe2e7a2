"""No pruning: the full stream, the reference of every other method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cg_cli.errors import UsageError
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.ops.rows import assemble, check_fits, rows_of
from cg_cli.pruning.stream import Selection, TokenStream


@dataclass(frozen=True)
class KeepAll(Pruner):
    """Keep every row. Only for keep = 1: it cannot honour a smaller budget and does not pretend to."""

    name: ClassVar[str] = "none"

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        """All rows of ``stream``; UsageError if ``budget`` is less than the whole stream."""
        rows = rows_of(stream)
        check_fits(rows, budget)
        total = len(rows.video) + len(rows.audio)
        if budget.count < total:
            raise UsageError(
                f"pruner 'none' keeps all {total} tokens, {budget.count} were asked for: use keep 1 or another pruner"
            )
        return assemble(rows, rows.video, rows.audio)
