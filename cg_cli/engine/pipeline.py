"""The pipeline: encode, prune, prefill, decode. The one place where the order of the stages is written.

``cg ask``, ``cg batch``, ``cg profile``, nano's evaluation and a notebook run these functions. Each stage returns what
it made and the seconds that it took, the device's work included. Knows no file and no setting; prints nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch

from cg_cli.backbones.base import Backbone, LayerwisePrefill, Prefix
from cg_cli.backbones.decoding import Generation
from cg_cli.backbones.device import synchronize
from cg_cli.engine import memory
from cg_cli.engine.inputs import Sampling
from cg_cli.engine.metrics import clip_flops, repeated_tokens, token_counts
from cg_cli.errors import CgError, ItemError
from cg_cli.media.clip import Clip
from cg_cli.pruning import budget as budgets
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.decoder import DecoderPruner
from cg_cli.pruning.stream import Selection, TokenStream, apply
from cg_cli.util.text import one_line

T = TypeVar("T")
log = logging.getLogger(__name__)

STAGES = ("media", "encode", "prune", "prefill", "decode")


@dataclass(frozen=True)
class Encoded:
    """A clip as tokens.

    Attributes:
        stream: the unpruned prefix.
        tokens: its counts by "video", "audio" and "text".
        repeated: how many of the video tokens are copies of others, which were not encoded again.
        seconds: that encoding took.
    """

    clip: Clip
    stream: TokenStream
    tokens: dict[str, int]
    repeated: int
    seconds: float


@dataclass(frozen=True)
class Pruned:
    """What of a clip enters the language model.

    Attributes:
        stream: the pruned prefix; of a layer-wise pruner what enters the first layer.
        tokens: its counts.
        seconds: that choosing and merging took.
    """

    encoded: Encoded
    pruner: Pruner
    keep: float
    budget: Budget
    selection: Selection
    stream: TokenStream
    tokens: dict[str, int]
    seconds: float

    def without_tensors(self) -> Pruned:
        """The same, but for the embeddings, of which only the shapes are left."""
        encoded = replace(self.encoded, stream=_shapes(self.encoded.stream))
        return replace(self, encoded=encoded, stream=_shapes(self.stream))


@dataclass(frozen=True)
class Prefilled:
    """A clip that questions can be asked about.

    Attributes:
        prefix: its KV cache, which serves every question; None for a pruner that reads the question, which has the clip
            prefilled anew for each.
        flops: operations up to prefill (``metrics.clip_flops``).
        seconds: that the prefill took.
    """

    pruned: Pruned
    prefix: Prefix | None
    flops: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Decoded:
    """One answer.

    Attributes:
        layerwise: of a pruner that reads the question, the prefill of clip and question together.
        tokens: counts of what was kept; those of ``Pruned`` unless layers dropped more.
        prefill_seconds, seconds: of the prefill that this question paid for by itself, and of decoding; of questions
            answered together, ``seconds`` is an equal share.
        together: questions that were decoded side by side.
    """

    generation: Generation
    layerwise: LayerwisePrefill | None
    tokens: dict[str, int]
    prefill_seconds: float
    seconds: float
    together: int = 1


def _shapes(stream: TokenStream) -> TokenStream:
    return replace(stream, embeddings=stream.embeddings.to("meta"), carry={})


def ignore(stage: str) -> None:
    """Takes no notice of a stage."""


def prepare(
    backbone: Backbone, clip: Clip, pruner: Pruner, keep: float, on_stage: Callable[[str], None] = ignore
) -> Prefilled:
    """Encode, prune and prefill: everything that questions on a clip share.

    Args:
        keep: share of audio and video tokens that stays, in (0, 1].
        on_stage: called with the name of each stage as it starts.

    Raises:
        ItemError: with the stage that failed; kind "out_of_memory" where memory did not suffice.
    """
    on_stage("encode")
    return prune_and_prefill(backbone, encode(backbone, clip), pruner, keep, on_stage)


def prune_and_prefill(
    backbone: Backbone, encoded: Encoded, pruner: Pruner, keep: float, on_stage: Callable[[str], None] = ignore
) -> Prefilled:
    """The rest of ``prepare``, for a clip that is encoded already."""
    on_stage("prune")
    full = encoded.tokens
    check = lambda rows: memory.check_fits(backbone, encoded.clip, encoded.stream, rows, full, keep, pruner)
    kept = budgets.kept_count(full["video"] + full["audio"], keep) + full["text"]
    check(kept)
    pruned = prune(backbone, encoded, pruner, keep)
    if len(pruned.stream) > kept:  # the layers drop the rest
        check(len(pruned.stream))
    if not pruner.needs_question:
        on_stage("prefill")
    return prefill(backbone, pruned)


def encode(backbone: Backbone, clip: Clip) -> Encoded:
    """The towers turn the clip into tokens. ItemError, stage "encode"."""

    def work() -> tuple[TokenStream, dict[str, int], int]:
        stream = backbone.encode(clip)
        return stream, token_counts(stream), repeated_tokens(stream)

    (stream, tokens, repeated), seconds = run_stage("encode", backbone.device, work)
    return Encoded(clip, stream, tokens, repeated, seconds)


def prune(backbone: Backbone, encoded: Encoded, pruner: Pruner, keep: float) -> Pruned:
    """The pruner chooses which tokens stay, and dropped ones may merge into them. ItemError, stage "prune", also where
    the pruner does not keep exactly its budget."""

    def work() -> tuple[Budget, Selection, TokenStream, dict[str, int]]:
        ranked = encoded.stream if pruner.folds else replace(encoded.stream, same_as=None)
        budget = budgets.plan(ranked, keep)
        selection = pruner.prune(ranked, budget)
        stream = apply(encoded.stream, selection)
        tokens = token_counts(stream)
        if pruner.stage == "input":
            _check_budget(pruner, (tokens["video"], tokens["audio"]), budget)
        return budget, selection, stream, tokens

    (budget, selection, stream, tokens), seconds = run_stage("prune", backbone.device, work, f"pruner {pruner.name}")
    return Pruned(encoded, pruner, keep, budget, selection, stream, tokens, seconds)


def prefill(backbone: Backbone, pruned: Pruned) -> Prefilled:
    """The language model reads the clip once, for all questions, unless the pruner reads the question, too. ItemError,
    stage "prefill"."""
    if pruned.pruner.needs_question:
        return Prefilled(pruned, None, clip_flops(backbone, pruned), 0.0)
    prefix, seconds = run_stage("prefill", backbone.device, lambda: backbone.prefill(pruned.stream))
    return Prefilled(pruned, prefix, clip_flops(backbone, pruned), seconds)


def decode(
    backbone: Backbone,
    prefilled: Prefilled,
    questions: Sequence[str],
    sampling: Sampling,
    on_text: Callable[[str], None] | None = None,
) -> list[Decoded]:
    """Answer ``questions`` on one prefix, several of them side by side. ItemError, stage "decode" or, of a prefill that
    reads the question, "prefill"; with several questions it may be the fault of one.

    Args:
        on_text: called with each piece of text as it is generated; only with one question.
    """
    if prefilled.prefix is None:
        return [_decode_layerwise(backbone, prefilled.pruned, question, sampling, on_text) for question in questions]
    prefix, how, tokens = prefilled.prefix, asdict(sampling), prefilled.pruned.tokens
    if len(questions) == 1:
        work: Callable[[], list[Generation]] = lambda: [backbone.answer(prefix, questions[0], on_text=on_text, **how)]
    else:
        work = lambda: backbone.answer_all(prefix, questions, **how)
    generations, seconds = run_stage("decode", backbone.device, work)
    share = seconds / max(len(questions), 1)
    return [Decoded(generation, None, tokens, 0.0, share, len(questions)) for generation in generations]


def decode_batch(
    backbone: Backbone, prefilled: Sequence[Prefilled], questions: Sequence[tuple[int, str]], sampling: Sampling
) -> Iterator[tuple[int, Decoded]]:
    """Answer questions on several clips together; each comes with its number, when it is done. ItemError, stage
    "decode"; it may be the fault of one question.

    Args:
        prefilled: the clips; each has a prefix.
        questions: each with the number of its clip.
    """
    prefixes = [clip.prefix for clip in prefilled if clip.prefix is not None]
    answers = backbone.answer_batch(prefixes, questions, **asdict(sampling))
    while True:
        done, _ = run_stage("decode", backbone.device, lambda: next(answers, None))
        if done is None:
            return
        number, generation, seconds = done
        tokens = prefilled[questions[number][0]].pruned.tokens
        yield number, Decoded(generation, None, tokens, 0.0, seconds, len(questions))


def _decode_layerwise(
    backbone: Backbone, pruned: Pruned, question: str, sampling: Sampling, on_text: Callable[[str], None] | None
) -> Decoded:
    layerwise, prefill_seconds = prefill_question(backbone, pruned, question)
    generation, seconds = run_stage(
        "decode",
        backbone.device,
        lambda: backbone.answer_layerwise(layerwise, question, on_text=on_text, **asdict(sampling)),
    )
    video, audio = pruned.pruner.kept(layerwise.media)  # type: ignore[attr-defined]
    tokens = {**pruned.encoded.tokens, "video": video, "audio": audio}
    return Decoded(generation, layerwise, tokens, prefill_seconds, seconds)


def prefill_question(backbone: Backbone, pruned: Pruned, question: str) -> tuple[LayerwisePrefill, float]:
    """A prefill of clip and question whose layers drop tokens as the pruner says, and its seconds. ItemError, stage
    "prefill"."""
    pruner = pruned.pruner
    if not isinstance(pruner, DecoderPruner):
        raise ItemError("prefill", f"pruner {pruner.name} reads the question but does not act between layers", "pruner")

    def work() -> LayerwisePrefill:
        layerwise = backbone.prefill_layerwise(pruned.stream, question, pruner, pruned.budget)
        _check_budget(pruner, pruner.kept(layerwise.media), pruned.budget)
        return layerwise

    return run_stage("prefill", backbone.device, work, f"pruner {pruner.name}")


def _check_budget(pruner: Pruner, kept: tuple[int, int], budget: Budget) -> None:
    if sum(kept) != budget.count:
        raise ItemError("prune", f"pruner {pruner.name} kept {kept} tokens where {budget} was the budget", "budget")


def run_stage(name: str, device: torch.device, work: Callable[[], T], who: str = "") -> tuple[T, float]:
    """What ``work`` returns and the seconds that it took, the device's part included. Nothing but one-line errors gets
    out; one that is nobody's fault yet is told as that of ``who``."""
    started = time.perf_counter()
    try:
        result = work()
        synchronize(device)
    except CgError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        advice = "try fewer --max-frames, a smaller --max-pixels, or a smaller --keep"
        raise ItemError(name, f"out of memory on {device}: {advice}", memory.OUT_OF_MEMORY) from error
    except Exception as error:
        log.debug("stage %s failed", name, exc_info=True)
        reason = one_line(error) if str(error) else "no message"
        origin = f"{who}: " if who else ""
        message = f"{origin}{type(error).__name__}: {reason} (CG_DEBUG=1 shows the traceback)"
        raise ItemError(name, message, "internal") from error
    return result, time.perf_counter() - started
