"""The questions on one clip, from its file to their records: what is tried again with less, and what fails for which
of them; and the questions of several clips, decoded together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cg_cli import records
from cg_cli.backbones.batching import BLOCK
from cg_cli.engine import answer, memory, metrics, pipeline
from cg_cli.engine.inputs import AnswerInputs
from cg_cli.engine.pipeline import Decoded, Prefilled
from cg_cli.errors import ItemError
from cg_cli.media.clip import Clip

if TYPE_CHECKING:
    from cg_cli.engine.session import Session

QUESTION_TOKENS = 1024  # that a question may have, however long the clip is
BATCH_BLOCK = 256  # tokens of questions on one clip that are decoded with those of others: the mask grows with them
MAX_TRIES = 2  # of a clip that runs out of memory

Record = records.Answer | records.Failure


@dataclass(frozen=True)
class Question:
    """A question on a clip, with the key of its record."""

    identity: dict[str, str]

    @property
    def text(self) -> str:
        return self.identity["question"]


@dataclass
class Attempt:
    """One try at a clip, with the budget that is left. ItemError from stages that concern all of its questions, and for
    want of memory."""

    session: Session
    inputs: AnswerInputs
    clip: Clip
    keep: float
    media_seconds: float
    on_stage: Callable[[str], None]
    on_text: Callable[[str], None] | None
    note: str = ""
    _prefilled: Prefilled | None = field(default=None, init=False)
    _answered: int = field(default=0, init=False)

    def prefill(self) -> Prefilled:
        """Everything that questions on the clip share, done once."""
        if self._prefilled is None:
            session = self.session
            metrics.reset_peak_bytes(session.backbone.device)
            self._prefilled = pipeline.prepare(session.backbone, self.clip, session.pruner, self.keep, self.on_stage)
            if session.observer:
                session.observer.pruned(self._prefilled.pruned)
        return self._prefilled

    def release_tensors(self) -> None:
        """Let go what decoding does not need, while other clips are prefilled."""
        prefilled = self.prefill()
        if prefilled.prefix is not None:
            self._prefilled = replace(prefilled, pruned=prefilled.pruned.without_tensors())

    def answer(self, questions: Sequence[Question], together: bool) -> Iterator[Record]:
        """The record of each question, in order, as it is answered."""
        prefilled = self.prefill()
        for group in self.groups(questions, together):
            if isinstance(group, records.Failure):
                yield group
                continue
            side_by_side = self._decode_together(prefilled, group) if len(group) > 1 else None
            if side_by_side is not None:
                yield from side_by_side
            else:
                yield from (self._decode(prefilled, question) for question in group)

    def groups(
        self, questions: Sequence[Question], together: bool, block: int | None = None
    ) -> Iterator[list[Question] | records.Failure]:
        """``questions`` in order: those that are decoded side by side, of ``block`` tokens at most, and the failure of
        each that no model could read."""
        session, prefilled = self.session, self.prefill()
        left = session.backbone.context_length - math.ceil(prefilled.pruned.stream.next_position)
        most = max(left - session.sampling.max_new_tokens, QUESTION_TOKENS)
        packed = together and prefilled.prefix is not None
        group: list[Question] = []
        size = 0
        for question in questions:
            failure, tokens = self._check(question, most)
            if group and (failure or not packed or size + tokens > (block or BLOCK)):
                yield group
                group, size = [], 0
            if failure:
                yield failure
            else:
                group.append(question)
                size += tokens
        if group:
            yield group

    def _check(self, question: Question, most: int) -> tuple[records.Failure | None, int]:
        """The number of a question's tokens, and its failure if it cannot be read or has more than ``most``."""
        try:
            count, _ = pipeline.run_stage(
                "decode", metrics.CPU, lambda: len(self.session.backbone.question_ids(question.text))
            )
        except ItemError as error:
            return answer.failure(question.identity, error), 0
        return (answer.failure(question.identity, answer.too_long(count, most)) if count > most else None), count

    def _decode_together(self, prefilled: Prefilled, questions: Sequence[Question]) -> list[Record] | None:
        """The records of all questions; None where one of them may have spoilt it for all, so that apart the others
        succeed."""
        self.on_stage("decode")
        texts = [question.text for question in questions]
        try:
            answers = pipeline.decode(self.session.backbone, prefilled, texts, self.session.sampling)
        except ItemError as error:
            if error.kind == memory.OUT_OF_MEMORY:
                raise
            return None
        return [self.record(question, decoded) for question, decoded in zip(questions, answers)]

    def _decode(self, prefilled: Prefilled, question: Question) -> Record:
        session = self.session
        self.on_stage("decode")
        try:
            (decoded,) = pipeline.decode(session.backbone, prefilled, [question.text], session.sampling, self.on_text)
        except ItemError as error:
            if error.kind == memory.OUT_OF_MEMORY:
                raise
            self._answered += 1
            return answer.failure(question.identity, error)
        if session.observer and decoded.layerwise is not None:
            session.observer.prefilled(decoded.layerwise)
        return self.record(question, decoded)

    def record(self, question: Question, decoded: Decoded) -> Record:
        """The record of an answer, in the order of the questions: the first one counts what the clip took."""
        reused = self._answered > 0
        self._answered += 1
        make = lambda: self.session.record(
            question.identity,
            self.inputs,
            self.prefill(),
            decoded,
            media_seconds=self.media_seconds,
            reused=reused,
            note=self.note,
        )
        try:
            return pipeline.run_stage("decode", metrics.CPU, make)[0]
        except ItemError as error:
            return answer.failure(question.identity, error)


@dataclass
class ClipQuestions:
    """Questions on a clip.

    Attributes:
        pending: those without a record.
        attempt: what is tried at present; None where the file could not be read.
        fault: what the stages before decoding ended in.
    """

    session: Session
    pending: list[Question]
    attempt: Attempt | None
    fault: ItemError | None = None
    tries: int = 1

    def prefill(self) -> None:
        """The stages that all questions share. A failure is kept for ``records``."""
        if self.attempt is None or self.fault is not None:
            return
        try:
            self.attempt.prefill()
            self.attempt.release_tensors()
        except ItemError as error:
            self.fault = ItemError(error.stage, str(error), error.kind)

    @property
    def kv_bytes(self) -> int | None:
        """Of the KV cache that its questions share; None where there is none: the clip is answered by itself."""
        prefix = self.attempt.prefill().prefix if self.attempt and self.fault is None else None
        return prefix.kv_bytes if prefix else None

    @property
    def wants_memory(self) -> bool:
        """Whether it ran out of memory, and may be tried with less."""
        return self.fault is not None and self.fault.kind == memory.OUT_OF_MEMORY

    def records(self, *, together: bool) -> Iterator[Record]:
        """One record a pending question, in order, as each is answered. Running out of memory is tried once more with
        half of the budget.

        Args:
            together: decode all questions side by side, as far as that works.
        """
        while self.pending:
            error = self.fault
            if error is None and self.attempt is not None:
                try:
                    for record in self.attempt.answer(list(self.pending), together):
                        self.pending.pop(0)
                        yield record
                    return
                except ItemError as fault:
                    error = ItemError(fault.stage, str(fault), fault.kind)
            assert error is not None
            # Only out here is the exception gone, which held the tensors of its frames.
            if not self._shrink(error):
                while self.pending:
                    yield answer.failure(self.pending.pop(0).identity, error, attempts=self.tries)

    def _shrink(self, error: ItemError) -> bool:
        """Whether there is another try, with half of the budget."""
        attempt, session = self.attempt, self.session
        if attempt is None or error.kind != memory.OUT_OF_MEMORY or self.tries == MAX_TRIES:
            return False
        less = memory.shrink_after_oom(attempt.clip, attempt.keep, session.pruner, error.stage)
        if less is None:
            return False
        memory.release(session.backbone.device)
        clip, keep, change = less
        note = f"out of memory on {session.backbone.device} in {error.stage}: tried again with {change}"
        self.attempt, self.fault = replace(attempt, clip=clip, keep=keep, note=note), None
        self.tries += 1
        return True


def answer_together(clips: Sequence[ClipQuestions]) -> Iterator[tuple[int, Record]]:
    """The records of all pending questions of prefilled clips of one session, each with the number of its clip, in
    order, as they are answered.

    What can be is decoded together. Whatever goes wrong there, or cannot be, is answered clip by clip.
    """
    numbers = [number for number, clip in enumerate(clips) if _fits_batch(clip)]
    ahead = _batch(clips, numbers) if len(numbers) > 1 else iter(())
    for number, clip in enumerate(clips):
        while number in numbers and clip.pending:
            record = next(ahead, None)
            if record is None:
                break
            yield number, record
        for record in clip.records(together=True):
            yield number, record


def _fits_batch(clip: ClipQuestions) -> bool:
    """Whether the questions of a clip can be decoded with those of others: all at once, from one prefix. More of them
    than that are a batch by themselves."""
    if clip.attempt is None or clip.kv_bytes is None:
        return False
    groups = list(clip.attempt.groups(clip.pending, True, BATCH_BLOCK))
    return len(groups) == 1 and isinstance(groups[0], list)


def _batch(clips: Sequence[ClipQuestions], numbers: Sequence[int]) -> Iterator[Record]:
    """The records of the clips of these ``numbers``, decoded together, clip by clip in the order of their questions,
    until something goes wrong."""
    attempts = [attempt for number in numbers if (attempt := clips[number].attempt)]
    session = attempts[0].session
    questions = [(row, question) for row, number in enumerate(numbers) for question in clips[number].pending]
    attempts[0].on_stage("decode")
    decoded: dict[int, Decoded] = {}  # those whose turn has not come
    turn = 0
    try:
        for at, answered in pipeline.decode_batch(
            session.backbone,
            [attempt.prefill() for attempt in attempts],
            [(row, question.text) for row, question in questions],
            session.sampling,
        ):
            decoded[at] = answered
            while turn in decoded:
                row, question = questions[turn]
                clips[numbers[row]].pending.pop(0)
                yield attempts[row].record(question, decoded.pop(turn))
                turn += 1
    except ItemError:
        return  # clip by clip it shows whose fault it is
