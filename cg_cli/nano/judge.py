"""A model answers labelled questions about clips, each clip under many conditions: whole, pruned, without a part."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cg_cli import media
from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.nano.questions import right
from cg_cli.predictors import lookup
from cg_cli.pruning import registry
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import plan
from cg_cli.pruning.stream import TEXT, Selection, TokenStream, apply
from cg_cli.settings import models
from cg_cli.settings.resolve import NONE

MAX_NEW_TOKENS = 64
ALL_PARTS, NO_VIDEO, NO_AUDIO, NOTHING = "all", "no video", "no audio", "neither"
_CHANGES: dict[str, Callable[[Clip], Clip]] = {
    ALL_PARTS: lambda clip: clip,
    NO_VIDEO: lambda clip: replace(clip, frames=None, frame_times=None),
    NO_AUDIO: lambda clip: replace(clip, audio=None, audio_status="off"),
    NOTHING: lambda clip: clip,
}


@dataclass(frozen=True)
class Condition:
    """A way to read a clip.

    Attributes:
        name: of its column.
        pruner, keep, options: what is left of the tokens.
        predictor: file of the audio-to-visual predictor; None for the model's own.
        parts: what of the clip is there at all.
    """

    name: str
    pruner: str = NONE
    keep: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    predictor: str | None = None
    parts: str = ALL_PARTS


Answers = dict[str, list[bool]]  # condition -> right or wrong, question by question


class Judge:
    """Asks about one clip after another; each process of ``judge_clips`` has its own."""

    def __init__(self, model: str, conditions: Sequence[Condition], threads: int):
        torch.set_grad_enabled(False)
        torch.set_num_threads(threads)
        self.backbone = models.load(model, device="auto", dtype="auto", offline=True)
        find = lru_cache(maxsize=None)(lambda path: lookup.find_predictor(path, self.backbone, offline=True))
        self.conditions = [(c, _pruner(c, find)) for c in conditions]
        self.options = DecodeOptions(
            side_multiple=self.backbone.side_multiple, frame_multiple=self.backbone.frame_multiple
        )
        self.worker = media.DecodeWorker()

    def clip(self, folder: Path, rows: list[dict]) -> Answers:
        """The answers to ``rows``, lines of ``labelled.jsonl`` in ``folder`` about one clip."""
        clip = self.worker.decode(str(folder / rows[0]["video"]), self.options)
        encode = lru_cache(maxsize=None)(lambda parts: self.backbone.encode(_CHANGES[parts](clip)))
        out: Answers = {}
        for condition, pruner in self.conditions:
            stream = self._pruned(encode(condition.parts), condition, pruner)
            prefix = self.backbone.prefill(stream)
            answers = self.backbone.answer_all(prefix, [row["question"] for row in rows], max_new_tokens=MAX_NEW_TOKENS)
            out[condition.name] = [right(row["category"], a.text, row["answer"]) for row, a in zip(rows, answers)]
        return out

    def _pruned(self, stream: TokenStream, condition: Condition, pruner: Pruner) -> TokenStream:
        if condition.parts == NOTHING:
            return apply(stream, Selection((stream.modality == TEXT).nonzero()[:, 0]))
        return apply(stream, pruner.select(stream, plan(stream, condition.keep)))


def _pruner(condition: Condition, find) -> Pruner:
    pruner = registry.make(condition.pruner, **condition.options)
    found = find(condition.predictor) if pruner.needs_predictor else None
    return pruner.with_predictor(found.predictor) if found else pruner


_judge: Judge | None = None  # of this process


def _start(*arguments) -> None:
    global _judge
    _judge = Judge(*arguments)


def _clip(folder: Path, rows: list[dict]) -> Answers:
    return _judge.clip(folder, rows)


def by_clip(labelled: Path) -> dict[str, list[dict]]:
    """The lines of ``labelled.jsonl`` by video."""
    out = defaultdict(list)
    for line in labelled.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        out[row["video"]].append(row)
    return dict(out)


def judge_clips(
    model: str, folder: Path, clips: Mapping[str, list[dict]], conditions: Sequence[Condition]
) -> Iterator[tuple[str, Answers]]:
    """(video, its answers) of each of ``clips``, in the order in which they are done; on CPUs a process a core, else
    one."""
    processes = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (model, list(conditions), 1)) as pool:
        jobs = {pool.submit(_clip, folder, rows): video for video, rows in clips.items()}
        for job in as_completed(jobs):
            yield jobs[job], job.result()
