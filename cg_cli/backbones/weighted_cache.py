"""A KV cache some of whose entries stand for several tokens, and the attention mask that lets them weigh as many.

Proportional attention (ToMe, arXiv 2210.09461, section 3): a key that stands for n equal keys gets ``log n`` added to
its attention scores, so that the softmax gives it what the n would have got together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

ROWS = 4096  # of a mask at a time: a prefix is read in pieces of this many, so that no mask is a square


class WeightedCache(DynamicCache):
    """A ``DynamicCache`` whose first entries have ``bias`` [P] float32 added to their attention scores; None adds
    nothing."""

    def __init__(self, config: Any, merge_size: Tensor | None = None):
        super().__init__(config=config)
        self.bias = None if merge_size is None else merge_size.log()

    def mask(self, new: int, dtype: torch.dtype, seen: Tensor | None = None) -> dict[str, Tensor] | None:
        """What transformers wants to be told so that ``new`` rows attend as they should; None where it knows by itself.

        Args:
            new: rows that are about to be fed.
            dtype: of the attention scores.
            seen: [new, cached + new] bool, True where a row attends; None for the causal order.
        """
        if self.bias is None:
            return None if seen is None else {"full_attention": seen[None, None]}
        past, device = self.get_seq_length(), self.bias.device
        if seen is None:
            seen = torch.ones(new, past + new, dtype=torch.bool, device=device).tril(past)
        # A prefix is fed with its own bias, in pieces; what comes after it stands for itself.
        bias = self.bias.new_zeros(past + new)
        known = min(len(self.bias), past + new)
        bias[:known] = self.bias[:known]
        scores = bias.to(dtype).expand(new, -1).masked_fill(~seen, torch.finfo(dtype).min)
        return {"full_attention": scores[None, None]}


class UnevenCache(DynamicCache):
    """A ``DynamicCache`` whose layers differ in length; a single new row sees all of each."""

    def mask(self, new: int, dtype: torch.dtype, seen: Tensor | None = None) -> dict[str, None]:
        """As ``WeightedCache.mask``. ValueError for more than one row, whose mask would differ from layer to layer."""
        if new != 1 or seen is not None:
            raise ValueError("only one row at a time follows layers of different lengths")
        return {"full_attention": None}
