"""What a predictor changes: the tokens that are kept for what sound tells, against those that are kept without it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from cg_cli.predictors.card import CHANGED, KEEPS
from cg_cli.pruning import budget as budgets
from cg_cli.pruning import registry
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.predictor import A2VPredictor
from cg_cli.pruning.stream import VIDEO, TokenStream

METHOD = "contextguard"
MEASURED_CLIPS = 16  # held back from training, that it is measured on, at most


def changes(predictor: A2VPredictor, control: A2VPredictor, streams: Iterable[TokenStream]) -> dict[str, float]:
    """Share of the video tokens kept by ContextGuard that it would not keep without sound, by ratio, mean over clips:
    ``changed_at_0.45`` and so on; the same of the control, which shares the coarse space, with ``_control``."""
    total: dict[str, float] = {}
    clips = 0
    for stream in streams:
        clips += 1
        for keep in KEEPS:
            budget = budgets.plan(stream, keep)
            silent = _kept(registry.make(METHOD, recover=False).with_predictor(predictor), stream, budget)
            for name, each in (("", predictor), ("_control", control)):
                kept = _kept(registry.make(METHOD).with_predictor(each), stream, budget)
                share = float((kept & ~silent).sum() / kept.sum().clamp_min(1))
                name = f"{CHANGED}{keep:.2f}{name}"
                total[name] = total.get(name, 0.0) + share
    return {name: round(value / clips, 4) for name, value in total.items()}


def _kept(pruner: Pruner, stream: TokenStream, budget: budgets.Budget) -> torch.Tensor:
    """Which video rows stay [L] bool."""
    kept = torch.zeros(len(stream), dtype=torch.bool, device=stream.modality.device)
    return kept.scatter_(0, pruner.prune(stream, budget).indices, True) & (stream.modality == VIDEO)
