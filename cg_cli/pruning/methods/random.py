"""Random selection, seeded: the baseline that any method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cg_cli.pruning.base import ModalityPruner
from cg_cli.pruning.ops.rows import Rows
from cg_cli.pruning.stream import TokenStream

SEEDS = 2**63  # torch takes more, but JSON readers and numpy do not


@dataclass(frozen=True)
class Random(ModalityPruner):
    """Keep video and audio tokens uniformly at random within each modality.

    Drawn on the CPU, so that a seed means the same selection on every device; a smaller budget keeps a subset of what a
    larger one keeps.

    Args:
        seed: 0 <= seed < 2**63. ValueError outside.
    """

    name: ClassVar[str] = "random"
    reasons: ClassVar[tuple[str, str]] = ("drawn by lot", "not drawn")

    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed must be in [0, 2**63), not {self.seed}")

    def pick_video(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        return self._draw(rows.video, count)

    def pick_audio(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        return self._draw(rows.audio, count)

    def _draw(self, rows: Tensor, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(len(rows), generator=generator)[:count].to(rows.device)
