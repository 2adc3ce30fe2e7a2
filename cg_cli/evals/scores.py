"""Accuracy on the labelled multiple-choice questions of an archive: overall, and by category."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cg_cli.evals.matching import readable, right
from cg_cli.evals.stats import interval

CLIPS = 10  # fewer say too little about the spread between clips


@dataclass(frozen=True)
class Score:
    """Of ``questions`` that were answered and labelled, how many were ``right``, and how many have an answer that gives
    no choice (``unreadable``, none of them right); the 95 % interval of the share over clips, unless there are fewer
    than CLIPS."""

    name: str
    right: int
    questions: int
    interval: tuple[float, float] | None
    unreadable: int = 0


def scores(records: Iterable[Mapping[str, Any]], keys: Collection[str]) -> list[Score]:
    """The score of all labelled answers among ``records`` with one of ``keys``, then that of each category; none if
    none is labelled. Of several records on one question about one video, the last counts.

    Answers are read anew, so that records of several versions of cg are all judged by this one's rule.
    """
    labelled: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for record in records:
        if record["key"] in keys and isinstance(record.get("correct"), bool):  # else a manifest's, of versions before
            identity = json.dumps([record.get("id"), record.get("choices")])
            labelled[record["video"], record["question"], identity] = record
    by_category: dict[str, list[Mapping[str, Any]]] = {}
    for record in labelled.values():
        by_category.setdefault(str(record.get("category") or ""), []).append(record)
    categories = {name: members for name, members in sorted(by_category.items()) if name}
    groups = {"": list(labelled.values()), **categories}
    return [_score(name, members) for name, members in groups.items() if members]


def _score(name: str, records: Sequence[Mapping[str, Any]]) -> Score:
    correct = np.array([_right(record) for record in records], float)
    clip = np.unique([record["video"] for record in records], return_inverse=True)[1]
    enough = clip.max() + 1 >= CLIPS
    spread = interval(correct, clip) if enough else None
    unreadable = sum(not readable(record["answer"], _choices(record)) for record in records if _choices(record))
    return Score(name, int(correct.sum()), len(records), spread, unreadable)


def _right(record: Mapping[str, Any]) -> bool:
    choices = _choices(record)
    return right(record["answer"], str(record["expected"]), choices) if choices else record["correct"]


def _choices(record: Mapping[str, Any]) -> list[str]:
    """Those of a record that can be read anew; none in one of a version that did not write all of it."""
    choices = record.get("choices")
    return list(map(str, choices)) if isinstance(choices, list) and record.get("expected") is not None else []
