"""``cg batch --check``: of a share of the clips the whole is answered, too, to see whether pruning changes answers.

Clips are drawn by their keys, so that a run which is resumed draws the same ones. A check never costs an answer: what
goes wrong in one becomes a warning of the record. Imports nothing heavy.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cg_cli.engine.inputs import AnswerInputs
from cg_cli.errors import UsageError
from cg_cli.evals.calibration import bounds
from cg_cli.evals.calibration.clips import bound_for
from cg_cli.records import Answer, Check, Record
from cg_cli.settings.table import Settings

UNCHECKED = "not checked against the whole clip"  # how the warning begins

Whole = Mapping[str, Answer | str]  # by question, the whole clip's answer or why there is none


def check_share(share: float | None, settings: Settings) -> None:
    """UsageError for a share that is none, or where whole clips are answered anyway."""
    if share is None:
        return
    if not 0 < share <= 1:
        raise UsageError(f"--check {share:g}: give a share of the clips, above 0 and at most 1")
    if settings.keep == 1:
        raise UsageError("--check: with --keep 1 every answer is the whole clip's; leave it out")


def drawn(inputs: AnswerInputs, content: str, share: float | None) -> bool:
    """Whether the clip of this ``content`` is checked, in every run with these ``inputs``."""
    key = replace(inputs, video=content, question="").key
    return share is not None and int(key, 16) < share * 16 ** len(key)


def with_check(record: Record, whole: Whole | None) -> Record:
    """The record with the whole clip's answer to its question, which is not compared yet, or a warning."""
    if whole is None or not isinstance(record, Answer):
        return record
    found = whole.get(record.question, "there is no answer")
    if isinstance(found, Answer):
        return record.model_copy(update={"check": Check(answer=found.answer)})
    return unchecked(record, found)


def unchecked(record: Answer, why: str) -> Answer:
    """The record with a warning instead of a check."""
    return record.model_copy(update={"warnings": (*record.warnings, f"{UNCHECKED}: {why}")})


@dataclass(frozen=True)
class Agreement:
    """Of checked clips and their questions, how many answers ``changed``; the mean over clips of the share of a clip's
    answers that did, with its 95 % ``interval``; and the ``risk`` that the preset's certificate states, if it has
    one."""

    clips: int
    questions: int
    changed: int
    mean: float
    interval: tuple[float, float]
    risk: float | None

    @property
    def contradicts(self) -> bool:
        """Whether more answers change than the certificate states, beyond chance."""
        return self.risk is not None and self.interval[0] > self.risk


def agreement(
    records: Iterable[Mapping[str, Any]], keys: Collection[str], certificate: Mapping[str, Any] | None
) -> Agreement:
    """How often the checked ones among ``records`` with one of ``keys`` agree. Copies of a file are one clip; of
    several records on one question about it, the last counts."""
    clips: dict[str, dict[str, bool]] = {}
    for record in records:
        if record["key"] in keys and record["ok"] and record.get("check"):
            clip = record["media"].get("content") or record["video"]
            question = json.dumps([record["key"], record.get("choices")])
            clips.setdefault(clip, {})[question] = record["check"]["agrees"]
    changed = [[not agrees for agrees in questions.values()] for questions in clips.values()]
    loss = sum(sum(each) / len(each) for each in changed)
    bound = bound_for(map(len, changed))
    return Agreement(
        clips=len(clips),
        questions=sum(map(len, changed)),
        changed=sum(map(sum, changed)),
        mean=loss / len(clips) if clips else 0.0,
        interval=bounds.interval(loss, len(clips), bound) if clips else (0.0, 1.0),
        risk=certificate["risk"] if certificate else None,
    )
