"""``cg batch``: from collected items to an archive full of records, in five numbered stages.

Knows no model: an engine turns jobs into records, in processes of its own. What it promises: each question has one
settled record at the end, whatever happened between.
"""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from cg_cli import records
from cg_cli.batch.archive import Archive, Sink, open_sink
from cg_cli.batch.check import Agreement, agreement
from cg_cli.batch.history import read_lines
from cg_cli.batch.job import Job
from cg_cli.batch.pool import Outcome
from cg_cli.batch.settled import inputs_if_settled
from cg_cli.batch.shard import Shard
from cg_cli.batch.sidecar import Sidecar, check_sidecar
from cg_cli.batch.work import Work
from cg_cli.engine.inputs import AnswerInputs
from cg_cli.errors import SOME_FAILED, CgError, Interrupted
from cg_cli.evals.scores import Score, scores
from cg_cli.questions import Collected, Item
from cg_cli.records import Answer, Failure, Record
from cg_cli.settings.table import Settings


class Engine(Protocol):
    """What answers jobs: worker processes here, or a cluster."""

    def prepare(self, tell: Callable[[str], None]) -> None: ...

    def start(self) -> dict[str, Any]: ...

    def run(self, jobs: Iterator[Job]) -> Iterator[Outcome]: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Listener(Protocol):
    """Who is told how the run goes."""

    def note(self, message: str) -> None: ...

    def fault(self, message: str) -> None: ...

    def loaded(self, facts: Mapping[str, Any]) -> None: ...

    def clip(self, totals: Totals, item: Item, done: Sequence[Record]) -> None: ...

    def settled(self, totals: Totals) -> None: ...

    def skipped(self, totals: Totals, item: Item) -> None: ...

    def interrupted(self) -> None: ...


@dataclass
class Totals:
    """Counts of a run so far. Questions unless it says clips; tokens and operations of this run's clips, each counted
    once."""

    clips: int = 0
    questions: int = 0
    before: int = 0  # answered by earlier runs
    failed_before: int = 0  # in earlier runs, and not tried again
    set_aside: int = 0  # failed in earlier runs for what lies in the file itself
    answered: int = 0
    failed: int = 0
    faults: int = 0  # lines of the input that were left out
    clips_before: int = 0  # settled by earlier runs
    clips_done: int = 0
    clips_failed: int = 0
    tokens_full: int = 0
    tokens_kept: int = 0
    tokens_answered: int = 0
    flops: int = 0
    flops_prefill: int = 0
    flops_prefill_full: int = 0
    media_s: float = 0.0  # of video and sound that was read
    waited_s: float = 0.0  # models had nothing to do; the first clip of each run apart
    worked_s: float = 0.0
    read_s: float = 0.0
    seconds: float = 0.0  # wall clock since the model was loaded
    errors: dict[str, int] = field(default_factory=dict)  # failures of this run by type

    def add(self, done: Sequence[Record]) -> None:
        """Count records."""
        for record in done:
            if isinstance(record, Failure):
                self.failed += 1
                self.errors[record.error.type] = self.errors.get(record.error.type, 0) + 1
            else:
                self.answered += 1

    def add_clip(self, done: Sequence[Record], outcome: Outcome | None) -> None:
        """Count a clip with all of its records, and what its job took; None for a copy, which took nothing."""
        self.clips_done += 1
        answers = [record for record in done if isinstance(record, Answer)]
        self.clips_failed += len(answers) < len(done)
        if outcome is None:
            return
        self.waited_s += outcome.waited_s if self.clips_done > 1 else 0
        self.worked_s += outcome.worked_s
        self.read_s += outcome.read_s
        self.tokens_answered += sum(a.tokens.answer for a in answers)
        self.flops += sum(a.flops.decode for a in answers)
        if answers:
            first = answers[0]
            self.tokens_full += first.tokens.video + first.tokens.audio
            self.tokens_kept += first.tokens.video_kept + first.tokens.audio_kept
            prefill = records.prefills(answers)
            self.flops += first.flops.vision + first.flops.audio + first.flops.predictor + prefill
            self.flops_prefill += prefill
            self.flops_prefill_full += first.flops.prefill_full
            self.media_s += first.media.duration_s

    @property
    def settled(self) -> int:
        """Questions that need nothing more."""
        return self.before + self.failed_before + self.set_aside + self.answered + self.failed

    @property
    def incomplete(self) -> bool:
        """Whether something has no answer that could have one: what was set aside before is no news."""
        return bool(self.failed or self.failed_before or self.faults)


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes:
        out: a path, or ``-`` for stdout.
        shard: the part of the items that is this run's; all if None.
        retry: which failures of earlier runs are tried again, as for ``History``.
        max_failures: stop once so many clips have failed; None never does.
        check: share of the clips that are answered whole, too; None checks nothing.
        inputs: files besides the videos that the run reads: manifests, lists of questions. They are never written.
        command: the command line, for the sidecar.
    """

    settings: Settings
    collected: Collected
    out: str
    shard: Shard | None = None
    overwrite: bool = False
    retry: bool | None = None
    max_failures: int | None = None
    check: float | None = None
    inputs: Sequence[str | Path] = ()
    command: Sequence[str] = ()

    @cached_property
    def items(self) -> list[Item]:
        """Those of this shard."""
        return [item for item in self.collected.items if not self.shard or self.shard.has(item.video)]

    @property
    def file(self) -> str:
        """Where this shard's records go."""
        return str(self.shard.file(Path(self.out))) if self.shard and self.out != "-" else self.out


@dataclass(frozen=True)
class Report:
    """How a run ended: ``status`` is "finished", "interrupted" or "stopped" (too many failures). ``scores`` are those
    of all labelled multiple-choice questions that were asked for, answered by this run or before it; none where records
    go to a stream. ``check`` says how far the clips that ``--check`` drew agree with their whole."""

    status: str
    totals: Totals
    scores: Sequence[Score]
    check: Agreement | None = None

    def end(self, plan: Plan) -> int:
        """The exit code of a finished run: 0, all answered; 3, some failed or were left out. (4, nothing at all to do,
        is said before a run.)

        Raises:
            Interrupted, CgError: it did not finish; the message says what is left, and how to go on.
        """
        left = f"{self.totals.questions - self.totals.settled} questions are left"
        again = f"go on with: {shlex.join(['cg', *plan.command])}"
        if self.status == "interrupted":
            raise Interrupted(f"interrupted: {left}; {again}")
        if self.status == "stopped":
            failed = f"{self.totals.clips_failed} clip{'s' * (self.totals.clips_failed != 1)} failed"
            raise CgError(f"stopped, as {failed}: {left}; {again}")
        return SOME_FAILED if self.totals.incomplete else 0


def run(plan: Plan, engine: Engine, listener: Listener) -> Report:
    """Answer what the archive does not have.

    Raises:
        UsageError: settings, an archive or an input that cannot be used.
        CgError: the archive is being written by another run or cannot be written, or workers do not start.
        KeyboardInterrupt: the second interrupt.
    """
    items = plan.collected.items
    totals = Totals(faults=len(plan.collected.faults))
    for fault in plan.collected.faults:
        listener.fault(fault)
    if not plan.items:
        return Report("finished", totals, [])

    # 1. the archive, locked before anything slow begins
    videos = {item.video for item in items}
    sink = open_sink(plan.file, videos, inputs=plan.inputs, overwrite=plan.overwrite, retry=plan.retry)
    try:
        if isinstance(sink, Archive):
            check_sidecar(plan)
        if isinstance(sink, Archive) and sink.torn:
            listener.note(f"{plan.file} ended in a torn line of {sink.torn} bytes, which was cut off")
        # 2. no model where nothing is left for it
        if isinstance(sink, Archive) and (inputs := inputs_if_settled(plan, sink.history)):
            work = Work(plan, inputs, sink, totals, listener)
            if next(work.jobs(), None) is None:
                return Report("finished", totals, _scores(plan, work), _agreement(plan, work, sink))
            raise CgError(f"{plan.file} or a video changed while it was looked at: run the same command again")
        engine.prepare(listener.note)
        with _interrupts(engine, listener) as interrupted:
            try:
                # 3. the engine: models loaded in other processes
                try:
                    ready = engine.start()
                except KeyboardInterrupt:
                    totals.questions = sum(len(item.questions) for item in plan.items)
                    return Report("interrupted", totals, [])
                listener.loaded(ready["facts"])
                inputs = AnswerInputs(**ready["inputs"])
                sidecar = Sidecar(plan, ready["facts"], ready["inputs"]) if isinstance(sink, Archive) else None

                # 4. what is missing, clip by clip, into the engine; what comes out, into the archive
                started = time.perf_counter()
                work = Work(plan, inputs, sink, totals, listener)
                status = "finished"
                for outcome in engine.run(work.jobs()):
                    totals.seconds = time.perf_counter() - started
                    work.settle(outcome)
                    too_many = plan.max_failures is not None and totals.clips_failed >= plan.max_failures
                    if too_many and status == "finished":
                        status = "stopped"
                        engine.stop()
                if interrupted() and totals.settled < totals.questions:
                    status = "interrupted"
            finally:
                engine.close()
    finally:
        sink.close()

    # 5. what it came to
    results = _scores(plan, work) if sidecar else []
    checked = _agreement(plan, work, sink)
    if sidecar:
        sidecar.finish(status, totals, results, checked)
    return Report(status, totals, results, checked)


def _agreement(plan: Plan, work: Work, sink: Sink) -> Agreement | None:
    """Of all clips that this run or one before it has checked; None where nothing is to be checked."""
    if plan.check is None:
        return None
    lines: Iterable[Mapping[str, Any]] = work.checked  # of a stream, which nobody can read again
    if isinstance(sink, Archive):
        lines = filter(work.covers, (line.record for line in read_lines(Path(plan.file))))
    return agreement(lines, work.keys, plan.settings.certificate)


def _scores(plan: Plan, work: Work) -> list[Score]:
    lines = (line.record for line in read_lines(Path(plan.file)))
    return scores(filter(work.covers, lines), work.keys)


@contextmanager
def _interrupts(engine: Engine, listener: Listener) -> Iterator[Callable[[], bool]]:
    """Ctrl-C, or a scheduler's SIGTERM, lets the clips in work be finished; the second one ends everything at once."""
    interrupts = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            raise KeyboardInterrupt
        engine.stop()
        listener.interrupted()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: interrupts > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
