"""The policy around the pipeline: every question becomes a record, failures too, and running out of memory is tried
once more.

A session knows no model family and no pruner by name, and prints nothing.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cg_cli import media, records
from cg_cli.backbones.base import QUESTION_BLOCK, Backbone, LayerwisePrefill
from cg_cli.engine import answer, memory, metrics, pipeline
from cg_cli.engine.inputs import AnswerInputs, Sampling, video_content
from cg_cli.engine.pipeline import Decoded, Prefilled, Pruned, ignore
from cg_cli.engine.rules import answer_inputs
from cg_cli.errors import ItemError
from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.predictors.files import weights_sha256
from cg_cli.predictors.lookup import LoadedPredictor
from cg_cli.pruning.base import Pruner

AUDIO_SHARE = 0.9  # of a clip's tokens, above which it is said
QUESTION_TOKENS = 1024  # that a question may have, however long the clip is

Record = records.Answer | records.Failure


class PruningObserver(Protocol):
    """Who is told what is kept of a clip, while the tensors are there."""

    def pruned(self, pruned: Pruned) -> None: ...

    def prefilled(self, layerwise: LayerwisePrefill) -> None: ...


@dataclass(frozen=True)
class Reading:
    """One file, read: the Clip or why there is none, what tells the file from others, and the seconds that it took."""

    clip: Clip | ItemError
    content: str
    seconds: float


@dataclass(frozen=True)
class _Question:
    """A question on a clip, with the key of its record."""

    identity: dict[str, str]

    @property
    def text(self) -> str:
        return self.identity["question"]


@dataclass
class Session:
    """Answers questions with one model and one pruner.

    Attributes:
        pruner: with its predictor, if it reads one.
        keep: share of audio and video tokens that stays.
        decode_options: how a file becomes a Clip that the model can read.
        predictor: that ``pruner`` reads, with what people call it.
        preset: name of the preset that chose pruner and keep, for the record.
        quantize: what the language model's weights were quantized to.
        warnings: about the model and the predictor, for every record.
        observer: told what is kept.
    """

    backbone: Backbone
    pruner: Pruner
    keep: float
    sampling: Sampling
    decode_options: DecodeOptions
    predictor: LoadedPredictor | None = None
    preset: str | None = None
    quantize: str = "none"
    warnings: tuple[str, ...] = ()
    observer: PruningObserver | None = None

    @property
    def inputs(self) -> AnswerInputs:
        """What every answer of this session depends on; video and question are left empty."""
        predictor = self.predictor.sha256 if self.predictor else None
        if predictor is None and self.pruner.predictor is not None:
            predictor = weights_sha256(self.pruner.predictor)
        return answer_inputs(
            self.backbone,
            self.backbone.id,
            self.backbone.revision,
            metrics.dtype_name(self.backbone.dtype),
            self.quantize,
            self.pruner,
            self.keep,
            predictor,
            self.decode_options,
            self.sampling,
        )

    def read(self, video: str, decode: Callable[[str, DecodeOptions], Clip] = media.decode) -> Reading:
        """Stage "media": the file becomes a Clip. Never raises for a fault of the file.

        Args:
            video: path of a media file.
            decode: does it; may run in any thread, also while the model is at work on another clip.
        """
        content = video_content(video)
        started = time.perf_counter()
        try:
            clip: Clip | ItemError = pipeline.run_stage(
                "media", metrics.CPU, lambda: replace(decode(video, self.decode_options), content=content)
            )[0]
            if video_content(video) != content:
                raise ItemError("media", f"{video!r} changed while it was read: ask again when it is whole", "changed")
        except ItemError as error:
            clip = error
        return Reading(clip, content, time.perf_counter() - started)

    def answer(
        self,
        video: str,
        questions: Sequence[str],
        reading: Reading | None = None,
        *,
        together: bool = False,
        on_stage: Callable[[str], None] = ignore,
        on_text: Callable[[str], None] | None = None,
    ) -> Iterator[Record]:
        """One record a question, in order, as each is answered; a failure is a record too. All share one prefill.

        Args:
            video: path of a media file.
            questions: at least one.
            reading: ``read(video)``, if that was done already.
            together: decode all questions side by side, as far as that works.
            on_stage: told the name of each stage as it starts.
            on_text: told each piece of an answer as it is generated; not of answers decoded side by side.
        """
        if reading is None:
            on_stage("media")
            reading = self.read(video)
        inputs = replace(self.inputs, video=reading.content)
        pending = [_Question(answer.identity(inputs, video, question)) for question in questions]
        if isinstance(reading.clip, ItemError):
            yield from (answer.failure(question.identity, reading.clip) for question in pending)
            return
        attempt = _Attempt(self, inputs, reading.clip, self.keep, reading.seconds, on_stage, on_text)
        for attempts in (1, 2):
            try:
                for record in attempt.answer(pending, together):
                    pending.pop(0)
                    yield record
                return
            except ItemError as fault:
                error = ItemError(fault.stage, str(fault), fault.kind)
            # Only out here is the exception gone, which held the tensors of its frames.
            again = error.kind == memory.OUT_OF_MEMORY and attempts == 1
            less = memory.shrink_after_oom(reading.clip, self.keep, self.pruner, error.stage) if again else None
            if less is None:
                yield from (answer.failure(question.identity, error, attempts=attempts) for question in pending)
                return
            memory.release(self.backbone.device)
            clip, keep, change = less
            note = f"out of memory on {self.backbone.device} in {error.stage}: tried again with {change}"
            attempt = dataclasses.replace(attempt, clip=clip, keep=keep, note=note)

    def record(
        self,
        identity: dict[str, str],
        inputs: AnswerInputs,
        prefilled: Prefilled,
        decoded: Decoded,
        *,
        media_seconds: float,
        reused: bool,
        note: str = "",
    ) -> Record:
        """The record of an answer, or the failure of one without a word; arguments as for ``answer.answer``, and a
        ``note`` for its warnings."""
        if not decoded.generation.text.strip():
            return answer.failure(identity, answer.no_words())
        own = decoded.prefill_seconds + decoded.seconds
        pruned = prefilled.pruned
        before = media_seconds + pruned.encoded.seconds + pruned.seconds + prefilled.seconds
        return answer.answer(
            identity,
            inputs,
            self.backbone,
            prefilled,
            decoded,
            media_seconds=media_seconds,
            total_seconds=own if reused else own + before,
            reused=reused,
            preset=self.preset,
            predictor=self.predictor.label if self.predictor else None,
            warnings=[*self._warnings(prefilled), *([note] if note else [])],
        )

    def _warnings(self, prefilled: Prefilled) -> list[str]:
        pruned, name = prefilled.pruned, self.pruner.name
        warnings = [*self.warnings, *pruned.encoded.clip.warnings]
        if self.predictor and not pruned.encoded.tokens["audio"] and pruned.keep < 1:
            warnings.append(f"no sound to predict the picture from: {name} prunes by detail and time alone")
        audio, video = (pruned.encoded.tokens[kind] for kind in ("audio", "video"))
        if video and audio > AUDIO_SHARE * (audio + video):
            warnings.append(
                f"{audio / (audio + video):.0%} of the clip's tokens are sound: --no-audio or a larger --max-frames "
                "leaves the picture more"
            )
        if prefilled.prefix is None:
            warnings.append(f"pruner {name} reads the question: every question pays for a prefill of its own")
        position, length = pruned.stream.next_position, self.backbone.context_length
        if position + self.sampling.max_new_tokens > length:
            warnings.append(
                f"the clip reaches position {position:.0f} of the {length} that the model was made for: "
                f"answers may suffer; a shorter clip helps, a smaller --keep does not"
            )
        return warnings


@dataclass
class _Attempt:
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
    _answered: int = dataclasses.field(default=0, init=False)

    def answer(self, questions: Sequence[_Question], together: bool) -> Iterator[Record]:
        session = self.session
        metrics.reset_peak_bytes(session.backbone.device)
        prefilled = pipeline.prepare(session.backbone, self.clip, session.pruner, self.keep, self.on_stage)
        if session.observer:
            session.observer.pruned(prefilled.pruned)
        for group in self._groups(prefilled, list(questions), together):
            if isinstance(group, records.Failure):
                yield group
                continue
            side_by_side = self._decode_together(prefilled, group) if len(group) > 1 else None
            if side_by_side is not None:
                yield from side_by_side
            else:
                yield from (self._decode(prefilled, question) for question in group)

    def _groups(
        self, prefilled: Prefilled, questions: Sequence[_Question], together: bool
    ) -> Iterator[list[_Question] | records.Failure]:
        """``questions`` in order: those that are decoded side by side, and the failure of each that no model could
        read."""
        session = self.session
        left = session.backbone.context_length - math.ceil(prefilled.pruned.stream.next_position)
        most = max(left - session.sampling.max_new_tokens, QUESTION_TOKENS)
        packed = together and prefilled.prefix is not None
        group: list[_Question] = []
        size = 0
        for question in questions:
            failure, tokens = self._check(question, most)
            if group and (failure or not packed or size + tokens > QUESTION_BLOCK):
                yield group
                group, size = [], 0
            if failure:
                yield failure
            else:
                group.append(question)
                size += tokens
        if group:
            yield group

    def _check(self, question: _Question, most: int) -> tuple[records.Failure | None, int]:
        """The number of a question's tokens, and its failure if it cannot be read or has more than ``most``."""
        try:
            count, _ = pipeline.run_stage(
                "decode", metrics.CPU, lambda: len(self.session.backbone.question_ids(question.text))
            )
        except ItemError as error:
            return answer.failure(question.identity, error), 0
        return (answer.failure(question.identity, answer.too_long(count, most)) if count > most else None), count

    def _decode_together(self, prefilled: Prefilled, questions: Sequence[_Question]) -> list[Record] | None:
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
        return [self._record(prefilled, question, decoded) for question, decoded in zip(questions, answers)]

    def _decode(self, prefilled: Prefilled, question: _Question) -> Record:
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
        return self._record(prefilled, question, decoded)

    def _record(self, prefilled: Prefilled, question: _Question, decoded: Decoded) -> Record:
        reused = self._answered > 0
        self._answered += 1
        make = lambda: self.session.record(
            question.identity,
            self.inputs,
            prefilled,
            decoded,
            media_seconds=self.media_seconds,
            reused=reused,
            note=self.note,
        )
        try:
            return pipeline.run_stage("decode", metrics.CPU, make)[0]
        except ItemError as error:
            return answer.failure(question.identity, error)
