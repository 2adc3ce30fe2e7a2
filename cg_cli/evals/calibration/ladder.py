"""The ladder of keeps that is tested, and how far down it the tests go.

Fixed-sequence testing (Learn then Test, arXiv 2110.01052, section 4): the rungs are in an order that is fixed before
anything is measured, each is tested at the full level, and the first failure ends it. A false certificate needs a false
rejection at the first rung whose risk is too high, so that nothing has to be paid for looking at several, whether or
not the risk grows as keep shrinks. Several ladders, as of several pruners, share the level in equal parts (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cg_cli.errors import UsageError
from cg_cli.evals.calibration.bounds import Bound, p_value
from cg_cli.pruning import registry
from cg_cli.settings import presets
from cg_cli.settings.table import NO_PRUNER


@dataclass(frozen=True)
class Rung:
    """A pruner at a keep."""

    pruner: str
    keep: float


def default_keeps() -> list[float]:
    """Those of the bundled presets that drop something, the largest first."""
    return sorted({keep for name in presets.names() if (keep := presets.load(name).keep) < 1}, reverse=True)


def ladders(pruners: str, keeps: str | None) -> list[list[Rung]]:
    """A ladder for each of ``pruners``, a comma-separated list as ``keeps`` is: the largest keep first.

    Raises:
        UsageError: an unknown pruner, one that drops nothing, or a text that is no ratio below 1.
    """
    names = list(dict.fromkeys(name.strip() for name in pruners.split(",") if name.strip()))
    for name in names:
        registry.find(name)
        if name == NO_PRUNER:
            raise UsageError(f"pruner {name} keeps everything: there is no keep to find; give another --pruner")
    ratios = default_keeps() if keeps is None else sorted(set(map(_ratio, keeps.split(","))), reverse=True)
    return [[Rung(name, ratio) for ratio in ratios] for name in names]


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        raise UsageError(f"--keep: {text.strip()!r} is no number: give ratios such as .65,.45,.25") from None
    if not 0 < ratio < 1:
        raise UsageError(f"--keep: ratios are above 0 and below 1, not {text.strip()}; the whole clip is always asked")
    return ratio


def passed(losses: Sequence[float], clips: int, risk: float, level: float, bound: Bound) -> int:
    """How many rungs of one ladder are certified before the first that is not.

    Args:
        losses: the sum over ``clips`` at each rung, in the order of the tests.
        level: share of all calibrations that may certify falsely.
    """
    for number, loss in enumerate(losses):
        if p_value(loss, clips, risk, bound) > level:
            return number
    return len(losses)
