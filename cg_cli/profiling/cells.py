"""The cells of a sweep, reading x pruner x keep ratio, from the options of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.profiling.measure import BASELINE, Cell
from cg_cli.profiling.readings import OWN
from cg_cli.pruning import registry
from cg_cli.settings.table import NO_PRUNER, SETTINGS


def cells(pruners: Sequence[str], keeps: str, merges: str = "auto", readings: Iterable[str] = (OWN,)) -> list[Cell]:
    """Every one of ``pruners`` at every ratio of ``keeps`` with every way of ``merges``, comma-separated lists; ratio 1
    is the whole clip. Pruners between layers, which cannot merge, have "auto" alone. All that, with the whole clip,
    once for each of ``readings``, by name.

    Raises:
        UsageError: an unknown pruner, a text that is no ratio, or no way to merge.
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
    ways: list[Any] = [way.strip() for way in merges.split(",")]
    for way in ways:
        SETTINGS["merge"].check(way)
    pruned = [
        Cell(name, ratio, way)
        for name in names
        if name != NO_PRUNER
        for way in ways
        if way == "auto" or registry.find(name).load().stage == "input"
        for ratio in ratios
        if ratio < 1
    ]
    return list(dict.fromkeys(replace(cell, reading=name) for name in readings for cell in [BASELINE, *pruned]))
