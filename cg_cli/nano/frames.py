"""Where the frames of a long film should stand: evenly spaced ones, whole grids, and grids where the picture changes.

``python -m cg_cli.nano.frames --seeds 2111 2112 2113 --count 150 --out DIR`` joins clips of the nano world to films,
has nano answer about each, read by each of CHOICES with few frames in all and everything of them kept,
and prints accuracy by category, and differences to evenly spaced frames with 95 % intervals, paired by film. It goes on
where an earlier run stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cg_cli.media.clip import CHANGE, PAIRS, UNIFORM
from cg_cli.nano import sweep
from cg_cli.nano.judge import Condition
from cg_cli.nano.questions import CATEGORIES
from cg_cli.nano.script import SECONDS
from cg_cli.nano.tables import FULL, Hits, caption

FRAMES = (8, 16, 32)  # of a film, in all
CHOICES = (UNIFORM, PAIRS, CHANGE)
ALL_FRAMES = 4096  # more than a film has
JOINED = 4  # clips of a film
ALL = "all"


def name_of(choice: str, frames: int) -> str:
    """The name of the condition that reads ``frames`` frames by ``choice``."""
    return f"{choice} {frames}"


def conditions(counts: Sequence[int]) -> list[Condition]:
    """All frames, and each of CHOICES at each number of frames."""
    return [Condition(FULL, reading=(("max_frames", ALL_FRAMES),))] + [
        Condition(name_of(choice, count), reading=(("frames", choice), ("max_frames", count)))
        for count in counts
        for choice in CHOICES
    ]


def table(hits: Hits, counts: Sequence[int]) -> Table:
    """Right answers in percent by category and of all, a column a condition, the first with all frames; beneath, the
    95 % interval of each, and of its difference to evenly spaced frames in points."""
    title = f"right answers in %, {hits.size()}"
    out = Table(title=title, title_justify="left", caption=caption(), caption_justify="left")
    names = [FULL, *(name_of(choice, count) for count in counts for choice in CHOICES)]
    out.add_column("category")
    for name in ("questions", *names):
        out.add_column(name, justify="right")
    for category in CATEGORIES:
        if asked := int((hits.category == category).sum()):
            out.add_row(category, str(asked), *(f"{hits.accuracy(name, category):.1f}" for name in names))
    out.add_section()
    out.add_row(ALL, str(len(hits.clip)), *(f"{hits.accuracy(name):.1f}" for name in names))
    out.add_row("95 % interval", "", *("{:.1f} to {:.1f}".format(*hits.interval(name)) for name in names))
    differences, spans = [""], [""]
    for count in counts:
        even = name_of(UNIFORM, count)
        for choice in CHOICES:
            name = name_of(choice, count)
            differences.append("" if name == even else f"{hits.accuracy(name) - hits.accuracy(even):+.1f}")
            spans.append("" if name == even else "{:+.1f} to {:+.1f}".format(*hits.interval(name, even)))
    out.add_row(f"against {UNIFORM}", "", *differences)
    out.add_row("95 % interval", "", *spans)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.nano.frames", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="of the worlds")
    parser.add_argument("--count", type=int, default=150, help="films of each")
    parser.add_argument("--joined", type=int, default=JOINED, help="clips of a film")
    parser.add_argument("--longest", type=int, default=SECONDS[1], help="seconds of the longest clip")
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES, help="of a film, in all")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--workers", type=int, help="processes (default: one a core; one with a GPU)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    columns = conditions(options.frames)
    for seed in options.seeds:
        sweep.run(
            options.model,
            seed,
            options.count,
            options.longest,
            columns,
            options.out,
            options.workers,
            joined=options.joined,
        )
    wanted = {column.name for column in columns}
    lines = [line for line in sweep.read(options.out) if line["seed"] in options.seeds and line["condition"] in wanted]
    Console(width=200).print(table(Hits(lines), options.frames))


if __name__ == "__main__":
    main()
