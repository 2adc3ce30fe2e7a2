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

from cg_cli.backbones.per_tensor import once_per_tensor

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
    windows = _windows(cu_seq_lens_q, query.device)
    packed = [x[0].transpose(0, 1) for x in (query, key, value)]  # rows first, as the projections made them
    parts = []
    for length, rows in windows:
        queries, keys, values = (
            x[rows].unflatten(0, (-1, length)).transpose(1, 2) for x in packed
        )  # [windows, heads, length, head_dim]
        attended = scaled_dot_product_attention(queries, keys, values, scale=scaling)
        parts.append((rows, attended.transpose(1, 2).flatten(0, 1)))
    if len(parts) == 1:
        return parts[0][1][None], None
    output = torch.empty_like(packed[0], memory_format=torch.contiguous_format)
    for rows, part in parts:
        output[rows] = part
    return output[None], None


@once_per_tensor
def _windows(borders: Tensor, device: torch.device) -> list[tuple[int, slice | Tensor]]:
    """The windows between ``borders`` by length: the length, and the rows of all that have it, on ``device``; a slice,
    which takes no copy, where they are side by side. Reading the borders waits for the device, once for all blocks of a
    tower."""
    ends = borders.tolist()
    starts_by_length: dict[int, list[int]] = {}
    for start, stop in zip(ends, ends[1:]):
        starts_by_length.setdefault(stop - start, []).append(start)
    windows: list[tuple[int, slice | Tensor]] = []
    for length, starts in starts_by_length.items():
        if starts[-1] - starts[0] == length * (len(starts) - 1):
            windows.append((length, slice(starts[0], starts[-1] + length)))
        else:
            rows = torch.tensor(starts)[:, None] + torch.arange(length)
            windows.append((length, rows.flatten().to(device)))
    return windows


def use_in_towers(model: Any) -> None:
    """Make the vision and audio towers of a loaded model use it, as far as transformers knows them as parts of it.

    Only after loading: ``from_pretrained`` takes an unknown name with "flash" for a kernel on the hub.
    """
    AttentionInterface.register(NAME, grouped_attention)
    model.set_attn_implementation({tower: NAME for tower in TOWERS if tower in model.config.sub_configs})
