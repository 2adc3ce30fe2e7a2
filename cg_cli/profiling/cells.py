"""The cells of a sweep, pruner x keep ratio, from the options of the command line."""

from __future__ import annotations

from collections.abc import Sequence

from cg_cli.errors import UsageError
from cg_cli.profiling.measure import BASELINE, Cell
from cg_cli.pruning import registry
from cg_cli.settings.table import NO_PRUNER


def cells(pruners: Sequence[str], keeps: str) -> list[Cell]:
    """Every one of ``pruners`` at every ratio of ``keeps``, a comma-separated list; ratio 1 is the whole clip.

    Raises:
        UsageError: an unknown pruner, or a text that is no ratio.
    """
    names = [name.strip() for name in pruners if name.strip()]
    for name in names:
        registry.find(name)
    ratios = []
    for text in keeps.split(","):
        try:
            ratio = float(text)
        except ValueError:
            raise UsageError(f"--keep {keeps}: {text!r} is no number") from None
        if not 0 < ratio <= 1:
            raise UsageError(f"--keep {keeps}: ratios are above 0 and at most 1, not {text}")
        ratios.append(ratio)
    pruned = [Cell(name, ratio) for name in names if name != NO_PRUNER for ratio in ratios if ratio < 1]
    return list(dict.fromkeys([BASELINE, *pruned]))
