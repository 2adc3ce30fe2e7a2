"""The clips of a calibration: each once, whatever copies of it there are, since a copy says nothing new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cg_cli.engine.inputs import video_content
from cg_cli.evals.calibration.bounds import BINOMIAL, HOEFFDING_BENTKUS, Bound
from cg_cli.questions import Item, Question


@dataclass(frozen=True)
class Sample:
    """A clip by its content, and its questions, each text once."""

    content: str
    video: str
    questions: tuple[Question, ...]


def samples(items: Iterable[Item]) -> tuple[list[Sample], list[str]]:
    """The clips, and a line about each file that is a copy of another: its questions are asked of that one."""
    found: dict[str, tuple[str, dict[tuple[str, tuple[str, ...]], Question]]] = {}
    copies = []
    for item in items:
        content = video_content(item.video)
        if content in found:
            copies.append(f"{item.video} is a copy of {found[content][0]}: they count as one clip")
        questions = found.setdefault(content, (item.video, {}))[1]
        for question in item.questions:
            questions.setdefault((question.text, question.choices), question)
    return [Sample(content, video, tuple(asked.values())) for content, (video, asked) in found.items()], copies


def bound_for(counts: Iterable[int]) -> Bound:
    """The bound for clips with so many questions each: with one a clip, losses are 0 or 1."""
    return BINOMIAL if all(count == 1 for count in counts) else HOEFFDING_BENTKUS


def asked_of_all(clips: Sequence[Sample]) -> list[str] | None:
    """The questions, if all clips have the same; else None."""
    first = [question.text for question in clips[0].questions]
    return first if all([question.text for question in clip.questions] == first for clip in clips) else None


def digest(clips: Sequence[Sample]) -> str:
    """Tells one set of clips and questions from another, whatever its order."""
    data = sorted([clip.content, *sorted(json.dumps(q.identity[:1] + q.identity[2:]) for q in clip.questions)]
                  for clip in clips)  # fmt: skip
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()
