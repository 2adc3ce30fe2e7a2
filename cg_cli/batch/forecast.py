"""``cg batch --dry-run``: what would run and how many tokens, from probes and the model's config alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from cg_cli import backbones
from cg_cli.backbones.base import Backbone
from cg_cli.backbones.device import resolve_device, resolve_dtype
from cg_cli.batch import history
from cg_cli.batch.run import Plan
from cg_cli.engine.inputs import video_content
from cg_cli.engine.metrics import dtype_name
from cg_cli.engine.rules import answer_inputs
from cg_cli.engine.setup import make_pruner, sampling
from cg_cli.errors import ItemError
from cg_cli.media import DecodeWorker, fit_size
from cg_cli.media.clip import SAMPLE_RATE, DecodeOptions
from cg_cli.media.metadata import Probe
from cg_cli.media.sizes import frame_count
from cg_cli.predictors import lookup
from cg_cli.pruning import budget
from cg_cli.settings import models
from cg_cli.settings.resolve import decode_options


def forecast(plan: Plan) -> Iterator[dict[str, Any]]:
    """An object for each file of the run: ``video``, ``questions`` left to answer and ``settled`` ones, and
    ``duration_s``, ``frames``, ``width``, ``height``, ``tokens`` as its records will have them (but for a token or two
    of sound, whose last frame a codec may pad), or the ``error`` that they will have.

    Raises:
        UsageError: settings or an archive that cannot be used.
    """
    settings = plan.settings
    pruner = make_pruner(settings)
    name = models.choose(settings.model, settings.device)
    backbone, revision = backbones.inspect_config(models.source(name), offline=settings.offline)
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
    )
    videos = {item.video for item in plan.collected.items}
    from_nothing = plan.overwrite or plan.out == "-"
    past = history.History((), True) if from_nothing else history.read(Path(plan.file), videos, plan.retry)
    with DecodeWorker() as worker:
        for item in plan.collected.items:
            if plan.shard and not plan.shard.has(item.video):
                continue
            mine = replace(inputs, video=video_content(item.video))
            keys = [replace(mine, question=question.text).key for question in item.questions]
            left = sum(ok is None for ok in past.claims(item, keys))
            line: dict[str, Any] = {"video": item.video, "questions": left, "settled": len(keys) - left}
            try:
                probe = worker.probe(item.video, settings.decode_timeout)
            except ItemError as error:
                yield line | {"error": {"stage": error.stage, "type": error.kind, "message": str(error)}}
            else:
                yield line | _sizes(probe, options, backbone, settings.keep, pruner.stage)


def _sizes(probe: Probe, options: DecodeOptions, backbone: type[Backbone], keep: float, stage: str) -> dict[str, Any]:
    frames = width = height = 0
    if probe.video_s:
        frames = frame_count(Fraction(probe.video_s), options)
        width, height = fit_size(probe.width, probe.height, options.frame_pixels(frames), options.side_multiple)
    samples = round(probe.audio_s * SAMPLE_RATE) if options.audio else 0
    grids, video, audio = backbone.media_tokens(frames, height, width, samples)
    kept = budget.split(video, audio, grids, keep)
    return {
        "duration_s": round(probe.duration_s, 6),
        "frames": frames,
        "width": width,
        "height": height,
        # Which of them stay in the end is not known before a pruner between layers has seen the question.
        "tokens": {"video": video, "audio": audio, "kept": kept.count}
        | ({"video_kept": kept.video, "audio_kept": kept.audio} if stage == "input" else {}),
    }
