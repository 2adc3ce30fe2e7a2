"""One clip under every cell: the latency of each stage, FLOPs, memory, and accuracy.

Prefill is compute-bound, decoding memory-bound: pruning shortens the one and leaves the other nearly as it is. So the
stages are timed apart, between two synchronizations of the device. Cells take turns, so that drift of the machine hits
all alike, and the whole clip is a cell of each round: the baseline of that round's ratios. For that, all readings of
one clip are held at once: of each, its frames (3 bytes a pixel) and its tokens (their width in numbers), 36 and 62 MB
for a minute at 7B.
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
from cg_cli.profiling.readings import OWN
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.decoder import DecoderPruner
from cg_cli.settings.table import NO_PRUNER

STEPS = 16  # tokens decoded to time a decode step


@dataclass(frozen=True)
class Cell:
    """A pruner at a keep ratio, on a clip read in some way; ``merge`` as the setting, ``reading`` by name."""

    pruner: str
    keep: float
    merge: Literal["auto", "none", "nearest"] = "auto"
    reading: str = OWN

    @property
    def method(self) -> str:
        """The pruner, and what is done with dropped tokens if that is not left to it."""
        return self.pruner + {"auto": "", "nearest": " +merge", "none": " -merge"}[self.merge]

    @property
    def name(self) -> str:
        return f"{self.method} {self.keep:g} {self.reading}".rstrip()


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
        uncut: the model with all of its layers, where ``backbone`` has fewer: only its FLOPs are asked for.
    """

    backbone: Backbone
    pruners: Mapping[Cell, Pruner]
    max_new_tokens: int
    uncut: Backbone | None = None

    def clip(self, clips: Mapping[str, Clip], asks: Sequence[Ask], repeat: int) -> dict[str, Any]:
        """``encode_s`` by the name of a reading, and by name of the cell in ``cells``: token counts, FLOPs, ``repeat``
        times of each stage and, where questions are labelled, whether each answer was right and whether it gave no
        choice; in ``failures``, by name of a cell or a reading, why its pruner or its towers failed.

        Args:
            clips: the same clip by the name of a reading; cells of others are left out.

        Raises:
            ItemError: the clip itself cannot be read by the model.
        """
        failures: dict[str, str] = {}

        @contextmanager
        def own_fault(name: str) -> Iterator[None]:
            """A fault of a pruner costs its own cell alone, one of a reading its cells; one of the baseline the
            clip."""
            try:
                yield
            except ItemError as error:
                if name in (OWN, BASELINE.name):
                    raise
                failures[name] = str(error)

        encode_s: dict[str, list[float]] = {reading: [] for reading in clips}
        encoded: dict[str, Encoded] = {}
        warm_up = repeat > 0 and len(clips) > 1  # or the first of them alone would pay for a cold device
        for turn in range(max(repeat, 1) + warm_up):
            for reading, clip in clips.items():
                if reading not in failures:
                    with own_fault(reading):
                        encoded[reading] = pipeline.encode(self.backbone, clip)
                        encode_s[reading] += [encoded[reading].seconds] if turn or not warm_up else []
        cells = [cell for cell in self.pruners if cell.reading in clips and cell.reading not in failures]
        out: dict[str, dict[str, Any]] = {cell.name: {"times": []} for cell in cells}
        labelled = [ask for ask in asks if ask.expected is not None]

        def sound(order: Sequence[Cell]) -> Iterator[Cell]:
            return (cell for cell in order if cell.name not in failures)

        question = asks[0].text
        if repeat:  # warm-up: every clip has shapes of its own
            for cell in sound(cells):
                with own_fault(cell.name):
                    self._round(encoded[cell.reading], cell, question)
        whole = len(encoded[OWN].stream)
        for cell in sound(cells):
            with own_fault(cell.name):
                out[cell.name].update(self._counts(encoded[cell.reading], cell, question, whole))
        for turn in range(repeat):
            for cell in sound(cells[turn % len(cells) :] + cells[: turn % len(cells)]):
                with own_fault(cell.name):
                    out[cell.name]["times"].append(self._round(encoded[cell.reading], cell, question))
        for cell in sound(cells if labelled else ()):
            with own_fault(cell.name):
                out[cell.name].update(self._judged(encoded[cell.reading], cell, labelled))
        return {
            "encode_s": encode_s,
            "category": [ask.category for ask in labelled],
            "cells": {name: figures for name, figures in out.items() if name not in failures},
            "failures": failures,
        }

    def _counts(self, encoded: Encoded, cell: Cell, question: str, whole: int) -> dict[str, Any]:
        """Tokens and FLOPs. Of audio and video tokens, ``entered`` are at the language model's input, ``layer_mean``
        at the mean layer and ``last_layer`` at the last. ``prefill_baseline`` is the prefill of the baseline's
        ``whole`` tokens, with the question where the cell's own has it."""
        pruner = self.pruners[cell]
        pruned = pipeline.prune(self.backbone, encoded, pruner, cell.keep)
        kept, flops = dict(pruned.tokens), metrics.clip_flops(self.backbone, pruned)
        entered = last = kept["video"] + kept["audio"]
        mean: float = entered
        uncut = None
        if isinstance(pruner, DecoderPruner):
            prefill, _ = pipeline.prefill_question(self.backbone, pruned, question)
            kept["video"], kept["audio"] = pruner.kept(prefill.media)
            mean, last = sum(map(sum, prefill.media)) / len(prefill.media), sum(prefill.media[-1])
            question_tokens = len(self.backbone.question_ids(question))
            flops |= metrics.layerwise_flops(self.backbone, prefill, len(encoded.stream) + question_tokens)
            whole += question_tokens
        elif self.uncut:
            # What more layers would drop, only they could say: layer-wise pruners have no such figures.
            uncut = metrics.clip_flops(self.uncut, pruned)
            uncut["prefill_baseline"] = self.uncut.decoder_flops(whole, 0, 0)
        flops["prefill_baseline"] = self.backbone.decoder_flops(whole, 0, 0)
        tokens: dict[str, float] = {
            **encoded.tokens,
            "video_kept": kept["video"],
            "audio_kept": kept["audio"],
            "entered": entered,
        }
        tokens |= {"layer_mean": mean, "last_layer": last}
        return {"tokens": tokens, "flops": flops, "uncut_flops": uncut, "reads_question": pruner.needs_question}

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
