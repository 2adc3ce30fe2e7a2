"""The plot of a calibration: how many answers change at each keep, with the bound that was tested, and the time beside
it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cg_cli.errors import CgError
from cg_cli.evals.calibration.preset import PLOT_MARK
from cg_cli.profiling.plots import beside, lines
from cg_cli.util.atomic import write_atomic

X = "share of audio and video tokens kept"


def write(certificate: Mapping[str, Any], path: Path) -> None:
    """CgError if it cannot be written."""
    try:
        write_atomic(path, plot(certificate))
    except OSError as error:
        raise CgError(f"cannot write {path}: {error.strerror}") from error


def plot(certificate: Mapping[str, Any]) -> str:
    """SVG text."""
    ladders: dict[str, list[Mapping[str, Any]]] = {}
    for row in certificate["ladder"]:
        ladders.setdefault(row["pruner"], []).append(row)
    keeps = [row["keep"] for row in certificate["ladder"]]
    risk, noise = 100 * certificate["risk"], 100 * certificate["noise"]["mean"]
    # The whole clip is at keep 1: what changes there is its own noise.
    changed: dict[str, list[tuple[float, ...]]] = {
        name: [(row["keep"], *(100 * row[key] for key in ("mean", "mean", "bound"))) for row in rows] + [(1.0, noise)]
        for name, rows in ladders.items()
    }
    changed[f"risk {risk:.3g} %"] = [(min(keeps), risk), (1.0, risk)]
    times = {
        name: [(row["keep"], 100 * row["latency"]) for row in rows if row["latency"] is not None] + [(1.0, 100.0)]
        for name, rows in ladders.items()
    }
    title = f"{certificate['clips']:,} clips: bars end at the bound ({100 * certificate['confidence']:.3g} %)"
    shown = [
        lines(changed, title, X, "answers that change, %"),
        lines(times, "time from the file to the answers", X, "of the whole clip's, %"),
    ]
    return f"{beside(shown)}{PLOT_MARK}\n"
