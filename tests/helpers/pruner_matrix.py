"""Every pruner with the settings that the property tests run it in: a new method is one more row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from cg_cli.pruning import registry
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.methods.omnizip import own_split
from cg_cli.pruning.predictor import DIRECTION, KINDS, WORDS, A2VPredictor, PredictorMetadata, WordPredictor
from cg_cli.pruning.stream import AUDIO, VIDEO, TokenStream

WIDTH = 16  # of the tokens that ``make_stream`` makes


@dataclass(frozen=True)
class Case:
    """A pruner by its registry name; ``whole_only`` for one that refuses any budget but the whole stream; ``predicts``
    the kind of the predictor that it reads, here with random weights; ``in_turn`` for one that picks a window's tokens
    one by one."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    whole_only: bool = False
    predicts: str = ""
    in_turn: bool = False

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in self.options.items()] + [self.predicts] * bool(self.predicts)
        return "-".join([self.name, *parts])

    def make(self, width: int = WIDTH) -> Pruner:
        """The pruner, for tokens of ``width``."""
        pruner = registry.make(self.name, **self.options)
        return pruner.with_predictor(_predictor(width, self.predicts)) if self.predicts else pruner

    def counts(self, stream: TokenStream, budget: Budget) -> Budget:
        """What is kept of ``stream``: ``budget``, unless the method divides its total between video and audio
        itself."""
        if self.options.get("split") != "own":
            return budget
        return own_split(budget, *(int((stream.modality == kind).sum()) for kind in (VIDEO, AUDIO)))


def _predictor(width: int, kind: str) -> A2VPredictor:
    words = 12 if kind == WORDS else 0
    card = PredictorMetadata(
        "model", "revision", "family", width, hidden=8, queries=2, components=8, kind=kind, words=words
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        predictor = KINDS[kind](card)
        predictor.basis.normal_()
        if isinstance(predictor, WordPredictor):
            predictor.codebook.normal_()
            torch.nn.init.normal_(predictor.up.weight)
        else:
            predictor.matched.fill_(0.5)
    return predictor.requires_grad_(False).eval()


CASES = [
    Case("none", whole_only=True),
    Case("random"),
    Case("random", {"seed": 7}),
    Case("uniform"),
    Case("evs"),
    Case("contextguard", in_turn=True),
    Case("contextguard", predicts=DIRECTION, in_turn=True),
    Case("contextguard", predicts=WORDS, in_turn=True),
    Case("contextguard", {"detail": False}, predicts=DIRECTION),
    Case("contextguard", {"detail": False}, predicts=WORDS),
    Case("contextguard", {"novelty": False}, predicts=DIRECTION),
    Case("contextguard", {"confident": False}, predicts=DIRECTION, in_turn=True),
    Case("contextguard", {"recover": False}, in_turn=True),
    Case("contextguard", {"merge": False}, in_turn=True),
    Case("contextguard", {"prediction": "audio"}, predicts=DIRECTION, in_turn=True),
    Case("contextguard", {"prediction": "ridge"}, in_turn=True),
    Case("contextguard-online", in_turn=True),
    Case("contextguard-online", predicts=DIRECTION, in_turn=True),
    Case("contextguard-online", predicts=WORDS, in_turn=True),
    Case("vidcom2"),
    Case("dycoke"),
    Case("divprune", in_turn=True),
    Case("divprune", {"window": 8}, in_turn=True),
    Case("visionzip"),
    Case("omnizip"),
    Case("omnizip", {"split": "own"}),
    Case("omnisift"),
    Case("tome"),
    Case("tome", {"window": 1}),
]
PRUNING_CASES = [case for case in CASES if not case.whole_only]
DECODER_CASES = [
    Case("fastv"),
    Case("fastv", {"layer": 1}),
    Case("omnidrop"),
    Case("omnidrop", {"first": 0.02, "last": 0.5}),
    Case("seats"),
]  # between layers: tests/backbones
