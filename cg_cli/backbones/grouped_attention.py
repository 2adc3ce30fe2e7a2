"""Packed attention that runs equal windows as one batch.

With "sdpa" the Qwen towers call attention once a window from a Python loop: 1,440 calls a block for a minute
of video. transformers hands the whole packed sequence over, with its window borders, to any implementation whose name
contains "flash"; this one is plain scaled-dot-product attention on the windows, grouped by length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "cg_grouped_flash"  # "flash" is what makes transformers pass cu_seq_lens_q instead of looping
TOWERS = ("vision_config", "audio_config")


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None = None,
    *,
    scaling: float,
    cu_seq_lens_q: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention inside each window of a packed sequence, full within it.

    Args:
        query, key, value: [1, heads, S, head_dim].
        scaling: factor on the scores.
        cu_seq_lens_q: [windows + 1], window borders from 0 to S.

    Returns:
        [1, S, heads, head_dim] and None, as transformers' attention functions do.
    """
    borders = cu_seq_lens_q.tolist()
    starts_by_length: dict[int, list[int]] = {}
    for start, stop in zip(borders, borders[1:]):
        starts_by_length.setdefault(stop - start, []).append(start)
    output = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    for length, starts in starts_by_length.items():
        offsets = torch.arange(length, device=query.device)
        rows = (torch.tensor(starts, device=query.device)[:, None] + offsets).flatten()
        queries, keys, values = (
            x[0].index_select(1, rows).unflatten(1, (-1, length)).transpose(0, 1) for x in (query, key, value)
        )  # [windows, heads, length, head_dim]
        attended = scaled_dot_product_attention(queries, keys, values, scale=scaling)
        output[0, rows] = attended.transpose(1, 2).flatten(0, 1)
    return output, None


def use_in_towers(model: Any) -> None:
    """Make the vision and audio towers of a loaded model use it, as far as transformers knows them as parts of it.

    Only after loading: ``from_pretrained`` takes an unknown name with "flash" for a kernel on the hub.
    """
    AttentionInterface.register(NAME, grouped_attention)
    model.set_attn_implementation({tower: NAME for tower in TOWERS if tower in model.config.sub_configs})
