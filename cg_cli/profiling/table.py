"""The summary of a profile as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from cg_cli.profiling.report import row

NAMES = ("pruner", "keep", "FLOPs", "prefill", "eff.", "sel.", "right", "against whole")


def table(summary: Mapping[str, Any]) -> Table:
    """A row for each cell: share of the FLOPs, speed-up over the whole clip in the same rounds, accuracy and its
    difference."""
    title = f"{summary['model']['id']} on {summary['device_name']}: {summary['compared_clips']} clips"
    out = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    rows = [row(cell) for cell in summary["cells"]]
    names = NAMES if any(r["accuracy"] is not None for r in rows) else NAMES[:-2]
    for name in names:
        out.add_column(name, justify="left" if name == "pruner" else "right", no_wrap=True, min_width=4)
    previous = rows[0]["pruner"]
    for r in rows:
        if r["pruner"] != previous:
            out.add_section()
        previous = r["pruner"]
        out.add_row(*_cells(r)[: len(names)])
    out.caption = (
        "FLOPs: of the prefill, against the whole clip; prefill: selection and prefill against the prefill of the "
        "whole clip in the same round; eff.: that against what the FLOPs promise; sel.: selection against that "
        "prefill; in brackets 95 % intervals. More in profile.csv and report.html"
    )
    out.caption_justify = "left"
    return out


def _cells(r: Mapping[str, Any]) -> list[str]:
    number = lambda value, spec: "" if value is None else format(value, spec)
    times = lambda value: f"{value:.2f}x" if value else ""
    right = against = ""
    if r["accuracy"] is not None:
        right = f"{100 * r['accuracy']:.1f}"
        against = (
            f"{100 * r['against_whole']:+.1f} [{100 * r['against_whole_low']:.0f},{100 * r['against_whole_high']:.0f}]"
        )
    return [
        r["pruner"],
        f"{r['keep']:g}",
        number(r["kept_prefill_flops"], ".0%"),
        times(r["prefill_speedup"]),
        number(r["efficiency"], ".2f"),
        number(r["selection_share"], ".0%"),
        right,
        against,
    ]
