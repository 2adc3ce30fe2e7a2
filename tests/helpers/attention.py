"""Attention as its formula says, to check faster ways."""

from __future__ import annotations

from torch import Tensor
from transformers.integrations.sdpa_attention import repeat_kv


def causal_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """[B, n, heads, head_dim] of queries [B, heads, n, head_dim] and keys and values of fewer heads, in causal order;
    ``bias`` [n] is added to the logits of each key."""
    groups, rows = query.shape[1] // key.shape[1], query.shape[2]
    keys, values = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = query @ keys.mT * scaling + bias
    later = query.new_ones(rows, rows).triu(1).bool()
    return (scores.masked_fill(later, float("-inf")).softmax(-1) @ values).transpose(1, 2)
