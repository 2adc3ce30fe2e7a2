"""How many of an archive's labelled multiple-choice questions were answered right."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cg_cli.batch.history import about
from cg_cli.evals.stats import interval

CLIPS = 10  # fewer say too little about the spread between clips


@dataclass(frozen=True)
class Score:
    """Of ``questions`` that were answered and labelled, how many were ``right``; the 95 % interval of the share over
    clips, unless there are fewer than CLIPS."""

    name: str
    right: int
    questions: int
    interval: tuple[float, float] | None


def scores(file: Path, keys: Collection[str]) -> list[Score]:
    """The score of all labelled answers with one of ``keys`` in an archive, then that of each category; none if none is
    labelled."""
    last = {}
    if not file.exists():  # a run without a single record leaves none
        return []
    with file.open("rb") as lines:
        for line in lines:
            record = json.loads(line)
            if record["key"] in keys and record.get("correct") is not None:
                last[about(record)] = record
    by_category = {}
    for record in last.values():
        by_category.setdefault(str(record.get("category") or ""), []).append(record)
    named = {name: found for name, found in sorted(by_category.items()) if name}
    return [_score(name, found) for name, found in {"": list(last.values()), **named}.items() if found]


def _score(name: str, found: list[dict]) -> Score:
    correct = np.array([record["correct"] for record in found], float)
    clip = np.unique([record["video"] for record in found], return_inverse=True)[1]
    enough = clip.max() + 1 >= CLIPS
    return Score(name, int(correct.sum()), len(found), interval(correct, clip) if enough else None)
