"""Answers by condition and clip, and the tables made of them.

Intervals are of 95 %, by a bootstrap that draws clips, not questions, since the questions on one clip are not
independent. Differences are paired: both conditions are asked the same questions on the same clips.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from cg_cli.evals.stats import interval
from cg_cli.nano.worlds import CATEGORIES

FULL = "full"
KEPT_TOLERANCE = 0.005  # from which on a row's share of tokens is told where it is not the ratio of its column

# One clip under one condition: seed, video, condition, kept; category and right, a list by question.
Line = dict[str, Any]


class Hits:
    """Right and wrong answers by condition, question by question in one order, clip by clip; of the clips that all
    conditions have."""

    def __init__(self, lines: Iterable[Line]):
        by_condition: dict[str, dict[tuple[int, str], Line]] = defaultdict(dict)
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
        self.kept = {
            name: float(np.mean([lines[clip]["kept"] for clip in self.clips])) for name, lines in by_condition.items()
        }

    def average(self, name: str, draws: Sequence[str]) -> None:
        """Add the condition ``name``: of each question, the mean of the conditions ``draws``."""
        self.right[name] = np.mean([self.right[draw] for draw in draws], axis=0)
        self.kept[name] = float(np.mean([self.kept[draw] for draw in draws]))

    def accuracy(self, name: str, category: str | None = None) -> float:
        """Right answers in percent, of all questions or of one category."""
        hits = self.right[name] if category is None else self.right[name][self.category == category]
        return 100 * float(hits.mean())

    def interval(self, name: str, other: str | None = None) -> tuple[float, float]:
        """95 % interval in percent of the accuracy of ``name``, or of its difference to ``other``, paired."""
        value = self.right[name] - (self.right[other] if other else 0)
        low, high = interval(value, self.clip)
        return 100 * low, 100 * high

    def size(self) -> str:
        """How much was asked, for a caption."""
        return f"{len(self.clip)} questions on {len(self.clips)} clips"


def name_at(name: str, keep: float) -> str:
    """The name of condition ``name`` at ratio ``keep``."""
    return name if name == FULL else f"{name} {keep:g}"


def caption(note: str = "") -> str:
    """What the intervals of a table are; ``note`` after it."""
    return " ".join(["95 % intervals: clips, not questions, are drawn; differences are paired by clip.", note]).strip()


def accuracy_table(hits: Hits, names: Sequence[str], keeps: Sequence[float], note: str = "") -> Table:
    """Accuracy of each of ``names`` at each ratio, with intervals; and the share of tokens that it really kept, where
    that is another."""
    table = _table(f"right answers in %, {hits.size()}", keeps, note)
    for name in (FULL, *names):
        table.add_row(name, *(_accuracy(hits, name, keep) for keep in keeps))
    return table


def _accuracy(hits: Hits, name: str, keep: float) -> str:
    condition = name_at(name, keep)
    if condition not in hits.right:
        return ""
    text = f"{hits.accuracy(condition):.1f} [{'-'.join(f'{x:.1f}' for x in hits.interval(condition))}]"
    kept = hits.kept[condition]
    return text if name == FULL or abs(kept - keep) < KEPT_TOLERANCE else f"{text}, keeps {kept:.2f}"


def difference_table(
    hits: Hits, pairs: Mapping[str, tuple[str, str]], keeps: Sequence[float], against: str, note: str = ""
) -> Table:
    """By label of a row, the first of two conditions less the second, at each ratio that has both."""
    table = _table(f"difference in points, {hits.size()}", keeps, note, against)
    for label, pair in pairs.items():
        cells = []
        for keep in keeps:
            this, other = (name_at(name, keep) for name in pair)
            if this in hits.right and other in hits.right:
                low, high = hits.interval(this, other)
                cells.append(f"{hits.accuracy(this) - hits.accuracy(other):+.2f} [{low:+.2f} to {high:+.2f}]")
            else:
                cells.append("")
        if any(cells):
            table.add_row(label, *cells)
    return table


def category_table(hits: Hits, name: str, keeps: Sequence[float]) -> Table:
    """Accuracy of ``name`` by category at each ratio."""
    table = Table(title=f"{name}, right answers in % by category", title_justify="left")
    for header in ("category", "questions", "keep 1", *(f"{keep:g}" for keep in keeps)):
        table.add_column(header, justify="left" if header == "category" else "right")
    for category in CATEGORIES:
        count = int((hits.category == category).sum())
        if count:
            values = [hits.accuracy(each, category) for each in (FULL, *(name_at(name, keep) for keep in keeps))]
            table.add_row(category, str(count), *(f"{value:.1f}" for value in values))
    return table


def _table(title: str, keeps: Sequence[float], note: str, first: str = "") -> Table:
    table = Table(title=title, title_justify="left", caption=caption(note), caption_justify="left")
    table.add_column(first)
    for keep in keeps:
        table.add_column(f"keep {keep:g}", justify="right", no_wrap=True)
    return table
