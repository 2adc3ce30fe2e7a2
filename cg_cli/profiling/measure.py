"""One clip under every cell: the latency of each stage, FLOPs, memory, and accuracy.

Prefill is compute-bound, decoding memory-bound: pruning shortens the one and leaves the other nearly as it is. So the
stages are timed apart, between two synchronizations of the device. Cells take turns, so that drift of the machine hits
all alike, and the whole clip is a cell of each round: the baseline of that round's ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from cg_cli.backbones.base import Backbone
from cg_cli.backbones.device import synchronize
from cg_cli.engine import metrics
from cg_cli.evals.matching import right
from cg_cli.media.clip import Clip
from cg_cli.pruning import budget as budgets
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.decoder import DecoderPruner
from cg_cli.pruning.stream import TokenStream, apply
from cg_cli.settings.resolve import NONE

T = TypeVar("T")

STEPS = 16  # tokens decoded to time a decode step


@dataclass(frozen=True)
class Cell:
    """A pruner at a keep ratio."""

    pruner: str
    keep: float

    @property
    def name(self) -> str:
        return f"{self.pruner} {self.keep:g}"


BASELINE = Cell(NONE, 1.0)


@dataclass(frozen=True)
class Ask:
    """A question, and the expected answer if it is labelled."""

    text: str
    expected: str | None = None
    choices: tuple[str, ...] = ()
    category: str = ""


@dataclass
class Bench:
    """A model and the pruners of all cells.

    Attributes:
        pruners: by cell; BASELINE is one of them.
        max_new_tokens: of an answer, where answers are compared.
    """

    backbone: Backbone
    pruners: Mapping[Cell, Pruner]
    max_new_tokens: int

    def clip(self, clip: Clip, asks: Sequence[Ask], repeat: int) -> dict[str, Any]:
        """``encode_s``, and by name of the cell in ``cells``: token counts, FLOPs, ``repeat`` times of each stage and,
        where questions are labelled, whether each answer was right."""
        encode_s = []
        for _ in range(max(repeat, 1)):
            elapsed, stream = self._timed(lambda: self.backbone.encode(clip))
            encode_s.append(elapsed)
        cells = list(self.pruners)
        if repeat:  # warm-up: every clip has shapes of its own
            for cell in cells:
                self._round(stream, cell, asks[0].text)
        out = {cell.name: {**self._counts(clip, stream, cell, asks[0].text), "times": []} for cell in cells}
        for turn in range(repeat):
            for cell in cells[turn % len(cells) :] + cells[: turn % len(cells)]:
                out[cell.name]["times"].append(self._round(stream, cell, asks[0].text))
        labelled = [ask for ask in asks if ask.expected is not None]
        if labelled:
            for cell in cells:
                out[cell.name]["right"] = self._right(stream, cell, labelled)
        return {"encode_s": encode_s, "category": [ask.category for ask in labelled], "cells": out}

    def _pruned(self, stream: TokenStream, cell: Cell) -> TokenStream:
        return apply(stream, self.pruners[cell].select(stream, budgets.plan(stream, cell.keep)))

    def _counts(self, clip: Clip, stream: TokenStream, cell: Cell, question: str) -> dict[str, Any]:
        """Tokens and FLOPs. Of audio and video tokens, ``entered`` are at the language model's input, ``layer_mean``
        at the mean layer and ``last_layer`` at the last."""
        pruned = self._pruned(stream, cell)
        full, kept = metrics.token_counts(stream), metrics.token_counts(pruned)
        budget, pruner = budgets.plan(stream, cell.keep), self.pruners[cell]
        flops = metrics.clip_flops(self.backbone, pruner, clip, stream, pruned, budget, full)
        entered = last = kept["video"] + kept["audio"]
        mean: float = entered
        if isinstance(pruner, DecoderPruner):
            prefill = self.backbone.prefill_layerwise(pruned, question, pruner, budget)
            kept["video"], kept["audio"] = pruner.kept(prefill.media)
            mean, last = sum(map(sum, prefill.media)) / len(prefill.media), sum(prefill.media[-1])
            question_tokens = len(self.backbone.question_ids(question))
            flops |= metrics.layerwise_flops(self.backbone, prefill, len(stream) + question_tokens)
        tokens: dict[str, float] = {
            **full,
            "video_kept": kept["video"],
            "audio_kept": kept["audio"],
            "entered": entered,
        }
        tokens |= {"layer_mean": mean, "last_layer": last}
        return {"tokens": tokens, "flops": flops, "reads_question": pruner.needs_question}

    def _round(self, stream: TokenStream, cell: Cell, question: str) -> dict[str, Any]:
        """Seconds of each stage of one answer, and bytes. A decoder pruner's prefill includes the question."""
        backbone, pruner = self.backbone, self.pruners[cell]
        cuda = backbone.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(backbone.device)
        select_s, pruned = self._timed(lambda: self._pruned(stream, cell))
        if isinstance(pruner, DecoderPruner):
            budget = budgets.plan(stream, cell.keep)
            prefill_s, prefill = self._timed(lambda: backbone.prefill_layerwise(pruned, question, pruner, budget))
            answer_s, generation = self._timed(
                lambda: backbone.answer_layerwise(prefill, question, max_new_tokens=STEPS)
            )
            kv_bytes = prefill.kv_bytes
        else:
            prefill_s, prefix = self._timed(lambda: backbone.prefill(pruned))
            answer_s, generation = self._timed(lambda: backbone.answer(prefix, question, max_new_tokens=STEPS))
            kv_bytes = prefix.kv_bytes
        steps = len(generation.token_ids) - (generation.finish == "length")  # after the first token
        return {
            "select_s": select_s,
            "prefill_s": prefill_s,
            "first_token_s": generation.seconds_to_first_token,
            "decode_s": answer_s - generation.seconds_to_first_token,
            "decode_steps": steps,
            "kv_bytes": kv_bytes,
            "peak_bytes": torch.cuda.max_memory_allocated(backbone.device) if cuda else None,
        }

    def _right(self, stream: TokenStream, cell: Cell, asks: Sequence[Ask]) -> list[bool]:
        backbone, pruner, pruned = self.backbone, self.pruners[cell], self._pruned(stream, cell)
        if isinstance(pruner, DecoderPruner):
            budget = budgets.plan(stream, cell.keep)
            prefills = [(backbone.prefill_layerwise(pruned, ask.text, pruner, budget), ask.text) for ask in asks]
            answers = [
                backbone.answer_layerwise(prefill, text, max_new_tokens=self.max_new_tokens)
                for prefill, text in prefills
            ]
        else:
            answers = backbone.answer_all(
                backbone.prefill(pruned), [ask.text for ask in asks], max_new_tokens=self.max_new_tokens
            )
        return [right(answer.text, ask.expected or "", ask.choices) for ask, answer in zip(asks, answers)]

    def _timed(self, work: Callable[[], T]) -> tuple[float, T]:
        """Seconds of ``work`` on host and device, and its result."""
        synchronize(self.backbone.device)
        started = time.perf_counter()
        result = work()
        synchronize(self.backbone.device)
        return time.perf_counter() - started, result
