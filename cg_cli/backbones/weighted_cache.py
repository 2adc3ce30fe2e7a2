"""KV caches for proportional attention and for layer-wise prefill, and the attention masks that go with them.

Proportional attention (ToMe, arXiv 2210.09461, section 3): a merged key of size n gets ``log n`` added to its attention
logits, so that the softmax gives it what n equal keys would get together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


class WeightedCache(DynamicCache):
    """A ``DynamicCache`` whose first entries have ``bias`` [P] float32 added to their attention logits: the log of
    their merge size; None adds nothing."""

    def __init__(self, config: Any, merge_size: Tensor | None = None):
        super().__init__(config=config)
        self.bias = None if merge_size is None else merge_size.log()

    def mask(self, new: int, dtype: torch.dtype) -> dict[str, Tensor | None] | None:
        """The masks by kind of layer that the decoder takes for ``new`` rows (see ``decoder_attention``); None for
        transformers' own causal one.

        Args:
            new: rows that are about to be fed.
            dtype: of the attention logits.
        """
        if self.bias is None:
            return None
        past, device = self.get_seq_length(), self.bias.device
        if past == 0:  # the prefix itself, in causal order
            return {"full_attention": self.bias[None, None, None]}
        later = torch.ones(new, past + new, dtype=torch.bool, device=device).triu(past + 1)
        # What comes after the prefix has merge size 1.
        bias = torch.cat([self.bias, self.bias.new_zeros(past + new - len(self.bias))])
        scores = bias.to(dtype).expand(new, -1).masked_fill(later, torch.finfo(dtype).min)
        return {"full_attention": scores[None, None]}


class UnevenCache(DynamicCache):
    """A ``DynamicCache`` whose layers differ in length; a single new row attends to all of each."""

    def mask(self, new: int, dtype: torch.dtype) -> dict[str, Tensor | None] | None:
        """As ``WeightedCache.mask``. ValueError for more than one row, whose mask would differ from layer to layer."""
        if new != 1:
            raise ValueError("only one row at a time follows layers of different lengths")
        return {"full_attention": None}


def cache_bytes(cache: DynamicCache) -> int:
    """Bytes of keys and values."""
    return sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
