"""``cg profile``: how far it is, and the table at the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from cg_cli.console.reporter import Reporter
from cg_cli.profiling.readings import OWN
from cg_cli.profiling.report import row
from cg_cli.util.format import rough_duration
from cg_cli.util.text import printable

LINE_EVERY_S = 30.0  # without a terminal
LEAST_SHARE = 0.005  # that is said
ACCURACY = ("right", "against whole")
NAMES = ("pruner", "keep", "FLOPs", "prefill", "eff.", "sel.", "e2e", *ACCURACY)
WITH_READINGS = ("pruner", "keep", "tokens", "FLOPs", "prefill", "e2e")
WITH_BOTH = ("pruner", "keep", "tokens", "FLOPs", "e2e", *ACCURACY)  # 80 columns hold no more
EXPLAINED = {
    "tokens": "share of the whole clip's that enter",
    "prefill": "selection and prefill against the prefill of the whole clip in the same round",
    "eff.": "that against what the FLOPs promise",
    "sel.": "selection against that prefill",
    "e2e": "from the file to the end of an answer, against the whole clip",
}


@contextmanager
def profiling(reporter: Reporter) -> Iterator[ProfileProgress]:
    """Progress of a profile."""
    with reporter.working("loading the model") as status:
        progress = ProfileProgress(reporter, status)
        try:
            yield progress
        except KeyboardInterrupt:
            if progress.done:
                reporter.note(f"what was measured is kept: the same command goes on after {progress.done} clips")
            raise


@dataclass
class ProfileProgress:
    """A profile in work."""

    reporter: Reporter
    status: Status | None
    done: int = 0
    begun: float = 0.0  # when the model was loaded
    said: float = 0.0  # when the last line was printed

    def fault(self, message: str) -> None:
        self.reporter.line("error", message)

    def note(self, message: str) -> None:
        self.reporter.note(message)

    def loaded(self, facts: Mapping[str, Any]) -> None:
        self.begun = self.said = time.monotonic()
        if not self.reporter.quiet:
            model, layers = (
                facts["model"],
                f", {facts['model']['layers']} layers of each part" if facts["model"]["layers"] else "",
            )
            self.reporter.line(
                "model",
                f"{model['id']}, {model['weights']} weights{layers}, on {facts['device_name']}, {facts['dtype']}",
            )

    def measured(self, done: int, total: int) -> None:
        now = time.monotonic()
        left = (now - self.begun) / done * (total - done)
        self.done = done
        text = f"{done} of {total} clips" + (f", about {rough_duration(left)} left" if done < total else "")
        if self.status:
            self.status.update(f"measuring: {text}")
        elif not self.reporter.quiet and (done in (1, total) or now - self.said >= LINE_EVERY_S):
            self.reporter.timed("measured", text)
            self.said = now


def print_profile(reporter: Reporter, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
    """The table of a profile and where its files are on stderr; the summary as the last line of stdout, unless that is
    a terminal, where it would scroll the table away."""
    if not reporter.quiet:
        reporter.err.print(table(summary))
    reporter.written(files)
    if reporter.quiet or not sys.stdout.isatty():
        print(json.dumps(summary), flush=True)


def table(summary: Mapping[str, Any]) -> Table:
    """A row for each cell: share of the FLOPs, speed-up over the whole clip in the same rounds, accuracy and its
    difference."""
    title = (
        f"{escape(printable(summary['model']['id']))} on {summary['device_name']}: {summary['compared_clips']} clips"
    )
    out = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    rows = [row(cell) for cell in summary["cells"]]
    read_otherwise = any(r["reading"] != OWN for r in rows)
    uncut = any(r["uncut_total_flops_share"] is not None for r in rows)
    labelled = any(r["accuracy"] is not None for r in rows)
    names: Sequence[str] = WITH_BOTH if labelled else WITH_READINGS
    if not read_otherwise:
        names = NAMES if labelled else NAMES[: -len(ACCURACY)]
    for name in names:
        out.add_column(name, justify="left" if name == "pruner" else "right", overflow="fold")
    previous = rows[0]
    for r in rows:
        if r["reading"] != previous["reading"]:
            out.add_section()
            out.add_row(f"[bold]{escape(printable(r['reading']).replace('+', f'{chr(10)}+'))}[/bold]")
        elif r["pruner"] != previous["pruner"] and not read_otherwise:
            out.add_section()
        previous = r
        cells = _cells(r, read_otherwise, uncut)
        out.add_row(*(cells[name] for name in names))
    parts = "of the towers, of the prefill, then of both" if read_otherwise else "of the prefill, then with encoders"
    depth = " with all layers of the model" if uncut else ""
    explained = EXPLAINED | {"FLOPs": f"{parts} and selection, against the whole clip{depth}"}
    out.caption = (
        "; ".join(f"{name}: {explained[name]}" for name in names if name in explained)
        + _shares(summary["cells"][0].get("shares"))
        + _unreadable(rows)
        + "; in brackets 95 % intervals. More in profile.csv and report.html"
    )
    out.caption_justify = "left"
    return out


def _shares(shares: Mapping[str, float] | None) -> str:
    """Where the time of the whole clip goes, in words."""
    if not shares:
        return ""
    parts = [f"{name} {share:.0%}" for name, share in shares.items() if share >= LEAST_SHARE]
    return f", of whose time are {', '.join(parts)}"


def _flops(shares: Sequence[float | None]) -> str:
    """Shares of FLOPs, once where they are the same."""
    texts = [f"{100 * share:.0f}" for share in shares if share is not None]
    return f"{'/'.join(texts if len(set(texts)) > 1 else texts[:1])}%" if len(texts) == len(shares) else ""


def _unreadable(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many answers of a cell give no choice, in words; nothing where all give one."""
    most = max(r["unreadable"] or 0 for r in rows)
    return f"; of {rows[0]['questions']:,} answers up to {most:,} are unreadable (give no choice)" if most else ""


def _cells(r: Mapping[str, Any], towers: bool, uncut: bool) -> dict[str, str]:
    """The texts of a row by column.

    Args:
        towers: FLOPs of the towers as well.
        uncut: FLOPs of the model with all of its layers.
    """
    number = lambda value, spec: "" if value is None else format(value, spec)
    times = lambda value: f"{value:.2f}x" if value else ""
    right = against = ""
    if r["accuracy"] is not None:
        right = f"{100 * r['accuracy']:.1f}"
        against = (
            f"{100 * r['against_whole']:+.1f} [{100 * r['against_whole_low']:.0f},{100 * r['against_whole_high']:.0f}]"
        )
    parts = ("towers", "prefill", "total") if towers else ("prefill", "total")
    return {
        "pruner": escape(printable(r["pruner"])),
        "keep": f"{r['keep']:g}",
        "tokens": number(r["kept_input_of_baseline"], ".0%"),
        "FLOPs": _flops([r[f"{'uncut_' if uncut else ''}{part}_flops_share"] for part in parts]),
        "prefill": times(r["prefill_speedup"]),
        "eff.": number(r["efficiency"], ".2f"),
        "sel.": number(r["selection_share"], ".0%"),
        "e2e": times(r["end_to_end_speedup"]),
        "right": right,
        "against whole": against,
    }
