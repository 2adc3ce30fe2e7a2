"""Work on the rows of a stream in pieces, since a float32 copy of a bfloat16 stream is twice as large as the stream."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

PIECE = 1 << 21  # numbers worked on at a time: 8 MiB in float32


def pieces(index: Tensor, width: int) -> tuple[Tensor, ...]:
    """``index`` [n, ...] in pieces of which each entry, worked on, is ``width`` numbers; at least one piece."""
    return index.split(max(1, PIECE // max(width, 1)))


def by_rows(function: Callable[[Tensor], Tensor], embeddings: Tensor, index: Tensor) -> Tensor:
    """``function`` of the rows ``index`` [n] of ``embeddings`` [L, D], [n, ...]: it is given [piece, D] float32."""
    return torch.cat([function(embeddings[piece].to(torch.float32)) for piece in pieces(index, embeddings.shape[1])])


def unit(embeddings: Tensor, index: Tensor) -> Tensor:
    """The rows ``index`` [...] of ``embeddings`` [L, D] at unit length: [..., D] float32."""
    return normalize(embeddings[index].to(torch.float32), dim=-1)
