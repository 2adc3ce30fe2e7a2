"""From settings to what decides an answer: the pruner, and everything that goes into a record's key."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from cg_cli.backbones.base import Backbone
from cg_cli.pruning import registry
from cg_cli.pruning.base import Pruner
from cg_cli.settings.resolve import Settings


def make_pruner(settings: Settings) -> Pruner:
    """The pruner with its options; one that has a ``seed`` takes the run's, unless the preset sets it."""
    options = dict(settings.pruner_options)
    cls = registry.find(settings.pruner).load()
    if "seed" in (f.name for f in fields(cls)):
        options.setdefault("seed", settings.seed)
    return registry.make(settings.pruner, **options)


def recipe(
    settings: Settings,
    backbone: Backbone | type[Backbone],
    model: str,
    revision: str,
    pruner: Pruner,
    predictor: str | None,
) -> dict[str, Any]:
    """What an answer depends on besides video and question: the other arguments of ``records.record_key``. It can be
    told before the model ``model`` at ``revision`` is loaded."""
    return {
        "model": model,
        "revision": revision,
        "pruner": settings.pruner,
        "keep": settings.keep,
        "options": asdict(pruner),
        "predictor": predictor,
        "fps": settings.fps,
        "max_frames": settings.max_frames,
        "max_pixels": settings.max_pixels,
        "min_frames": settings.min_frames,
        "video_pixels": settings.video_pixels,
        "audio": settings.audio,
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed,
        "prompt_version": backbone.prompt_version,
        "quantize": settings.quantize,
    }
