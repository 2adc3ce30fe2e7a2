"""Accuracy of a model on clips of the nano world, by category and condition.

``python -m cg_cli.nano.evaluate --seed 100 --count 200`` writes the clips as files, reads them as ``cg ask`` does, and
prints one row a category: everything kept, each pruner and the rivals that are none at the default ratio, and without
the video, the audio, or both. A sentence counts as right when all of its facts are, in order. ``--world ambience`` asks
about the world of surfaces, ``--only full`` with everything kept only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from cg_cli.nano.judge import NO_AUDIO, NO_VIDEO, NOTHING, SMALLER, Condition, by_clip, judge_clips
from cg_cli.nano.tables import FULL, Hits, caption
from cg_cli.nano.world import HELD_OUT, write_world
from cg_cli.nano.worlds import CATEGORIES, THINGS, WORLDS
from cg_cli.pruning import registry
from cg_cli.settings import presets
from cg_cli.settings.table import NO_PRUNER

ALL = "all"


def conditions(keep: float) -> list[Condition]:
    """The columns of the table: everything kept, each input-stage pruner at ``keep``, fewer pixels and fewer frames for
    the same budget, the clip without a part."""
    pruners = [
        Condition(name, name, keep)
        for name, entry in registry.known().items()
        if name != NO_PRUNER and entry.load().stage == "input"
    ]
    smaller = [Condition(parts, keep=keep, parts=parts) for parts in SMALLER]
    without = [Condition(parts, parts=parts) for parts in (NO_VIDEO, NO_AUDIO, NOTHING)]
    return [Condition(FULL), *pruners, *smaller, *without]


def judge_all(model: str, labelled: Path, columns: Sequence[Condition]) -> Hits:
    """Every question of ``labelled`` under each of ``columns``."""
    clips = by_clip(labelled)
    results = judge_clips(model, labelled.parent, clips, columns)
    return Hits(
        {
            "seed": 0,
            "video": video,
            "condition": name,
            "category": [row["category"] for row in clips[video]],
            "right": outcome.right,
            "kept": outcome.kept,
        }
        for video, answers in tqdm(results, total=len(clips), unit="clip", file=sys.stderr, disable=None)
        for name, outcome in answers.items()
    )


def prior(rows: list[dict]) -> dict[str, float]:
    """Share of each category's questions that the text alone gets right when it is used as well as it can be.

    For each type of question that is one answer for all, or, where a question names its own choices, always the one
    that it names first, or last.
    """
    by_type = defaultdict(list)
    for row in rows:
        by_type[row["category"], row["type"]].append(row)
    hits: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for (category, _), same in by_type.items():
        hits[category] += max(Counter(row["answer"] for row in same).most_common(1)[0][1], *_named(same))
        total[category] += len(same)
    return {category: hits[category] / total[category] for category in total}


def _named(rows: list[dict]) -> tuple[int, int]:
    """How many of ``rows`` are right with the choice that the question names first, and with the one it names last."""
    first = last = 0
    for row in rows:
        order = sorted((row["question"].find(choice), choice) for choice in row["choices"])
        if order[0][0] >= 0:
            first += order[0][1] == row["answer"]
            last += order[-1][1] == row["answer"]
    return first, last


def table(hits: Hits, columns: Sequence[str], guess: dict[str, float], title: str) -> Table:
    """Accuracy in percent: a row a category, a column a condition; of all, with the 95 % interval and the share of
    audio and video tokens kept."""
    out = Table(title=title, title_justify="left", header_style="bold", caption=caption(), caption_justify="left")
    out.add_column("category")
    for name in ("questions", "guess", *columns):
        out.add_column(name, justify="right", no_wrap=True)
    for category in CATEGORIES:
        count = int((hits.category == category).sum())
        if count:
            cells = [f"{hits.accuracy(name, category):.1f}" for name in columns]
            out.add_row(category, str(count), f"{100 * guess[category]:.0f}", *cells)
    out.add_section()
    out.add_row(ALL, str(len(hits.clip)), "", *(f"{hits.accuracy(name):.1f}" for name in columns))
    spans = [hits.interval(name) for name in columns]
    out.add_row("95 % interval", "", "", *(f"{low:.1f}-{high:.1f}" for low, high in spans))
    out.add_row("kept", "", "", *(f"{hits.kept[name]:.2f}" for name in columns))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.nano.evaluate", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=HELD_OUT, help=f"of the world; from {HELD_OUT} on, training never saw it"
    )
    parser.add_argument("--count", type=int, default=200, help="clips")
    parser.add_argument("--longest", type=int, help="seconds of the longest clip")
    parser.add_argument(
        "--keep", type=float, default=presets.load(presets.DEFAULT).keep, help="of the pruners (default 0.45)"
    )
    parser.add_argument("--world", choices=WORLDS, default=THINGS.name)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--only", nargs="*", help="names of columns, e.g. full random")
    options = parser.parse_args()
    columns = [c for c in conditions(options.keep) if not options.only or c.name in options.only]
    with tempfile.TemporaryDirectory() as folder:
        world = WORLDS[options.world]
        labelled = write_world(options.seed, options.count, Path(folder), options.longest, world=world)
        hits = judge_all(options.model, labelled, columns)
        guess = prior([row for rows in by_clip(labelled).values() for row in rows])
    clips = f"{options.model}, {options.count} clips of {options.world}, seed {options.seed}"
    title = f"{clips}: right answers in %, pruners at keep {options.keep:g}"
    Console(width=160).print(table(hits, [column.name for column in columns], guess, title))
    print(json.dumps({column.name: _counts(hits, column.name) for column in columns}))


def _counts(hits: Hits, name: str) -> dict[str, list[int]]:
    """By category, how many answers are right, and how many there are."""
    masks = {category: hits.category == category for category in CATEGORIES}
    return {
        category: [int(hits.right[name][mask].sum()), int(mask.sum())] for category, mask in masks.items() if mask.any()
    }


if __name__ == "__main__":
    main()
