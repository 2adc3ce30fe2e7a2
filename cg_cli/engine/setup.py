"""From settings to a session: the one place where the names of a model, a pruner and a predictor become objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass

from cg_cli import backbones
from cg_cli.backbones.base import Backbone
from cg_cli.backbones.device import resolve_device, resolve_dtype
from cg_cli.engine.certificate import Certificate
from cg_cli.engine.inputs import AnswerInputs, Sampling
from cg_cli.engine.metrics import dtype_name
from cg_cli.engine.rules import answer_inputs
from cg_cli.engine.session import Reading, Session, read
from cg_cli.errors import UsageError
from cg_cli.media import DecodeWorker
from cg_cli.media.clip import DecodeOptions
from cg_cli.predictors import lookup
from cg_cli.pruning import registry
from cg_cli.pruning.base import Pruner
from cg_cli.settings import models
from cg_cli.settings.resolve import decode_options
from cg_cli.settings.table import Settings


def make_pruner(settings: Settings) -> Pruner:
    """The pruner with its options, and merging and folding if that is asked for; one that has a ``seed`` takes the
    run's, unless the preset sets it.

    Raises:
        UsageError: an unknown pruner or option, or merging or folding where there is none.
    """
    options = dict(settings.pruner_options)
    cls = registry.find(settings.pruner).load()
    if is_dataclass(cls) and "seed" in (field.name for field in fields(cls)):
        options.setdefault("seed", settings.seed)
    pruner = registry.make(settings.pruner, **options)
    setting = ""
    try:
        if settings.merge != "auto":
            setting = f"--merge {settings.merge}"
            pruner = pruner.with_merging(settings.merge)
        if settings.repeats == "merge":
            setting = "--repeats merge"
            pruner = pruner.with_folding()
    except ValueError as error:
        raise UsageError(f"{setting}: {error}; leave it out") from None
    return pruner


def sampling(settings: Settings) -> Sampling:
    """How the tokens of an answer are chosen."""
    return Sampling(settings.max_new_tokens, settings.temperature, settings.seed, settings.repetition_penalty)


@dataclass(frozen=True)
class Expected:
    """What a session with some settings will be made of, told from the model's config alone; the predictor is in
    ``inputs``."""

    backbone: type[Backbone]
    pruner: Pruner
    decode_options: DecodeOptions
    inputs: AnswerInputs


def expect(settings: Settings) -> Expected:
    """Look, and load no weights.

    Raises:
        UsageError: an unknown pruner, option, device or model.
    """
    pruner = make_pruner(settings)
    name = models.choose(settings.model, settings.device)
    source, offline = models.source(name), settings.offline
    backbone, revision = backbones.inspect_config(source, offline=offline, adapter=settings.adapter)
    predictor = None
    if pruner.needs_predictor:
        predictor = lookup.locate_predictor(settings.predictor, name, revision, offline=settings.offline)
    options = decode_options(settings, backbone)
    inputs = answer_inputs(
        backbone,
        name,
        revision,
        dtype_name(resolve_dtype(settings.dtype, resolve_device(settings.device))),
        settings.quantize,
        pruner,
        settings.keep,
        predictor.sha256 if predictor else None,
        options,
        sampling(settings),
        *backbones.inspect_answering(source, offline=offline, positions=settings.positions),
    )
    return Expected(backbone, pruner, options, inputs)


@contextmanager
def read_ahead(settings: Settings, video: str) -> Iterator[Callable[[], Reading]]:
    """Begin to read a file for a session with ``settings`` that is opened meanwhile; given is a function that waits for
    it. What is not read at the end of the block is given up.

    Raises:
        UsageError: an unknown device or model.
    """
    name = models.choose(settings.model, settings.device)
    options = decode_options(settings, backbones.find_class(models.source(name), offline=settings.offline))
    with ThreadPoolExecutor(1) as pool, DecodeWorker() as worker:  # the worker ends first, and the thread with it
        yield pool.submit(read, video, options, worker.decode).result


def open_session(settings: Settings) -> Session:
    """Load what ``settings`` ask for.

    Raises:
        UsageError: an unknown pruner, option, device or model, or a model that cannot be loaded.
    """
    make_pruner(settings)  # says what is wrong with it before anything is loaded
    return session_on(models.load_chosen(settings), settings)


def session_on(backbone: Backbone, settings: Settings) -> Session:
    """What ``settings`` ask for, with a model that they have loaded. UsageError as for ``open_session``."""
    pruner = make_pruner(settings)
    warnings = []
    if settings.predictor != lookup.AUTO and not pruner.needs_predictor:
        warnings.append(f"pruner {settings.pruner} uses no predictor: --predictor {settings.predictor} had no effect")
    name = backbone.id
    known = models.KNOWN.get(name.lower())
    if known and known.warning:
        warnings.append(known.warning)
    predictor = None
    if pruner.needs_predictor:
        predictor = lookup.find_predictor(settings.predictor, backbone, offline=settings.offline)
    if predictor:
        pruner = pruner.with_predictor(predictor.predictor)
        warnings += predictor.notes
    elif pruner.needs_predictor and settings.keep < 1:
        warnings.append(
            f"no audio-to-visual predictor for {name}: {settings.pruner} prunes by detail alone; "
            f"`cg train-predictor` makes one, `cg fetch-predictor` lists those to be had, --predictor uses either"
        )
    return Session(
        backbone=backbone,
        pruner=pruner,
        keep=settings.keep,
        sampling=sampling(settings),
        decode_options=decode_options(settings, backbone),
        predictor=predictor,
        preset=settings.preset,
        quantize=settings.quantize,
        warnings=(*warnings, *backbone.warnings),
        certificate=Certificate.of(settings.preset, settings.certificate) if settings.certificate else None,
    )
