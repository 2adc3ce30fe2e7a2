"""How accuracy falls as fewer tokens are kept: every pruner at every ratio, ablations and controls, on held-out clips.

``python -m cg_cli.nano.sweep --seeds 2001 2002 2003 --count 500 --out DIR`` writes the clips and one line an answered
question and condition to DIR, goes on where an earlier run stopped, and prints the tables: accuracy by ratio, by
category, and the differences to ContextGuard with 95 % intervals, paired by question. ``--shuffled`` names the control
predictor.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from cg_cli.evals.stats import interval
from cg_cli.nano.judge import Condition, by_clip, judge_clips
from cg_cli.nano.questions import CATEGORIES
from cg_cli.nano.script import SECONDS
from cg_cli.nano.world import write_world
from cg_cli.profiling.plots import accuracy_plot

KEEPS = (0.65, 0.45, 0.35, 0.25, 0.15, 0.1)
PRUNERS = ("contextguard", "contextguard-online", "random", "uniform", "evs")
ABLATED_AT = (0.45, 0.25, 0.15)
ABLATIONS: dict[str, dict[str, Any]] = {
    "without recoverability": {"recover": False},
    "without details": {"detail": False},
    "without novelty": {"novelty": False},
    "without merging": {"merge": False},
    "without confidence": {"confident": False},
    "oracle prediction": {"prediction": "oracle"},
    "raw audio": {"prediction": "audio"},
    "no predictor": {"prediction": "none"},
    "no predictor, ridge in the clip": {"prediction": "ridge"},
    "without novelty, oracle prediction": {"novelty": False, "prediction": "oracle"},
}
# Asked with the predictor trained on shuffled sound.
SHUFFLED, SHUFFLED_ALONE = "shuffled-audio predictor", "without novelty, shuffled-audio predictor"
CONTROLS: dict[str, dict[str, Any]] = {SHUFFLED: {}, SHUFFLED_ALONE: {"novelty": False}}
# What sound adds: beside the novelty score, and without it.
SOUND = {
    "trained": (PRUNERS[0], SHUFFLED),
    "oracle": ("oracle prediction", SHUFFLED),
    "trained, without novelty": ("without novelty", SHUFFLED_ALONE),
    "oracle, without novelty": ("without novelty, oracle prediction", SHUFFLED_ALONE),
}
FULL = "full"

Lines = list[dict[str, Any]]  # of DIR/answers.jsonl: seed, video, condition; category and right, a list by question


def conditions(
    shuffled: str | None, keeps: Sequence[float] = KEEPS, ablated_at: Sequence[float] = ABLATED_AT
) -> list[Condition]:
    """Every condition of the sweep; names end in the ratio."""
    out = [Condition(FULL)]
    out += [Condition(name_at(pruner, keep), pruner, keep) for keep in keeps for pruner in PRUNERS]
    for keep in ablated_at:
        out += [Condition(name_at(name, keep), PRUNERS[0], keep, options) for name, options in ABLATIONS.items()]
        if shuffled:
            out += [
                Condition(name_at(name, keep), PRUNERS[0], keep, options, shuffled)
                for name, options in CONTROLS.items()
            ]
    return out


def name_at(name: str, keep: float) -> str:
    """The name of condition ``name`` at ratio ``keep``."""
    return f"{name} {keep:g}"


def run(model: str, seed: int, count: int, longest: int, columns: Sequence[Condition], out: Path) -> None:
    """Answer what ``out``/answers.jsonl does not have yet about ``count`` clips of world ``seed``."""
    folder = out / f"seed-{seed}"
    labelled = folder / "labelled.jsonl"
    if not labelled.exists():
        write_world(seed, count, folder, longest)
    clips = dict(list(by_clip(labelled).items())[:count])
    done = defaultdict(set)
    for line in read(out):
        if line["seed"] == seed:
            done[line["video"]].add(line["condition"])
    missing = [c for c in columns if any(c.name not in done[video] for video in clips)]
    left = {video: rows for video, rows in clips.items() if any(c.name not in done[video] for c in missing)}
    if not left:
        return
    with (out / "answers.jsonl").open("a", encoding="utf-8") as file:
        results = judge_clips(model, folder, left, missing)
        for video, answers in tqdm(
            results, total=len(left), unit="clip", desc=f"seed {seed}", file=sys.stderr, disable=None
        ):
            line = {"seed": seed, "video": video}
            categories = [row["category"] for row in clips[video]]
            lines = [
                line | {"condition": name, "category": categories, "right": hits}
                for name, hits in answers.items()
                if name not in done[video]
            ]
            # One write, so that a kill tears at most the last line.
            file.write("".join(json.dumps(line) + "\n" for line in lines))
            file.flush()


def read(out: Path) -> Lines:
    """The lines of ``out``/answers.jsonl; one that a kill tore is left out."""
    file = out / "answers.jsonl"
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


class Hits:
    """Right and wrong answers by condition, question by question in one order, clip by clip."""

    def __init__(self, lines: Iterable[dict]):
        by_condition: dict[str, dict[tuple[int, str], dict]] = defaultdict(dict)
        for line in lines:
            by_condition[line["condition"]][line["seed"], line["video"]] = line
        self.clips = sorted(set.intersection(*(set(c) for c in by_condition.values()))) if by_condition else []
        first = next(iter(by_condition.values()), {})
        self.category = np.array([c for clip in self.clips for c in first[clip]["category"]])
        self.clip = np.array([i for i, clip in enumerate(self.clips) for _ in first[clip]["category"]])
        self.right = {
            name: np.array([hit for clip in self.clips for hit in lines[clip]["right"]], dtype=float)
            for name, lines in by_condition.items()
        }

    def accuracy(self, name: str, category: str | None = None) -> float:
        """Right answers in percent, of all questions or of one category."""
        hits = self.right[name] if category is None else self.right[name][self.category == category]
        return 100 * float(hits.mean())

    def interval(self, name: str, other: str | None = None) -> tuple[float, float]:
        """95 % interval in percent of the accuracy of ``name``, or of its difference to ``other``, paired by
        question; the bootstrap resamples clips, since the questions on one clip are not independent."""
        value = self.right[name] - (self.right[other] if other else 0)
        low, high = interval(value, self.clip)
        return 100 * low, 100 * high


def ratio_table(hits: Hits, keeps: Sequence[float]) -> Table:
    """Accuracy of each pruner at each ratio, with intervals."""
    table = Table(
        title=f"right answers in %, {len(hits.clip)} questions on {len(hits.clips)} clips", title_justify="left"
    )
    table.add_column("keep")
    for name in PRUNERS:
        table.add_column(name, justify="right", no_wrap=True)
    full = f"{hits.accuracy(FULL):.1f} [{'-'.join(f'{x:.1f}' for x in hits.interval(FULL))}]"
    table.add_row("1", *[full] * len(PRUNERS))
    for keep in keeps:
        names = [name_at(p, keep) for p in PRUNERS]
        table.add_row(
            f"{keep:g}", *(f"{hits.accuracy(n):.1f} [{'-'.join(f'{x:.1f}' for x in hits.interval(n))}]" for n in names)
        )
    return table


def category_table(hits: Hits, keeps: Sequence[float]) -> Table:
    """Accuracy of ContextGuard by category at each ratio."""
    table = Table(title=f"{PRUNERS[0]}, right answers in % by category", title_justify="left")
    for name in ("category", "questions", "keep 1", *(f"{keep:g}" for keep in keeps)):
        table.add_column(name, justify="left" if name == "category" else "right")
    for category in CATEGORIES:
        values = [hits.accuracy(name, category) for name in (FULL, *(name_at(PRUNERS[0], keep) for keep in keeps))]
        table.add_row(category, str(int((hits.category == category).sum())), *(f"{v:.1f}" for v in values))
    return table


def difference_table(hits: Hits, ablated_at: Sequence[float]) -> Table:
    """What each ablation and control costs against ContextGuard, and ContextGuard against the whole clip."""
    names = (FULL, *PRUNERS[1:], *ABLATIONS, *CONTROLS)
    return _differences(hits, ablated_at, "against contextguard", {name: (name, PRUNERS[0]) for name in names})


def sound_table(hits: Hits, ablated_at: Sequence[float]) -> Table:
    """What the predictor, and an oracle, are better than a predictor that was trained on shuffled sound."""
    return _differences(hits, ablated_at, "against shuffled sound", SOUND)


def _differences(hits: Hits, ablated_at: Sequence[float], title: str, pairs: Mapping[str, tuple[str, str]]) -> Table:
    table = Table(title="difference in points, 95 % interval, paired by question", title_justify="left")
    table.add_column(title)
    for keep in ablated_at:
        table.add_column(f"keep {keep:g}", justify="right", no_wrap=True)
    for label, pair in pairs.items():
        cells = []
        for keep in ablated_at:
            this, other = (FULL if name == FULL else name_at(name, keep) for name in pair)
            if this in hits.right and other in hits.right:
                low, high = hits.interval(this, other)
                cells.append(f"{hits.accuracy(this) - hits.accuracy(other):+.2f} [{low:+.2f} to {high:+.2f}]")
        if cells:
            table.add_row(label, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.nano.sweep", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="of the worlds")
    parser.add_argument("--count", type=int, default=500, help="clips of each")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--shuffled", help="predictor trained on shuffled sound (cg train-predictor --shuffle-sound)")
    parser.add_argument("--keeps", type=float, nargs="+", default=KEEPS)
    parser.add_argument("--ablated-at", type=float, nargs="*", default=ABLATED_AT)
    parser.add_argument("--longest", type=int, default=SECONDS[1], help="seconds of the longest clip")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    columns = conditions(options.shuffled, options.keeps, options.ablated_at)
    for seed in options.seeds:
        run(options.model, seed, options.count, options.longest, columns, options.out)
    names = {c.name for c in columns}
    hits = Hits(line for line in read(options.out) if line["seed"] in options.seeds and line["condition"] in names)
    console = Console(width=150)
    console.print(ratio_table(hits, options.keeps), category_table(hits, options.keeps))
    console.print(difference_table(hits, options.ablated_at), sound_table(hits, options.ablated_at))
    curves = {
        pruner: [(1.0, hits.accuracy(FULL)), *((keep, hits.accuracy(name_at(pruner, keep))) for keep in options.keeps)]
        for pruner in PRUNERS
    }
    plot = options.out / "accuracy.svg"
    plot.write_text(
        accuracy_plot(curves, f"nano, {len(hits.clips)} held-out clips, {len(hits.clip)} questions"), encoding="utf-8"
    )
    print(plot)


if __name__ == "__main__":
    main()
