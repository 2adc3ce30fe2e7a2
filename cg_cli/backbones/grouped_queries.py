"""Masked attention of a few new rows to a long cache whose keys serve several heads each (GQA), without a copy of the
keys and values for every head.

Where there is a mask, torch's fused kernels take no fewer key heads than query heads, and transformers repeats keys and
values; it avoids that for a single row alone. Here the heads that share keys become further rows.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "cg_grouped_queries"
MOST_ROWS = 128  # new rows; with more, the repeated mask takes more than repeated keys


def grouped_queries(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """As transformers' attention functions.

    Args:
        query: [B, heads, n, head_dim].
        key, value: [B, key heads, L, head_dim].
        attention_mask: [B or 1, 1, n, L], or None.

    Returns:
        [B, n, heads, head_dim] and None.
    """
    groups, new = query.shape[1] // key.shape[1], query.shape[2]
    if attention_mask is None or groups == 1 or not 1 < new <= MOST_ROWS or attention_mask.shape[1] != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    rows = query.unflatten(1, (-1, groups)).flatten(2, 3)  # [B, key heads, groups * n, head_dim]
    mask = attention_mask.repeat(1, 1, groups, 1)
    attended = scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return attended.unflatten(2, (groups, new)).flatten(1, 2).transpose(1, 2).contiguous(), None


def use_in_decoder(model: Any) -> None:
    """Make the language model of a loaded model use it. Only after loading, as for the towers."""
    AttentionInterface.register(NAME, grouped_queries)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation({"text_config": NAME})
