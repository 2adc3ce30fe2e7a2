"""What a run has to do: which questions are open, which file answers them, and what becomes of what comes back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cg_cli import records
from cg_cli.batch.archive import Sink
from cg_cli.batch.check import UNCHECKED, drawn, unchecked
from cg_cli.batch.history import about
from cg_cli.batch.job import MAX_ATTEMPTS, Job
from cg_cli.engine.inputs import AnswerInputs, conditions, video_content
from cg_cli.errors import ItemError
from cg_cli.evals.matching import agree, right
from cg_cli.questions import Item, Question
from cg_cli.records import Answer, Failure, Record

if TYPE_CHECKING:
    from cg_cli.batch.pool import Outcome
    from cg_cli.batch.run import Listener, Plan, Totals


@dataclass(frozen=True)
class _Open:
    """Questions about one file that have no record yet, each with the key of its record."""

    item: Item
    questions: tuple[Question, ...]
    keys: tuple[str, ...]

    def part(self, first: int, last: int) -> _Open:
        """The questions from ``first`` until before ``last``."""
        return replace(self, questions=self.questions[first:last], keys=self.keys[first:last])


@dataclass
class _InWork:
    """A job that an engine has, and the records of its first questions as they came and as they were written."""

    work: _Open
    made: list[Record] = field(default_factory=list)
    written: list[Record] = field(default_factory=list)


@dataclass
class Work:
    """The questions of one run.

    Attributes:
        inputs: what every answer depends on.
        keys: of all questions of this run, answered or not, as far as they were looked at.
        checked: the records of this run with a check.
    """

    plan: Plan
    inputs: AnswerInputs
    sink: Sink
    totals: Totals
    listener: Listener
    keys: set[str] = field(default_factory=set)
    checked: list[Mapping[str, Any]] = field(default_factory=list)
    _choices: dict[str, set[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(set))  # by key
    _in_work: dict[int, _InWork] = field(default_factory=dict)
    _pending: dict[str, int] = field(default_factory=dict)  # number of the job that answers a key
    _copies: dict[int, list[_Open]] = field(default_factory=lambda: defaultdict(list))  # that wait for a job

    def jobs(self) -> Iterator[Job]:
        """The jobs of this shard whose questions are open, as they are asked for.

        A question whose key another job answers, about a byte-identical copy of the file, waits for that one; one that
        an answer in the archive has takes that.
        """
        plan, totals = self.plan, self.totals
        items = plan.items
        totals.clips, totals.questions = len(items), sum(len(item.questions) for item in items)
        questions = ((item.video, *question.identity) for item in items for question in item.questions)
        for change in self.sink.history.made_otherwise(questions, conditions(self.inputs)):
            self.listener.note(f"{change}: such questions are asked again")
        self.listener.settled(totals)
        number = 0
        for item in items:
            open_questions = self._unsettled(item)
            if not open_questions.questions:
                totals.clips_before += 1
                self.listener.skipped(totals, item)
                continue
            own = self._without_copies(open_questions)
            if own.questions:
                self._in_work[number] = _InWork(own)
                self._pending.update(dict.fromkeys(own.keys, number))
                texts = tuple(question.text for question in own.questions)
                yield Job(number, item.video, texts, check=self._is_drawn(item))
                number += 1

    def settle(self, outcome: Outcome) -> None:
        """Write what a job has made, and, once it is done, the records of the copies that waited for it."""
        job = self._in_work[outcome.number]
        before = len(job.made)
        job.made += outcome.records
        if outcome.error:
            last = len(job.work.keys) if outcome.done else len(job.made) + 1
            job.made += _failures(job.work.part(len(job.made), last), outcome.error)
        job.written += self._write(job.work.part(before, len(job.made)), job.made[before:])
        if not outcome.done:
            self.listener.settled(self.totals)
            return
        del self._in_work[outcome.number]
        for key in job.work.keys:
            self._pending.pop(key, None)
        self._end(job.work.item, job.written, outcome)
        by_key = dict(zip(job.work.keys, job.made, strict=True))
        for copy in self._copies.pop(outcome.number, []):
            self._end(copy.item, self._write(copy, [_copy_of(by_key[key], copy.item.video) for key in copy.keys]))

    def covers(self, record: Mapping[str, Any]) -> bool:
        """Whether a record answers a question of this run: other choices than any of it has make another question."""
        choices = self._choices.get(record["key"], set())
        return () in choices or about(record)[3:] in choices

    def _is_drawn(self, item: Item) -> bool:
        return drawn(self.inputs, video_content(item.video), self.plan.check)

    def _lacks_check(self, item: Item, answer: Answer) -> bool:
        """Whether a drawn clip has no check of its own and does not say why."""
        own = "copied_from" not in (answer.model_extra or {})
        return own and self._is_drawn(item) and not any(line.startswith(UNCHECKED) for line in answer.warnings)

    def _unsettled(self, item: Item) -> _Open:
        keys = self.inputs.keys(video_content(item.video), [question.text for question in item.questions])
        self.keys.update(keys)
        for question, key in zip(item.questions, keys):
            self._choices[key].add(question.choices)
        claims = self.sink.history.claims(item, keys)
        self.totals.before += claims.count("answered")
        self.totals.failed_before += claims.count("failed")
        self.totals.set_aside += claims.count("set aside")
        left = [(question, key) for question, key, state in zip(item.questions, keys, claims) if state is None]
        return _open(item, left)

    def _without_copies(self, work: _Open) -> _Open:
        """The questions that need the model. Those that an answer in the archive has are written, and those that a job
        before this one answers wait for it."""
        own: list[tuple[Question, str]] = []
        stored: list[tuple[Question, str]] = []
        answers: list[Record] = []
        waiting: dict[int, list[tuple[Question, str]]] = defaultdict(list)
        for question, key in zip(work.questions, work.keys):
            if key in self._pending:
                waiting[self._pending[key]].append((question, key))
            elif (answer := self.sink.answer(key)) is not None:
                stored.append((question, key))
                answers.append(_copy_of(answer, work.item.video))
            else:
                own.append((question, key))
        for number, pairs in waiting.items():
            self._copies[number].append(_open(work.item, pairs))
        if stored:
            self._end(work.item, self._write(_open(work.item, stored), answers))
        return _open(work.item, own)

    def _write(self, work: _Open, made: Sequence[Record]) -> list[Record]:
        done = [
            self._complete(work.item, question, record) for question, record in zip(work.questions, made, strict=True)
        ]
        self.sink.append(done)
        self.checked += [record.model_dump(by_alias=True) for record in done if record.ok and record.check]
        self.totals.add(done)
        return done

    def _end(self, item: Item, done: Sequence[Record], outcome: Outcome | None = None) -> None:
        """All records of a clip are written, or of those of its questions that one thing settles."""
        self.totals.add_clip(done, outcome)
        self.listener.clip(self.totals, item, done)

    def _complete(self, item: Item, question: Question, record: Record) -> Record:
        """The record with what the manifest says about its question."""
        own = {*Answer.model_fields, *Failure.model_fields, "schema", "correct", "copied_from", "shown"}
        more: dict[str, Any] = {key: value for key, value in question.more.items() if key not in own}
        if isinstance(record, Answer) and question.choices and question.expected is not None:
            more["correct"] = right(record.answer, question.expected, question.choices)
        if isinstance(record, Answer) and record.check:
            agrees = agree(record.answer, record.check.answer, question.choices)
            more["check"] = record.check.model_copy(update={"agrees": agrees})
        elif isinstance(record, Answer) and self._lacks_check(item, record):
            record = unchecked(record, "its worker ended at the first try")
        if isinstance(record, Failure):
            more["attempts"] = record.attempts + self.sink.history.attempts((item.video, *question.identity))
        return record.model_copy(update={"id": question.id, **more})


def _failures(work: _Open, error: ItemError) -> list[Record]:
    return [
        records.failure(
            {"key": key, "video": work.item.video, "question": question.text},
            error.stage,
            error.kind,
            str(error),
            attempts=MAX_ATTEMPTS,
        )
        for question, key in zip(work.questions, work.keys)
    ]


def _open(item: Item, pairs: Sequence[tuple[Question, str]]) -> _Open:
    return _Open(item, tuple(question for question, _ in pairs), tuple(key for _, key in pairs))


def _copy_of(record: Record, video: str) -> Record:
    """The record of a byte-identical copy of a file: what its first copy's has, at no cost."""
    update: dict[str, Any] = {"video": video, "copied_from": record.video}
    if isinstance(record, Answer):
        update |= {"prefix_reused": True, "latency_s": record.latency_s.model_copy(update={"total": 0.0})}
    # What the first copy's manifest says is not the second one's.
    plain = type(record).model_construct(**{name: getattr(record, name) for name in type(record).model_fields})
    return plain.model_copy(update=update)
