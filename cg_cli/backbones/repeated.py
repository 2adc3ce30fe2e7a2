"""What is encoded once, though it occurs more than once: blocks that are encoded alone and repeat earlier ones.

Which do is ``sources`` [B] int64: the block that each one repeats, its own number for the others (``media.repeats``). A
block of video is a grid of frames, one of sound what a tower's attention sees together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def compact(values: Tensor, sources: np.ndarray, size: int) -> Tensor:
    """``values`` [..., N], in blocks of ``size`` and a rest, without the blocks that repeat others."""
    fresh = torch.from_numpy(np.unique(sources)).to(values.device)
    if len(fresh) == len(sources):
        return values
    whole = len(sources) * size
    blocks = values[..., :whole].unflatten(-1, (len(sources), size)).index_select(-2, fresh)
    return torch.cat([blocks.flatten(-2), values[..., whole:]], dim=-1)


def expand(features: Tensor, sources: np.ndarray, size: int) -> Tensor:
    """Features [M, D] of what ``compact`` left, ``size`` rows a block and a rest, as those of all blocks [N, D]."""
    fresh, index = np.unique(sources, return_inverse=True)
    if len(fresh) == len(sources):
        return features
    whole = len(fresh) * size
    blocks = features[:whole].unflatten(0, (len(fresh), size))
    copies = blocks[torch.from_numpy(index).to(features.device)]
    return torch.cat([copies.flatten(0, 1), features[whole:]])


def same_rows(modality: Tensor, blocks: Mapping[int, tuple[np.ndarray, int]]) -> Tensor | None:
    """``TokenStream.same_as``, or None where nothing repeats.

    Args:
        modality: [L] int64, of the rows, on the CPU.
        blocks: by modality, sources and the number of rows of a block; blocks begin with the first row of it.
    """
    same_as = torch.arange(len(modality))
    for kind, (sources, size) in blocks.items():
        rows = (modality == kind).nonzero()[: len(sources) * size, 0].view(len(sources), size)
        same_as[rows] = rows[torch.from_numpy(sources)]
    return None if torch.equal(same_as, torch.arange(len(modality))) else same_as
