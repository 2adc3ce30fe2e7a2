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
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

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
        return _causal_with_bias(query, key, value, attention_mask[0, 0, 0], scaling or query.shape[3] ** -0.5), None
    if groups == 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    pieces = [
        _shared_keys(rows, key, value, mask, scaling)
        for rows, mask in zip(query.split(MOST_ROWS, dim=2), attention_mask.split(MOST_ROWS, dim=2))
    ]
    return torch.cat(pieces, dim=1), None


def _causal_with_bias(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """Causal attention [1, n, heads, head_dim] with ``bias`` [n] float32 added to the logits of each key, by two more
    features of the keys against ones in the queries: the bias rounded to the dtype, and the rest of it."""
    scaled = bias / scaling
    high = scaled.to(key.dtype)
    low = (scaled - high.float()).to(key.dtype)
    features = torch.stack([high, low], dim=-1).expand(*key.shape[:3], 2)
    size = value.shape[3]
    attended = scaled_dot_product_attention(
        pad(torch.cat([query, query.new_ones(*query.shape[:3], 2)], dim=-1), (0, EXTRA - 2)),
        pad(torch.cat([key, features], dim=-1), (0, EXTRA - 2)),
        pad(value, (0, EXTRA)),  # fused kernels want one size of all three
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended[..., :size].transpose(1, 2).contiguous()


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
