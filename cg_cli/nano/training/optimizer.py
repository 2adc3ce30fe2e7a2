"""The optimizer of nano's training: Muon for the matrices of the layers, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

WARM_UP = 60  # steps
FLOOR = 0.03  # of the learning rate, at the end of the cosine


class MuonAdamW:
    """Both optimizers and their common schedule over ``steps`` steps: warm-up, then cosine.

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
        self.optimizers = [
            torch.optim.Muon(matrices, lr=rates[0], weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=rates[1], betas=(0.9, 0.97), weight_decay=0.0),
        ]
        factor = lambda i: min((i + 1) / WARM_UP, max(FLOOR, 0.5 + 0.5 * math.cos(math.pi * i / steps)))
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(o, factor) for o in self.optimizers]

    def step(self, loss: Tensor) -> None:
        """One step on the gradient of ``loss``, clipped to norm 1."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, schedule in zip(self.optimizers, self.schedules):
            optimizer.step()
            schedule.step()

    def state_dict(self) -> list[tuple[dict, dict]]:
        """The state of each optimizer and its schedule."""
        return [(o.state_dict(), s.state_dict()) for o, s in zip(self.optimizers, self.schedules)]

    def load_state_dict(self, state: list[tuple[dict, dict]]) -> None:
        """Restores what ``state_dict`` gave."""
        for optimizer, schedule, (o, s) in zip(self.optimizers, self.schedules, state):
            optimizer.load_state_dict(o)
            schedule.load_state_dict(s)
