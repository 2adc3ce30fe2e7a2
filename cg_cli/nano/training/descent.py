"""How nano's weights are moved: Muon for the matrices of the layers, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

WARM_UP = 60  # steps
FLOOR = 0.03  # of the learning rate, at the end of the cosine


class Descent:
    """Both optimisers and their common schedule over ``steps`` steps: warm-up, then cosine.

    Args:
        layers: parameters of transformer layers; the two-dimensional ones go to Muon.
        others: parameters for AdamW, whatever their shape (embeddings, heads, norms).
        rates: peak learning rates of Muon and AdamW.
    """

    def __init__(
        self, layers: Iterable[nn.Parameter], others: Iterable[nn.Parameter], steps: int, rates: tuple[float, float]
    ):
        layers, others = list(layers), list(others)
        self.parameters = layers + others
        matrices = [p for p in layers if p.ndim == 2]
        rest = [p for p in layers if p.ndim != 2] + others
        self.optimisers = [
            torch.optim.Muon(matrices, lr=rates[0], weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=rates[1], betas=(0.9, 0.97), weight_decay=0.0),
        ]
        share = lambda i: min((i + 1) / WARM_UP, max(FLOOR, 0.5 + 0.5 * math.cos(math.pi * i / steps)))
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(o, share) for o in self.optimisers]

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of ``loss``."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser, schedule in zip(self.optimisers, self.schedules):
            optimiser.step()
            schedule.step()

    def state_dict(self) -> list[tuple[dict, dict]]:
        return [(o.state_dict(), s.state_dict()) for o, s in zip(self.optimisers, self.schedules)]

    def load_state_dict(self, state: list[tuple[dict, dict]]) -> None:
        for optimiser, schedule, (o, s) in zip(self.optimisers, self.schedules, state):
            optimiser.load_state_dict(o)
            schedule.load_state_dict(s)
