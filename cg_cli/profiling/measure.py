"""One clip under every cell: the latency of each stage, FLOPs, memory, and accuracy.

Prefill is compute-bound, decoding memory-bound: pruning shortens the one and leaves the other nearly as it is. So the
stages are timed apart, between two synchronizations of the device. Cells take turns, so that drift of the machine hits
all alike, and the whole clip is a cell of each round: the baseline of that round's ratios.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from cg_cli.backbones.base import Backbone
from cg_cli.engine import metrics, pipeline
from cg_cli.engine.inputs import Sampling
from cg_cli.engine.pipeline import Encoded
from cg_cli.errors import ItemError
from cg_cli.evals.matching import readable, right
from cg_cli.media.clip import Clip
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.decoder import DecoderPruner
from cg_cli.settings.table import NO_PRUNER

STEPS = 16  # tokens decoded to time a decode step


@dataclass(frozen=True)
class Cell:
    """A pruner at a keep ratio; ``merge`` as the setting."""

    pruner: str
    keep: float
    merge: Literal["auto", "none", "nearest"] = "auto"

    @property
    def method(self) -> str:
        """The pruner, and what is done with dropped tokens if that is not left to it."""
        return self.pruner + {"auto": "", "nearest": " +merge", "none": " -merge"}[self.merge]

    @property
    def name(self) -> str:
        return f"{self.method} {self.keep:g}"


BASELINE = Cell(NO_PRUNER, 1.0)


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
        where questions are labelled, whether each answer was right and whether it gave no choice; in ``failures``, by
        name of a cell, why its pruner failed. ItemError where the clip itself cannot be read by the model."""
        encoded = [pipeline.encode(self.backbone, clip) for _ in range(max(repeat, 1))]
        cells = list(self.pruners)
        failures: dict[str, str] = {}
        out: dict[str, dict[str, Any]] = {cell.name: {"times": []} for cell in cells}
        labelled = [ask for ask in asks if ask.expected is not None]

        @contextmanager
        def own_fault(cell: Cell) -> Iterator[None]:
            """A fault of a pruner costs its own cell alone; one of the baseline the clip."""
            try:
                yield
            except ItemError as error:
                if cell == BASELINE:
                    raise
                failures[cell.name] = str(error)

        def sound(order: Sequence[Cell]) -> Iterator[Cell]:
            return (cell for cell in order if cell.name not in failures)

        last, question = encoded[-1], asks[0].text
        if repeat:  # warm-up: every clip has shapes of its own
            for cell in sound(cells):
                with own_fault(cell):
                    self._round(last, cell, question)
        for cell in sound(cells):
            with own_fault(cell):
                out[cell.name].update(self._counts(last, cell, question))
        for turn in range(repeat):
            for cell in sound(cells[turn % len(cells) :] + cells[: turn % len(cells)]):
                with own_fault(cell):
                    out[cell.name]["times"].append(self._round(last, cell, question))
        for cell in sound(cells if labelled else ()):
            with own_fault(cell):
                out[cell.name].update(self._judged(last, cell, labelled))
        return {
            "encode_s": [each.seconds for each in encoded],
            "category": [ask.category for ask in labelled],
            "cells": {name: figures for name, figures in out.items() if name not in failures},
            "failures": failures,
        }

    def _counts(self, encoded: Encoded, cell: Cell, question: str) -> dict[str, Any]:
        """Tokens and FLOPs. Of audio and video tokens, ``entered`` are at the language model's input, ``layer_mean``
        at the mean layer and ``last_layer`` at the last."""
        pruner = self.pruners[cell]
        pruned = pipeline.prune(self.backbone, encoded, pruner, cell.keep)
        kept, flops = dict(pruned.tokens), metrics.clip_flops(self.backbone, pruned)
        entered = last = kept["video"] + kept["audio"]
        mean: float = entered
        if isinstance(pruner, DecoderPruner):
            prefill, _ = pipeline.prefill_question(self.backbone, pruned, question)
            kept["video"], kept["audio"] = pruner.kept(prefill.media)
            mean, last = sum(map(sum, prefill.media)) / len(prefill.media), sum(prefill.media[-1])
            question_tokens = len(self.backbone.question_ids(question))
            flops |= metrics.layerwise_flops(self.backbone, prefill, len(encoded.stream) + question_tokens)
        tokens: dict[str, float] = {
            **encoded.tokens,
            "video_kept": kept["video"],
            "audio_kept": kept["audio"],
            "entered": entered,
        }
        tokens |= {"layer_mean": mean, "last_layer": last}
        return {"tokens": tokens, "flops": flops, "reads_question": pruner.needs_question}

    def _round(self, encoded: Encoded, cell: Cell, question: str) -> dict[str, Any]:
        """Seconds of each stage of one answer, and bytes. A decoder pruner's prefill includes the question."""
        device = self.backbone.device
        metrics.reset_peak_bytes(device)
        prefilled = pipeline.prune_and_prefill(self.backbone, encoded, self.pruners[cell], cell.keep)
        (decoded,) = pipeline.decode(self.backbone, prefilled, [question], Sampling(max_new_tokens=STEPS))
        generation, cache = decoded.generation, prefilled.prefix or decoded.layerwise
        steps = len(generation.token_ids) - (generation.finish == "length")  # after the first token
        return {
            "select_s": prefilled.pruned.seconds,
            "prefill_s": prefilled.seconds + decoded.prefill_seconds,
            "first_token_s": generation.seconds_to_first_token,
            "decode_s": decoded.seconds - generation.seconds_to_first_token,
            "decode_steps": steps,
            "kv_bytes": cache.kv_bytes if cache else 0,
            "peak_bytes": metrics.peak_bytes(device) if device.type == "cuda" else None,
        }

    def _judged(self, encoded: Encoded, cell: Cell, asks: Sequence[Ask]) -> dict[str, list[bool]]:
        prefilled = pipeline.prune_and_prefill(self.backbone, encoded, self.pruners[cell], cell.keep)
        sampling = Sampling(max_new_tokens=self.max_new_tokens)
        answers = pipeline.decode(self.backbone, prefilled, [ask.text for ask in asks], sampling)
        pairs = [(each.generation.text, ask) for ask, each in zip(asks, answers)]
        return {
            "right": [right(text, ask.expected or "", ask.choices) for text, ask in pairs],
            "unreadable": [not readable(text, ask.choices) for text, ask in pairs],
        }
