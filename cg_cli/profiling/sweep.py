"""``cg profile``: clips under every pruner at every keep ratio, measured on this device, in five numbered stages.

Measurements go to a JSONL file, a line a clip, as they are made: a run that was interrupted goes on from there. Costs
are timed on the first TIMED clips, whose times add up to the figures; answers are compared on all.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from cg_cli import __version__
from cg_cli.backbones.base import Backbone
from cg_cli.backbones.loading import META
from cg_cli.engine.inputs import video_content
from cg_cli.engine.metrics import device_name
from cg_cli.engine.setup import make_pruner
from cg_cli.errors import CgError, ItemError, UsageError
from cg_cli.evals import matching
from cg_cli.media import DecodeWorker
from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.predictors import lookup
from cg_cli.profiling import synthetic
from cg_cli.profiling.measure import BASELINE, Ask, Bench, Cell
from cg_cli.profiling.random_predictor import random_predictor
from cg_cli.profiling.readings import OWN, sampling
from cg_cli.profiling.report import MEASUREMENTS, SCHEMA
from cg_cli.profiling.roofline import roofline
from cg_cli.profiling.summary import summarise
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.predictor import A2VPredictor
from cg_cli.pruning.stream import MERGE_VERSION
from cg_cli.questions import Item, Question
from cg_cli.settings import models
from cg_cli.settings.resolve import decode_options
from cg_cli.settings.table import Settings

TIMED = 16
QUESTION = "What is happening?"
FORM = 6  # version of a line there; lines of another version are not used

Read = Callable[[DecodeOptions], tuple[Clip, float | None]]  # a clip, and the seconds of decoding if a file was decoded


class Listener(Protocol):
    """Receives the progress of a profile."""

    def fault(self, message: str) -> None: ...

    def note(self, message: str) -> None: ...

    def loaded(self, facts: Mapping[str, Any]) -> None: ...

    def measured(self, done: int, total: int) -> None: ...


@dataclass(frozen=True)
class Profile:
    """What to measure.

    Attributes:
        items: clips with their questions.
        synthetic_s: seconds of a synthetic clip; None for none.
        cells: pruners at ratios; the whole clip is always measured with them.
        readings: by name, the settings of every other way to read a clip that ``cells`` name.
        random: random weights in the model's shapes, with at most ``layers`` layers in each part.
        out: folder of the measurements.
        pages: number of clips that get a page of the tokens each pruner kept.
    """

    settings: Settings
    items: Sequence[Item]
    cells: Sequence[Cell]
    out: Path
    readings: Mapping[str, Settings] = field(default_factory=dict)
    repeat: int = 3
    synthetic_s: float | None = None
    random: bool = False
    layers: int | None = None
    pages: int = 0


def run(profile: Profile, listener: Listener) -> dict[str, Any]:
    """Measure what ``profile.out`` does not have yet. Returns the summary of all measurements.

    Raises:
        UsageError: settings that cannot be carried out.
        CgError: not a single clip could be measured, or the folder cannot be written.
    """
    settings, uncut = profile.settings, None
    # 1. the model, and every pruner
    if profile.random:
        if settings.adapter:
            raise UsageError(f"--adapter {settings.adapter} is nothing for --weights random; leave one of them out")
        shape = {"dtype": settings.dtype, "positions": settings.positions}
        backbone = models.random_init(settings.model, profile.layers, device=settings.device, **shape)
        if profile.layers:
            uncut = models.random_init(settings.model, None, device=META, **shape)
    else:
        backbone = models.load_chosen(settings)
    cells = list(dict.fromkeys([BASELINE, *profile.cells]))
    settings_of = {**profile.readings, OWN: settings}
    pruners, labels = _pruners(cells, settings, backbone, profile.random, listener)
    facts = _facts(profile, backbone, labels)
    listener.loaded(facts)

    # 2. what is missing, clip by clip
    by_cell = ("predictors", "readings")
    recipe = {"form": FORM} | {name: value for name, value in facts.items() if name not in by_cell}
    lines = _Lines(
        profile.out / MEASUREMENTS,
        hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16],
        {cell.name: _origin(pruner, labels.get(cell.pruner)) for cell, pruner in pruners.items()},
    )
    if lines.damaged:
        listener.note(f"{lines.file.name}: damaged lines are measured again, {lines.damaged} of them")
    identities, faults = [], 0
    for number, (identity, asks, read) in enumerate(_clips(profile)):
        identities.append(identity)
        repeat = profile.repeat if number < TIMED else 0
        missing = [
            cell for cell in cells if not lines.has(identity, cell.name, repeat, len([a for a in asks if a.expected]))
        ]
        if missing:
            needed = dict.fromkeys([BASELINE, *missing])
            ways = {
                name: decode_options(settings_of[name], backbone) for name in dict.fromkeys(c.reading for c in needed)
            }
            try:
                decoded, media_s, failures = _read_all(read, ways)
                bench = Bench(backbone, {cell: pruners[cell] for cell in needed}, settings.max_new_tokens, uncut)
                measured = bench.clip(decoded, asks, repeat)
                failures |= measured.pop("failures")
                lines.add(identity, {"media_s": media_s, **measured})
                for name, message in failures.items():
                    faults += 1
                    listener.fault(f"{decoded[OWN].path}, {name}: {message}")
            except ItemError as error:
                faults += 1
                listener.fault(str(error))
        listener.measured(number + 1, len(profile.items) + (profile.synthetic_s is not None))

    # 3. the roofline of this device, in the same run
    peak = roofline(backbone.device, backbone.dtype)

    # 4. the figures, of the cells that could be measured at all
    lines_by_clip = lines.of(identities)
    if not lines_by_clip:
        raise CgError("no clip could be measured")
    measurable = {name for clip in lines_by_clip for line in clip for name in line["cells"]}
    for cell in [cell for cell in cells if cell.name not in measurable]:
        listener.fault(f"{cell.name} is left out: it could not be measured on any clip")
        cells.remove(cell)

    # 5. pages, if there are to be any
    written = []
    if profile.pages:
        from cg_cli.profiling import pages

        page_cells = pages.nearest_keep([cell for cell in cells if cell.reading == OWN])
        clips = pages.choose(profile.items, lines.by_clip, page_cells, profile.pages)
        written = pages.write(clips, page_cells, pruners, backbone, settings, profile.out, listener.fault)
    return {
        "schema": SCHEMA,
        **facts,
        "clips": len(lines_by_clip),
        "failed": faults,
        "roofline": peak,
        "pages": written,
        **summarise(cells, lines_by_clip),
    }


def _clips(profile: Profile) -> Iterator[tuple[str, list[Ask], Read]]:
    """Identity and questions of each clip, and how to read it."""
    if profile.synthetic_s is not None:
        length = profile.synthetic_s
        yield (
            f"synthetic:{length:g}",
            [Ask(QUESTION)],
            lambda options: (synthetic.clip(length, options), None),
        )
    with DecodeWorker() as worker:
        for item in profile.items:

            def read(options: DecodeOptions, video: str = item.video) -> tuple[Clip, float | None]:
                if worker.pid is None:  # its start is no part of what the first reading of a file takes
                    with contextlib.suppress(ItemError):  # decoding says what is wrong
                        worker.probe(video)
                started = time.perf_counter()
                return worker.decode(video, options), time.perf_counter() - started

            yield video_content(item.video), [_ask(question) for question in item.questions], read


def _read_all(
    read: Read, ways: Mapping[str, DecodeOptions]
) -> tuple[dict[str, Clip], dict[str, float | None], dict[str, str]]:
    """A clip in every one of ``ways``, the seconds of decoding, and what failed, each by the name of the reading.
    ItemError where OWN fails."""
    clips, media_s, failures = {}, {}, {}
    for name, options in ways.items():
        try:
            clips[name], media_s[name] = read(options)
        except ItemError as error:
            if name == OWN:
                raise
            failures[name] = str(error)
    return clips, media_s, failures


def _ask(question: Question) -> Ask:
    """A question with its label, if the manifest has one."""
    return Ask(question.text, question.expected, question.choices, str(question.more.get("category") or ""))


def _pruners(
    cells: Sequence[Cell], settings: Settings, backbone: Backbone, random: bool, listener: Listener
) -> tuple[dict[Cell, Pruner], dict[str, Any]]:
    """The pruner of each cell, and the label of its predictor by the pruner's name."""

    @cache
    def predictor() -> tuple[A2VPredictor | None, str | None]:
        if random:
            return random_predictor(backbone.hidden_size, backbone.device), "random weights"
        match = lookup.find_predictor(settings.predictor, backbone, offline=settings.offline)
        for note in match.notes if match else ():
            listener.note(note)
        return (match.predictor, match.label) if match else (None, None)

    out, labels = {}, {}
    for cell in cells:
        own = replace(settings, pruner=cell.pruner, keep=cell.keep, merge=cell.merge, pruner_options={})
        pruner = make_pruner(own)
        if pruner.needs_predictor:
            weights, labels[cell.pruner] = predictor()
            pruner = pruner.with_predictor(weights)
        out[cell] = pruner
    return out, labels


def _facts(profile: Profile, backbone: Backbone, labels: Mapping[str, Any]) -> dict[str, Any]:
    settings = profile.settings
    return {
        "model": {
            "id": backbone.id,
            "revision": backbone.revision,
            "weights": "random" if profile.random else "trained",
            "layers": profile.layers,
        }
        | ({"positions": backbone.positions} if backbone.positions else {}),
        "device": str(backbone.device),
        "device_name": device_name(backbone.device),
        "threads": os.cpu_count() if backbone.device.type == "cpu" else None,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "quantize": settings.quantize,
        "predictors": dict(labels),
        "benchmark": next((q.more.get("benchmark") for item in profile.items for q in item.questions), None),
        "sampling": sampling(settings),
        "decoder": settings.decoder,
        "readings": {name: sampling(other) for name, other in profile.readings.items() if name != OWN},
        "max_new_tokens": settings.max_new_tokens,
        "seed": settings.seed,
        "matching": matching.VERSION,
        "versions": {
            "cg": __version__,
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        },
    }


def _origin(pruner: Pruner, predictor: str | None) -> dict[str, Any]:
    """What a cell's figures depend on besides the settings: the pruner's code and its predictor."""
    origin = {"predictor": predictor, "pruner": pruner.fingerprint(), "version": pruner.version}
    return origin | ({"merging": MERGE_VERSION} if pruner.merging else {})


class _Lines:
    """The measurements of all runs into one folder. Those of other settings (``recipe``), or of another pruner or
    predictor under a cell's name (``origins``), stay in the file and are not used."""

    def __init__(self, file: Path, recipe: str, origins: Mapping[str, Mapping[str, Any]]):
        self.file, self.recipe, self.origins, self.damaged = file, recipe, origins, 0
        self.by_clip: dict[str, list[dict[str, Any]]] = {}
        if file.is_symlink():
            raise UsageError(f"-o {file.parent}: its {file.name} is a link: remove it, or name another folder")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            text = file.read_bytes() if file.exists() else b""
            if not text.endswith(b"\n") and text:  # a kill tore the last line
                text = text[: text.rfind(b"\n") + 1]
                os.truncate(file, len(text))
        except OSError as error:
            raise UsageError(f"-o {file.parent}: {error.strerror}") from error
        for line in text.splitlines():
            try:
                measured = json.loads(line)
                if measured["recipe"] != recipe:
                    continue
                cells = {name: cell for name, cell in measured["cells"].items() if self._current(name, cell)}
                self.by_clip.setdefault(measured["clip"], []).append({**measured, "cells": cells})
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.damaged += 1

    def _current(self, name: str, cell: Mapping[str, Any]) -> bool:
        origin = self.origins.get(name)
        return origin is not None and cell["origin"] == origin and isinstance(cell["times"], list)

    def has(self, clip: str, cell: str, repeat: int, labelled: int) -> bool:
        """Whether there is a measurement of ``cell`` on ``clip`` with at least ``repeat`` timed rounds and ``labelled``
        questions."""
        measured = [line["cells"][cell] for line in self.by_clip.get(clip, []) if cell in line["cells"]]
        return any(len(m["times"]) >= repeat and len(m.get("right", ())) == labelled for m in measured)

    def add(self, clip: str, measured: Mapping[str, Any]) -> None:
        cells = {name: {**cell, "origin": self.origins[name]} for name, cell in measured["cells"].items()}
        line = {"recipe": self.recipe, "clip": clip, **measured, "cells": cells}
        try:
            with self.file.open("ab", buffering=0) as file:
                file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise CgError(f"cannot write {self.file}: {error.strerror}") from error
        self.by_clip.setdefault(clip, []).append(line)

    def of(self, clips: Sequence[str]) -> list[list[dict[str, Any]]]:
        """The lines of each of ``clips`` that has any."""
        return [self.by_clip[clip] for clip in dict.fromkeys(clips) if clip in self.by_clip]
