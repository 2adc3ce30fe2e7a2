"""Attention of the language model where torch's fused kernels need help: merge sizes in a prefill, and masked rows
whose keys serve several heads each (GQA).

With a mask, a fused kernel computes the whole rectangle and takes no fewer key heads than query heads, so that
transformers repeats keys and values. Neither is needed: the log of a merge size can be part of the keys, which leaves
the causal kernels as they are, and heads that share keys can be further rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from cg_cli.backbones.per_tensor import once_per_tensor

NAME = "cg_decoder"
MOST_ROWS = 128  # new rows at a time: their mask is repeated for the heads that share keys
EXTRA = 8  # features that are added to queries, keys and values: two are used, and kernels want multiples of eight


def decoder_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """As transformers' attention functions, but for one more kind of mask.

    Args:
        query: [B, heads, n, head_dim].
        key, value: [B, key heads, L, head_dim].
        attention_mask: [B or 1, 1, n, L], bool or what is added to the logits; or [1, 1, 1, L] for n = L > 1 rows in
            causal order, whose keys have this added to their logits; or None.

    Returns:
        [B, n, heads, head_dim] and None.
    """
    groups, new = query.shape[1] // key.shape[1], query.shape[2]
    if attention_mask is None or new == 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    if attention_mask.shape[2] == 1:
        return _causal_with_bias(query, key, value, attention_mask, scaling or query.shape[3] ** -0.5), None
    if groups == 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    pieces = [
        _shared_keys(rows, key, value, mask, scaling)
        for rows, mask in zip(query.split(MOST_ROWS, dim=2), attention_mask.split(MOST_ROWS, dim=2))
    ]
    return torch.cat(pieces, dim=1), None


def _causal_with_bias(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """Causal attention [1, n, heads, head_dim] with ``bias`` [1, 1, 1, n] float32 added to the logits of each key, by
    ``_features`` of queries and keys."""
    for_query, for_key, for_value = _features(bias, scaling, key.dtype)
    attended = scaled_dot_product_attention(
        _widened(query, for_query),
        _widened(key, for_key),
        _widened(value, for_value),
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended[..., : value.shape[3]].transpose(1, 2).contiguous()


@once_per_tensor
def _features(bias: Tensor, scaling: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What is added to queries [EXTRA], keys [n, EXTRA] and values [EXTRA], so that logits times ``scaling`` have
    ``bias`` [1, 1, 1, n] in them: the bias rounded to ``dtype`` and the rest of it against two ones, and zeros. Values
    only grow because fused kernels want one size of all three. All layers of a prefill get the same bias."""
    scaled = bias[0, 0, 0] / scaling
    high = scaled.to(dtype)
    low = (scaled - high.float()).to(dtype)
    zeros = scaled.new_zeros(EXTRA, dtype=dtype)
    ones, keys = zeros.clone(), zeros.repeat(len(scaled), 1)
    ones[:2], keys[:, 0], keys[:, 1] = 1, high, low
    return ones, keys, zeros


def _widened(x: Tensor, features: Tensor) -> Tensor:
    """[1, heads, n, head_dim + EXTRA]: ``x`` with ``features`` [EXTRA] or [n, EXTRA] in all heads."""
    return torch.cat([x, features.expand(*x.shape[:3], EXTRA)], dim=-1)


def _shared_keys(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """Attention [B, n, heads, head_dim] under a ``mask`` [B or 1, 1, n, L]; heads that share keys become rows."""
    groups, new = query.shape[1] // key.shape[1], query.shape[2]
    rows = query.unflatten(1, (-1, groups)).flatten(2, 3)  # [B, key heads, groups * n, head_dim]
    attended = scaled_dot_product_attention(rows, key, value, attn_mask=mask.repeat(1, 1, groups, 1), scale=scaling)
    return attended.unflatten(2, (groups, new)).flatten(1, 2).transpose(1, 2).contiguous()


def use_in_decoder(model: Any) -> None:
    """Make the language model of a loaded model use it. Only after loading, as for the towers."""
    AttentionInterface.register(NAME, decoder_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation({"text_config": NAME})
