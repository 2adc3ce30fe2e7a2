"""Scenes of real clips under real pruners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cg_cli import media
from cg_cli.engine.inputs import video_content
from cg_cli.engine.session import Session
from cg_cli.pruning import budget as budgets
from cg_cli.pruning import registry
from cg_cli.viz.scene import Scene, make_result, make_scene


def scene_of(session: Session, path: Path | str, *cells: tuple[str, float]) -> Scene:
    """The scene of a clip under ``cells``, pruners at keep ratios."""
    clip = media.decode(str(path), session.decode_options)
    stream = session.backbone.encode(clip)
    results = []
    for name, keep in cells:
        pruner = registry.make(name)
        if pruner.needs_predictor:
            pruner = pruner.with_predictor(session.pruner.predictor)
        budget = budgets.plan(stream, keep)
        results.append(make_result(name, keep, pruner, stream, budget, pruner.select(stream, budget), None, ()))
    return replace(
        make_scene(str(path), video_content(path), clip, stream, session.backbone.frame_multiple),
        results=tuple(results),
    )
