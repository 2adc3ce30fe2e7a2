"""The coarse visual space where there is no predictor: a fixed random projection, centred on the clip."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from cg_cli.pruning.ops.pieces import by_rows

COMPONENTS = 64


@lru_cache(maxsize=4)
def random_projection(width: int, device: torch.device) -> Tensor:
    """A fixed random matrix [width, COMPONENTS] that keeps distances about as they are (Johnson and Lindenstrauss)."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(width, COMPONENTS, generator=generator) / COMPONENTS**0.5).to(device)


def project(embeddings: Tensor, index: Tensor) -> Tensor:
    """The rows ``index`` [n] of ``embeddings`` [L, D], projected: [n, COMPONENTS] float32."""
    matrix = random_projection(embeddings.shape[1], embeddings.device)
    return by_rows(lambda rows: rows @ matrix, embeddings, index)
