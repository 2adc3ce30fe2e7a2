"""The policy around the pipeline: every question becomes a record, failures too, and running out of memory is tried
once more.

A session knows no model family and no pruner by name, and prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cg_cli import media, records
from cg_cli.backbones.base import Backbone, LayerwisePrefill
from cg_cli.engine import answer, metrics, pipeline, sound_share
from cg_cli.engine.attempts import Attempt, ClipQuestions, Question
from cg_cli.engine.certificate import Certificate
from cg_cli.engine.inputs import AnswerInputs, Sampling, video_content
from cg_cli.engine.pipeline import Decoded, Prefilled, Pruned, ignore
from cg_cli.engine.rules import answer_inputs
from cg_cli.errors import ItemError
from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.predictors.files import weights_sha256
from cg_cli.predictors.lookup import LoadedPredictor
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.methods.none import KeepAll

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


def read(video: str, options: DecodeOptions, decode: Callable[[str, DecodeOptions], Clip]) -> Reading:
    """See ``Session.read``, for a session with these options."""
    content = video_content(video)
    started = time.perf_counter()
    try:
        clip: Clip | ItemError = pipeline.run_stage(
            "media", metrics.CPU, lambda: replace(decode(video, options), content=content)
        )[0]
        if video_content(video) != content:
            raise ItemError("media", f"{video!r} changed while it was read: ask again when it is whole", "changed")
    except ItemError as error:
        clip = error
    return Reading(clip, content, time.perf_counter() - started)


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
        certificate: of the preset; a record says where it does not hold.
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
    certificate: Certificate | None = None
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
            self.backbone.repetition_penalty,
            self.backbone.positions,
        )

    @property
    def whole(self) -> Session:
        """The same model, which reads all tokens of a clip."""
        return replace(self, pruner=KeepAll(), keep=1.0, predictor=None, certificate=None, observer=None)

    def read(self, video: str, decode: Callable[[str, DecodeOptions], Clip] = media.decode) -> Reading:
        """Stage "media": the file becomes a Clip. Never raises for a fault of the file.

        Args:
            video: path of a media file.
            decode: does it; may run in any thread, also while the model is at work on another clip.
        """
        return read(video, self.decode_options, decode)

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
        return self.ask(video, questions, reading, on_stage=on_stage, on_text=on_text).records(together=together)

    def ask(
        self,
        video: str,
        questions: Sequence[str],
        reading: Reading,
        *,
        on_stage: Callable[[str], None] = ignore,
        on_text: Callable[[str], None] | None = None,
    ) -> ClipQuestions:
        """Questions about a clip, for which nothing is done yet; arguments as for ``answer``."""
        inputs = replace(self.inputs, video=reading.content)
        pending = [Question(answer.identity(inputs, video, question)) for question in questions]
        if isinstance(reading.clip, ItemError):
            return ClipQuestions(self, pending, None, reading.clip)
        return ClipQuestions(
            self, pending, Attempt(self, inputs, reading.clip, self.keep, reading.seconds, on_stage, on_text)
        )

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
        doubt = None
        if self.certificate:  # of an answer with the keep that it had, after running out of memory less
            doubt = self.certificate.doubt(replace(inputs, keep=pruned.keep), identity["question"])
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
            warnings=[*self._warnings(prefilled), *filter(None, [note, doubt])],
        )

    def _warnings(self, prefilled: Prefilled) -> list[str]:
        pruned, name = prefilled.pruned, self.pruner.name
        warnings = [*self.warnings, *pruned.encoded.clip.warnings]
        if self.predictor and not pruned.encoded.tokens["audio"] and pruned.keep < 1:
            warnings.append(f"no sound to predict the picture from: {name} prunes by detail alone")
        if line := sound_share.warning(self.backbone, pruned, self.decode_options):
            warnings.append(line)
        if prefilled.prefix is None:
            warnings.append(f"pruner {name} reads the question: every question pays for a prefill of its own")
        position, length = pruned.stream.next_position, self.backbone.context_length
        if position + self.sampling.max_new_tokens > length:
            warnings.append(
                f"the clip reaches position {position:.0f} of the {length} that the model was made for: "
                f"answers may suffer; a shorter clip helps, a smaller --keep does not"
            )
        return warnings
