"""Scenes of real clips under real pruners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cg_cli import media, records
from cg_cli.engine.session import Session
from cg_cli.pruning import budget as budgets
from cg_cli.pruning import registry
from cg_cli.viz.scene import Scene, run, scene


def scene_of(session: Session, path: Path | str, *cells: tuple[str, float]) -> Scene:
    """The scene of a clip under ``cells``, pruners at keep ratios."""
    clip = media.decode(str(path), session.decode_options)
    stream = session.backbone.encode(clip)
    runs = []
    for name, keep in cells:
        pruner = registry.make(name)
        if pruner.needs_predictor:
            pruner = pruner.with_predictor(session.pruner.predictor)
        budget = budgets.plan(stream, keep)
        runs.append(run(name, keep, pruner, stream, budget, pruner.select(stream, budget), None, ()))
    return replace(
        scene(str(path), records.video_identity(path), clip, stream, session.backbone.frame_multiple), runs=tuple(runs)
    )
