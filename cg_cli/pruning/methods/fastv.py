"""FastV: after a few layers, keep what the last token attends to most (arXiv 2403.06764)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cg_cli.pruning.budget import Budget
from cg_cli.pruning.decoder import DecoderPruner, LayerView
from cg_cli.pruning.ops.indexing import mask_to_index


@dataclass(frozen=True)
class FastV(DecoderPruner):
    """Read everything in the first ``layer`` layers, then drop the audio and video tokens that the last token of the
    question attends to least in the last of these, averaged over heads; kept ones keep order and positions.

    Where it differs: FastV ranks image tokens; here video and audio are ranked together, as in the "A&V" rows of the
    omni papers. Only the last token's row of the attention is computed, so no layer has to hand out its maps.

    Args:
        layer: how many layers read everything (K), >= 1. ValueError below. A model with no more layers drops nothing
            before its last.
    """

    name: ClassVar[str] = "fastv"
    reasons: ClassVar[tuple[str, str]] = ("attended to by the question", "attended to less")

    layer: int = 2

    def __post_init__(self) -> None:
        if self.layer < 1:
            raise ValueError(f"layer must be at least 1, not {self.layer}")

    def after(self, view: LayerView, budget: Budget) -> Tensor | None:
        if view.layer != min(self.layer, view.layers - 1) - 1:
            return None
        last = view.attention(torch.tensor([len(view.modality) - 1], device=view.modality.device))[0]
        score = last.masked_fill(~view.media, -1.0)
        best = torch.sort(score, descending=True, stable=True).indices[: budget.count]
        kept = (~view.media).scatter(0, best, True)
        return mask_to_index(kept, len(kept) - int(view.media.sum()) + budget.count)
