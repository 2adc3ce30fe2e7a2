"""Windows of time: which one each row or grid of a clip belongs to."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_S = 2.0  # seconds; Qwen2.5-Omni interleaves sound and picture in chunks of this length
EPSILON = 1e-4  # windows: start times are float32, and one that is rounded down still starts its window


def window_number(time_s: Tensor, seconds: float) -> Tensor:
    """Window of ``seconds`` that each time falls into: ``time_s`` [...] float32 to [...] int64; below 0 counts as 0."""
    return (time_s.clamp_min(0) / seconds + EPSILON).long()


def window_index(start_s: Tensor, seconds: float) -> Tensor:
    """Window of each grid [G] int64, numbered from 0 without gaps: grids that start, at ``start_s`` [G] float32, in the
    same ``seconds`` share one."""
    number = window_number(start_s, seconds)
    return torch.cat([number.new_zeros(1), (number[1:] != number[:-1]).cumsum(0)])
