"""A model answers labelled questions about clips, each clip under many conditions: whole, pruned, without a part."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cg_cli import media
from cg_cli.engine import pipeline
from cg_cli.engine.inputs import Sampling
from cg_cli.engine.metrics import token_counts
from cg_cli.engine.pipeline import Decoded, Encoded, Prefilled
from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.nano.questions import right
from cg_cli.nano.smaller import Change, fewer_frames, fewer_pixels
from cg_cli.predictors import lookup
from cg_cli.pruning import registry
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget, plan
from cg_cli.pruning.stream import TEXT, Selection, apply
from cg_cli.settings import models
from cg_cli.settings.table import NO_PRUNER

MAX_NEW_TOKENS = 64
TOGETHER = 8  # conditions whose questions are answered in one batch: three times as fast on one core as one by one
ALL_PARTS, NO_VIDEO, NO_AUDIO, NOTHING = "all", "no video", "no audio", "neither"
_WITHOUT: dict[str, Callable[[Clip], Clip]] = {
    NO_VIDEO: lambda clip: replace(clip, frames=None, frame_times=None),
    NO_AUDIO: lambda clip: replace(clip, audio=None, audio_status="off"),
}
DOWNSAMPLE, FEWER_FRAMES = "downsample", "fewer frames"
SMALLER: dict[str, Change] = {DOWNSAMPLE: fewer_pixels, FEWER_FRAMES: fewer_frames}


@dataclass(frozen=True)
class Condition:
    """A way to read a clip.

    Attributes:
        name: of its column.
        pruner, keep, options: what is left of the tokens.
        predictor: file of the audio-to-visual predictor; None for the model's own.
        parts: what of the clip is there at all; or one of SMALLER, which is no pruner but keeps to the budget of
            ``keep`` as far as whole rows, columns and grids can.
        folded: tokens that repeat others are merged into them before the pruner chooses (``Pruner.with_folding``).
        merged: every dropped token merges into a kept one after the pruner has chosen (``Pruner.with_merging``).
        reading: fields of ``DecodeOptions`` that the clip is read with instead of the defaults.
    """

    name: str
    pruner: str = NO_PRUNER
    keep: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    predictor: str | None = None
    parts: str = ALL_PARTS
    folded: bool = False
    merged: bool = False
    reading: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """Of one clip under one condition: right or wrong, question by question, and the share of the whole clip's audio
    and video tokens that was kept."""

    right: list[bool]
    kept: float


Answers = dict[str, Outcome]  # by condition
Encode = Callable[[tuple[tuple[str, Any], ...], str, float], Encoded]  # of reading, parts and keep


class Judge:
    """Asks about one clip after another; each process of ``judge_clips`` has its own."""

    def __init__(self, model: str, conditions: Sequence[Condition], threads: int):
        torch.set_grad_enabled(False)
        torch.set_num_threads(threads)
        self.backbone = models.load(model, device="auto", dtype="auto", offline=True)
        find = lru_cache(maxsize=None)(lambda path: lookup.find_predictor(path, self.backbone, offline=True))
        # By ratio, so that clips of one batch are about equally long.
        self.conditions = [(c, _pruner(c, find)) for c in sorted(conditions, key=lambda c: c.keep)]
        self.options = DecodeOptions(
            side_multiple=self.backbone.side_multiple, frame_multiple=self.backbone.frame_multiple
        )
        self.worker = media.DecodeWorker()

    def clip(self, folder: Path, rows: list[dict], wanted: Iterable[str]) -> Answers:
        """The answers to ``rows``, lines of ``labelled.jsonl`` in ``folder`` about one clip, under the conditions of
        the ``wanted`` names."""
        video = str(folder / rows[0]["video"])
        whole = lru_cache(maxsize=None)(lambda reading: self._read(video, reading))
        encode = lru_cache(maxsize=None)(lambda reading, parts, keep: self._encode(whole(reading), parts, keep))
        names, questions = set(wanted), [row["question"] for row in rows]
        todo = [(condition, pruner) for condition, pruner in self.conditions if condition.name in names]
        out: Answers = {}
        for start in range(0, len(todo), TOGETHER):
            batch = todo[start : start + TOGETHER]
            prefilled = [self._prefill(encode, condition, pruner) for condition, pruner in batch]
            for (condition, _), answers in zip(batch, self._answers(prefilled, questions)):
                hits = [right(row["category"], each.generation.text, row["answer"]) for row, each in zip(rows, answers)]
                full = _media_tokens(whole(condition.reading).tokens)
                out[condition.name] = Outcome(hits, _media_tokens(answers[0].tokens) / max(full, 1))
        return out

    def _read(self, video: str, reading: tuple[tuple[str, Any], ...]) -> Encoded:
        return pipeline.encode(self.backbone, self.worker.decode(video, replace(self.options, **dict(reading))))

    def _prefill(self, encode: Encode, condition: Condition, pruner: Pruner) -> Prefilled:
        # Either the clip is made smaller, or its tokens are pruned.
        size, keep = (condition.keep, 1.0) if condition.parts in SMALLER else (1.0, condition.keep)
        encoded = encode(condition.reading, condition.parts, size)
        return pipeline.prune_and_prefill(self.backbone, encoded, pruner, keep)

    def _answers(self, prefilled: Sequence[Prefilled], questions: Sequence[str]) -> list[list[Decoded]]:
        """The answers to all ``questions`` on each of ``prefilled``: together, but for those that have no prefix."""
        sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
        shared = [number for number, each in enumerate(prefilled) if each.prefix is not None]
        asked = [(row, question) for row in range(len(shared)) for question in questions]
        together = dict(pipeline.decode_batch(self.backbone, [prefilled[number] for number in shared], asked, sampling))
        out = {
            number: [together[row * len(questions) + at] for at in range(len(questions))]
            for row, number in enumerate(shared)
        }
        for number, each in enumerate(prefilled):
            if number not in out:
                out[number] = pipeline.decode(self.backbone, each, questions, sampling)
        return [out[number] for number in range(len(prefilled))]

    def _encode(self, whole: Encoded, parts: str, keep: float) -> Encoded:
        if parts in SMALLER:
            return self._encode_smaller(whole, SMALLER[parts], keep)
        if parts == NOTHING:
            return _cut(whole, Selection((whole.stream.modality == TEXT).nonzero()[:, 0]))
        return whole if parts == ALL_PARTS else pipeline.encode(self.backbone, _WITHOUT[parts](whole.clip))

    def _encode_smaller(self, whole: Encoded, change: Change, keep: float) -> Encoded:
        """The clip made smaller for the budget that it has at ``keep``. No encoder makes less of the sound, so it is
        thinned evenly where that budget does not keep all of it, as by most pruners."""
        budget = plan(whole.stream, keep)
        encoded = pipeline.encode(self.backbone, change(whole.clip, budget, self.options))
        thin = Budget(encoded.tokens["video"], budget.audio)
        return _cut(encoded, registry.make("uniform").select(encoded.stream, thin))


def _cut(encoded: Encoded, selection: Selection) -> Encoded:
    stream = apply(encoded.stream, selection)
    return replace(encoded, stream=stream, tokens=token_counts(stream))


def _media_tokens(tokens: Mapping[str, int]) -> int:
    return tokens["video"] + tokens["audio"]


def _pruner(condition: Condition, find) -> Pruner:
    pruner = registry.make(condition.pruner, **condition.options)
    found = find(condition.predictor) if pruner.needs_predictor else None
    pruner = pruner.with_predictor(found.predictor) if found else pruner
    pruner = pruner.with_folding() if condition.folded else pruner
    return pruner.with_merging("nearest") if condition.merged else pruner


_judge: Judge | None = None  # of this process


def _start(*arguments) -> None:
    global _judge
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _judge = Judge(*arguments)


def _end_with_parent() -> None:
    """A killed parent leaves nobody to answer for."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a process of a pool
    parent.join()
    os._exit(1)


def _clip(folder: Path, rows: list[dict], wanted: Iterable[str]) -> Answers:
    assert _judge is not None  # ``_start`` has run in this process
    return _judge.clip(folder, rows, wanted)


def by_clip(labelled: Path) -> dict[str, list[dict]]:
    """The lines of ``labelled.jsonl`` by video."""
    out = defaultdict(list)
    for line in labelled.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        out[row["video"]].append(row)
    return dict(out)


def judge_clips(
    model: str,
    folder: Path,
    clips: Mapping[str, list[dict]],
    conditions: Sequence[Condition],
    done: Mapping[str, set[str]] | None = None,
    workers: int | None = None,
) -> Iterator[tuple[str, Answers]]:
    """(video, its answers) of each of ``clips``, in the order in which they are done.

    Args:
        done: names of the conditions that a clip is not asked about again.
        workers: processes; by default one a core on CPUs, else one.
    """
    processes = workers or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    names = [condition.name for condition in conditions]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (model, list(conditions), 1)) as pool:
        jobs = {}
        for video, rows in clips.items():
            left = [name for name in names if name not in (done or {}).get(video, ())]
            jobs[pool.submit(_clip, folder, rows, left)] = video
        for job in as_completed(jobs):
            yield jobs[job], job.result()
