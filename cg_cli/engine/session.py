"""A loaded model and a pruner answer questions about clips: five numbered stages, from file to record.

The session knows no model family and no pruner by name, and prints nothing.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from cg_cli import media, records
from cg_cli.backbones.base import Backbone, Generation, LayerwisePrefill
from cg_cli.backbones.device import synchronize
from cg_cli.engine import memory, metrics
from cg_cli.engine.inputs import make_pruner, recipe
from cg_cli.engine.memory import OUT_OF_MEMORY
from cg_cli.engine.metrics import Prepared
from cg_cli.errors import CgError, ItemError
from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.predictors import lookup
from cg_cli.pruning import budget as budgets
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.stream import Selection, TokenStream, apply
from cg_cli.settings import models
from cg_cli.settings.resolve import Settings, decode_options

STAGES = ("media", "encode", "prune", "prefill", "decode")


def _ignore(stage: str) -> None:
    pass


class PruningObserver(Protocol):
    """Who is told what is kept of a clip, while the tensors are there."""

    def pruned(self, clip: Clip, stream: TokenStream, budget: Budget, selection: Selection, pruner: Pruner) -> None: ...

    def narrowed(self, found: LayerwisePrefill) -> None: ...


@dataclass(frozen=True)
class Reading:
    """Stage 1 of one clip, done: the Clip or why there is none, and the seconds it took."""

    clip: Clip | ItemError
    seconds: float


@dataclass
class Session:
    """Answers questions with one model and one pruner. ``settings.model`` is the model that was chosen."""

    settings: Settings
    backbone: Backbone
    pruner: Pruner
    predictor: str | None  # its label
    warnings: tuple[str, ...]
    observer: PruningObserver | None = None

    @classmethod
    def open(cls, settings: Settings) -> Session:
        """Load what ``settings`` ask for.

        Raises:
            UsageError: an unknown pruner, option, device or model, or a model that cannot be loaded.
        """
        pruner = make_pruner(settings)
        warnings = []
        if settings.predictor != lookup.AUTO and not pruner.needs_predictor:
            warnings.append(
                f"pruner {settings.pruner} uses no predictor: --predictor {settings.predictor} had no effect"
            )
        name = models.choose(settings.model, settings.device)
        known = models.KNOWN.get(name.lower())
        backbone = models.load(
            name, device=settings.device, dtype=settings.dtype, offline=settings.offline, quantize=settings.quantize
        )
        if known and known.warning:
            warnings.append(known.warning)
        found = (
            lookup.find_predictor(settings.predictor, backbone, offline=settings.offline)
            if pruner.needs_predictor
            else None
        )
        if found:
            pruner = pruner.with_predictor(found.predictor)
            warnings += found.notes
        elif pruner.needs_predictor and settings.keep < 1:
            warnings.append(
                f"no audio-to-visual predictor for {name}: {settings.pruner} prunes by detail and time alone; "
                f"`cg train-predictor` makes one, `cg fetch-predictor` lists those to be had, --predictor uses either"
            )
        return cls(settings, backbone, pruner, found.label if found else None, (*warnings, *backbone.warnings))

    @property
    def decode_options(self) -> DecodeOptions:
        """How a file becomes a Clip that this model can read."""
        return decode_options(self.settings, self.backbone)

    @property
    def recipe(self) -> dict[str, Any]:
        """What an answer depends on besides video and question: the other arguments of ``records.record_key``."""
        return recipe(
            self.settings, self.backbone, self.backbone.id, self.backbone.revision, self.pruner, self.predictor
        )

    def read(self, video: str, decode: Callable[[str, DecodeOptions], Clip] = media.decode) -> Reading:
        """Stage 1. media: the file becomes a Clip. Never raises for a fault of the file.

        Args:
            video: path of a media file.
            decode: does it; may run in any thread, also while the model is at work on another clip.
        """
        seconds: dict[str, float] = {}
        try:
            with _stage("media", torch.device("cpu"), seconds):
                clip = decode(video, self.decode_options)
        except ItemError as error:
            return Reading(error, seconds["media"])
        return Reading(clip, seconds["media"])

    def ask(
        self,
        video: str,
        questions: Sequence[str],
        *,
        on_stage: Callable[[str], None] = _ignore,
        on_text: Callable[[str], None] | None = None,
    ) -> Iterator[records.Answer | records.Failure]:
        """One record a question, in order, as each is answered; a failure is a record too. All share one prefill.

        Args:
            video: path of a media file.
            questions: at least one.
            on_stage: told the name of each stage as it starts.
            on_text: told each piece of an answer as it is generated.
        """
        started = time.perf_counter()
        identities = self._identities(records.video_identity(video), video, questions)
        on_stage("media")
        try:
            prepared = self._prepare(self.read(video), self.settings.keep, on_stage)
        except ItemError as error:
            yield from (_failed(identity, error) for identity in identities)
            return
        for number, identity in enumerate(identities):
            on_stage("decode")
            seconds: dict[str, float] = {}
            try:
                generation, own = self._reply(prepared, identity["question"], seconds, on_text)
            except ItemError as error:
                yield _failed(identity, error)
            else:
                seconds["total"] = time.perf_counter() - started
                yield self._answered(identity, own, generation, seconds, reused=number > 0)
            started = time.perf_counter()

    def ask_together(
        self,
        video: str,
        questions: Sequence[str],
        reading: Reading,
        identity: str,
        on_stage: Callable[[str], None] = _ignore,
    ) -> list[records.Answer | records.Failure]:
        """One record a question, all decoded side by side on one prefill. Out of memory is tried once more with a
        smaller budget, and the records say so.

        Args:
            video, reading: a media file, and ``read(video)``.
            identity: ``records.video_identity(video)``, from before it was read.
            on_stage: told the name of each stage as it starts.
        """
        identities = self._identities(identity, video, questions)
        try:
            return self._together(identities, reading, self.settings.keep, on_stage)
        except ItemError as error:
            if error.kind != OUT_OF_MEMORY or isinstance(reading.clip, ItemError):
                return [_failed(identity, error) for identity in identities]
            stage, device = error.stage, self.backbone.device
        # Only now that the exception is gone, which held the tensors of its frames.
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        clip, keep, how = memory.shrink_after_oom(reading.clip, self.settings.keep, self.settings.pruner, stage)
        try:
            done = self._together(identities, replace(reading, clip=clip), keep, on_stage)
        except ItemError as error:
            return [_failed(identity, error, attempts=2) for identity in identities]
        note = f"out of memory on {device} in {stage}: tried again with {how}"
        return [r.model_copy(update={"warnings": (*r.warnings, note)}) if r.ok else r for r in done]

    def _together(self, identities: list[dict[str, str]], reading: Reading, keep: float, on_stage) -> list:
        """The records of ``ask_together``. ItemError from stages 1 to 4, and for want of memory."""
        prepared = self._prepare(reading, keep, on_stage)
        on_stage("decode")
        if prepared.prefix is None:
            return [self._alone(identity, prepared, first=n == 0) for n, identity in enumerate(identities)]
        seconds: dict[str, float] = {}
        try:
            with _stage("decode", self.backbone.device, seconds):
                generations = self.backbone.answer_all(
                    prepared.prefix, [i["question"] for i in identities], **self._how
                )
        except ItemError as error:
            if error.kind == OUT_OF_MEMORY or len(identities) == 1:
                raise
            # One question may have spoilt it for all: apart, the others get their answers.
            return [self._alone(identity, prepared, first=n == 0) for n, identity in enumerate(identities)]
        share = seconds["decode"] / len(identities)
        before = sum(prepared.seconds.values())
        out = []
        for number, (identity, generation) in enumerate(zip(identities, generations)):
            if not generation.text.strip():
                out.append(_failed(identity, _wordless()))
                continue
            took = {"decode": share, "total": share + (0 if number else before)}
            out.append(
                self._answered(identity, prepared, generation, took, reused=number > 0, together=len(identities))
            )
        return out

    def _alone(self, identity: dict[str, str], prepared: Prepared, first: bool) -> records.Answer | records.Failure:
        """The record of one question of several; the ``first`` also takes the time of the clip. ItemError for want of
        memory."""
        seconds: dict[str, float] = {}
        try:
            generation, own = self._reply(prepared, identity["question"], seconds)
        except ItemError as error:
            if error.kind == OUT_OF_MEMORY:
                raise
            return _failed(identity, error)
        stages = STAGES[:4] if first else () if own.prefix else ("prefill",)
        seconds["total"] = seconds["decode"] + sum(own.seconds[stage] for stage in stages)
        return self._answered(identity, own, generation, seconds, reused=not first)

    def _reply(
        self, prepared: Prepared, question: str, seconds: dict[str, float], on_text: Callable[[str], None] | None = None
    ) -> tuple[Generation, Prepared]:
        """Stage 5. decode: the answer to one question, and the clip as this question found it; sets
        ``seconds["decode"]``."""
        own = prepared
        with _stage("decode", self.backbone.device, seconds):
            if prepared.prefix is not None:
                generation = self.backbone.answer(prepared.prefix, question, on_text=on_text, **self._how)
            else:
                found = self.backbone.prefill_layerwise(prepared.stream, question, self.pruner, prepared.budget)
                kept = self.pruner.kept(found.media)
                if sum(kept) != prepared.budget.count:
                    raise self._off_budget(kept, prepared.budget)
                if self.observer:
                    self.observer.narrowed(found)
                generation = self.backbone.answer_layerwise(found, question, on_text=on_text, **self._how)
                own = metrics.narrowed(prepared, found, kept, self.backbone, generation.question_tokens)
            if not generation.text.strip():
                raise _wordless()
        if own is not prepared:
            seconds["decode"] -= own.seconds["prefill"]
        return generation, own

    def _off_budget(self, kept: Any, budget: Budget) -> ItemError:
        return ItemError(
            "prune", f"pruner {self.settings.pruner} kept {kept} tokens where {budget} was the budget", "budget"
        )

    def _prepare(self, reading: Reading, keep: float, on_stage: Callable[[str], None]) -> Prepared:
        """Stages 2 to 4, after the reading. ItemError from whichever fails, the reading's own included."""
        backbone, device, seconds = self.backbone, self.backbone.device, {"media": reading.seconds}
        clip = reading.clip
        if isinstance(clip, ItemError):
            raise clip
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

        # 2. encode: the towers turn the clip into tokens
        on_stage("encode")
        with _stage("encode", device, seconds):
            stream = backbone.encode(clip)

        # 3. prune: some of them stay
        on_stage("prune")
        with _stage("prune", device, seconds):
            budget = budgets.plan(stream, keep)
            selection = self.pruner.select(stream, budget)
            pruned = apply(stream, selection)
            full, kept = metrics.token_counts(stream), metrics.token_counts(pruned)
            if self.pruner.stage == "input" and kept["video"] + kept["audio"] != budget.count:
                raise self._off_budget(kept, budget)

        if self.observer:
            self.observer.pruned(clip, stream, budget, selection, self.pruner)

        memory.check_fits(backbone, clip, len(pruned), full, keep, self.settings.pruner)

        # 4. prefill: the language model reads them once, for all questions, unless the pruner reads the question, too
        prefix, seconds["prefill"] = None, 0.0
        if not self.pruner.needs_question:
            on_stage("prefill")
            with _stage("prefill", device, seconds):
                prefix = backbone.prefill(pruned)

        flops = metrics.clip_flops(backbone, self.pruner, clip, stream, pruned, budget, full)
        warnings = [*self.warnings, *clip.warnings]
        if self.predictor and not full["audio"] and keep < 1:
            warnings.append(
                f"no sound to predict the picture from: {self.settings.pruner} prunes by detail and time alone"
            )
        if prefix is None:
            warnings.append(
                f"pruner {self.settings.pruner} reads the question: every question pays for a prefill of its own"
            )
        if pruned.next_position + self.settings.max_new_tokens > backbone.context_length:
            warnings.append(
                f"the clip reaches position {pruned.next_position:.0f} of the {backbone.context_length} that the model was made "
                f"for: answers may suffer; a shorter clip helps, a smaller --keep does not"
            )
        kv_bytes = prefix.kv_bytes if prefix else 0
        return Prepared(clip, keep, full, kept, pruned, budget, prefix, kv_bytes, flops, seconds, warnings)

    @property
    def _how(self) -> dict[str, Any]:
        """How questions are answered."""
        s = self.settings
        return {"max_new_tokens": s.max_new_tokens, "temperature": s.temperature, "seed": s.seed}

    def _answered(
        self, identity, own: Prepared, generation: Generation, seconds, *, reused: bool, **more
    ) -> records.Answer:
        reused = reused and own.prefix is not None
        return metrics.answered(
            identity,
            self.settings,
            self.backbone,
            self.pruner,
            self.predictor,
            own,
            generation,
            seconds,
            reused=reused,
            **more,
        )

    def _identities(self, identity: str, video: str, questions: Sequence[str]) -> list[dict[str, str]]:
        """Key, video and question of each record."""
        recipe = self.recipe
        return [
            {"key": records.record_key(video=identity, question=q, **recipe), "video": video, "question": q}
            for q in questions
        ]


def _failed(identity: dict[str, str], error: ItemError, **more) -> records.Failure:
    return records.failure(identity, error.stage, error.kind, str(error), **more)


def _wordless() -> ItemError:
    return ItemError("decode", "the model ended its turn without a word; ask in other words", "empty_answer")


@contextmanager
def _stage(name: str, device: torch.device, seconds: dict[str, float]) -> Iterator[None]:
    """Time a stage, the device's work included, and let nothing but a one-line ItemError out of it."""
    started = time.perf_counter()
    try:
        yield
        synchronize(device)
    except CgError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        advice = "try fewer --max-frames, a smaller --max-pixels, or a smaller --keep"
        raise ItemError(name, f"out of memory on {device}: {advice}", OUT_OF_MEMORY) from error
    except Exception as error:
        if os.environ.get("CG_DEBUG") == "1":
            raise
        reason = " ".join(str(error).split()) or "no message"
        raise ItemError(
            name, f"{type(error).__name__}: {reason} (CG_DEBUG=1 shows the traceback)", "internal"
        ) from error
    finally:
        seconds[name] = time.perf_counter() - started
