"""What earlier runs have settled, told from the records that they left; and the one reader of an archive's lines."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cg_cli.batch.job import FOR_GOOD, POISON
from cg_cli.engine.inputs import conditions_of_record, describe_changes
from cg_cli.errors import UsageError
from cg_cli.questions import Item, Question
from cg_cli.records import SCHEMA, Record

About = tuple[Any, ...]  # video, question, id, and the choices if there are any


@dataclass(frozen=True)
class Line:
    """A line of an archive: its record, its bytes with the newline, and where in the file it begins."""

    record: dict[str, Any]
    data: bytes
    offset: int


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of an archive that hold a record. Blank ones are passed over, and so is a last one without its newline,
    which a kill has torn; there is none if there is no file.

    Raises:
        UsageError: any other line, by its number.
    """
    if not path.is_file():
        return
    offset = 0
    with path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            if data.strip() and data.endswith(b"\n"):
                yield Line(parse(data, f"{path}:{number}"), data, offset)
            offset += len(data)


def parse(line: bytes, where: str) -> dict[str, Any]:
    """The record in a line. UsageError, which names it by ``where``, if it holds none."""
    try:
        record = json.loads(line)
        if record["schema"] != SCHEMA or not (record["ok"] or record["error"]["type"]):
            raise ValueError
        record["key"], record["video"], record["question"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UsageError(f"{where} is no record of cg: name another -o, or remove that line") from None
    return record


State = Literal["answered", "failed", "set aside"]  # the last: failed for what lies in the file itself


@dataclass(frozen=True)
class _Settled:
    """A record that no run makes again, and where its line begins."""

    about: About
    state: State
    offset: int

    @property
    def video(self) -> Any:
        return self.about[0]


class History:
    """Records of earlier runs, and of this one.

    Args:
        videos: paths of all files of this run. A settled record of another path counts for a file with its key: the
            file moved.
        retry: try all failures again (True), none (False), or those that may pass another time (None).
    """

    def __init__(self, videos: Collection[str], retry: bool | None):
        self._videos, self._retry = videos, retry
        self._settled: dict[str, list[_Settled]] = defaultdict(list)
        self._answer_at: dict[str, int] = {}  # offset of an answer with this key
        self._failed: dict[About, int] = {}  # attempts, by what failed
        self._made: dict[About, str] = {}  # how answers of earlier runs were made, as JSON; the same text is one object
        self._texts: dict[str, str] = {}
        self.stale = False  # whether a failure was followed by another record of the same question

    def add(self, line: Line) -> None:
        """Take the next line of the file."""
        record = line.record
        self.stale |= about(record) in self._failed
        if record["ok"]:
            self._settled[record["key"]].append(_Settled(about(record), "answered", line.offset))
            self._answer_at[record["key"]] = line.offset
            text = json.dumps(conditions_of_record(record), sort_keys=True)
            self._made[about(record)] = self._texts.setdefault(text, text)
            return
        kind = record["error"]["type"]
        for_good = kind in FOR_GOOD
        if self._retry is False or ((for_good or kind == POISON) and not self._retry):
            state: State = "set aside" if for_good else "failed"
            self._settled[record["key"]].append(_Settled(about(record), state, line.offset))
        self._failed[about(record)] = max(self.attempts(about(record)), record.get("attempts", 1))

    def claim(self, key: str, video: str, fits: Callable[[About], bool] = lambda _: True) -> State | None:
        """The state of a settled record with ``key`` that ``fits``; None if there is none. Each record is claimed once,
        so that two copies of a file have a record each."""
        settled = self._settled.get(key, [])
        moved = [entry for entry in settled if entry.video not in self._videos]
        for entry in [entry for entry in settled if entry.video == video] + moved:
            if fits(entry.about):
                settled.remove(entry)
                return entry.state
        return None

    def claims(self, item: Item, keys: Sequence[str]) -> list[State | None]:
        """``claim`` for each question of ``item``, by its key. Questions that differ in id or choices alone have one
        key: each takes the record with its own, before any takes one with another id. A record with other choices is
        one of another question, unless this one has none."""
        pairs = list(zip(item.questions, keys, strict=True))
        claimed = [self.claim(key, item.video, partial(_is_of, question)) for question, key in pairs]
        return [
            self.claim(key, item.video, partial(_may_be_of, question)) if state is None else state
            for (question, key), state in zip(pairs, claimed)
        ]

    @property
    def settled(self) -> int:
        """How many records there are that no run makes again and none has claimed."""
        return sum(map(len, self._settled.values()))

    def remember_answer(self, key: str, offset: int) -> None:
        """Take note of an answer of this run."""
        self._answer_at[key] = offset

    def answer_at(self, key: str) -> int | None:
        """Where in the file an answer with ``key`` begins, whatever its video is called; None if there is none."""
        return self._answer_at.get(key)

    def attempts(self, what: About) -> int:
        """How often this failed before."""
        return self._failed.get(what, 0)

    def made_otherwise(self, questions: Iterable[About], conditions: Mapping[str, Any]) -> list[str]:
        """Of the answers to ``questions`` that were made under other ``conditions``, how many there are and what
        differs."""
        now = json.dumps(conditions, sort_keys=True)
        counts = Counter(text for what in questions if (text := self._made.get(what)) is not None and text != now)
        return [
            f"{count:,} answer{'s were' if count > 1 else ' was'} made with "
            f"{describe_changes(json.loads(text), conditions)}"
            for text, count in counts.items()
        ]


def _is_of(question: Question, what: About) -> bool:
    return what[1:] == question.identity


def _may_be_of(question: Question, what: About) -> bool:
    return not question.choices or what[3:] == question.choices


def about(record: Mapping[str, Any]) -> About:
    """What a record is about, as ``Question.identity`` has it after the video."""
    choices = record.get("choices")
    return (
        record["video"],
        record["question"],
        record.get("id"),
        *map(str, choices if isinstance(choices, list) else ()),
    )


def about_record(record: Record) -> About:
    choices = (record.model_extra or {}).get("choices")
    return record.video, record.question, record.id, *map(str, choices or ())


def read(path: Path, videos: Collection[str], retry: bool | None) -> History:
    """The history in a file that nobody has to lock; empty if there is none. UsageError as ``read_lines``."""
    history = History(videos, retry)
    for line in read_lines(path):
        history.add(line)
    return history
