"""Segments of a video by depth score: how deep the similarity of neighbouring grids dips between its peaks.

TextTiling's score, as VideoLLaMB uses it for scenes. ContextGuard names depth-score merging (arXiv 2605.11605, section
2.3) without a public formula; the online form, left peak only, is the causal half of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

ALPHA = 0.5  # standard deviations above the mean depth from which a dip is a cut
SHALLOW = 0.02  # no dip below this is a cut, or a still video would be cut at its noise


def _peaks(similarity: Tensor) -> Tensor:
    """For each gap [G - 1] the value reached by climbing to the left for as long as it does not go down."""
    place = torch.arange(len(similarity), device=similarity.device)
    rises = torch.ones_like(similarity, dtype=torch.bool)
    rises[1:] = similarity[1:] > similarity[:-1]
    return similarity[torch.where(rises, place, 0).cummax(0).values]


def depth(similarity: Tensor, causal: bool) -> Tensor:
    """Depth score [G - 1] of each gap, from the ``similarity`` [G - 1] of the two grids beside it; ``causal`` counts
    the peak to the left only."""
    left = _peaks(similarity) - similarity
    return left if causal else left + _peaks(similarity.flip(0)).flip(0) - similarity


def segments(similarity: Tensor, causal: bool) -> Tensor:
    """Number of the segment that each grid belongs to.

    Args:
        similarity: [G - 1] float32, of each grid with the next.
        causal: judge each gap by the gaps up to it only.

    Returns:
        [G] int64, from 0, never falling.
    """
    start = torch.zeros(1, dtype=torch.int64, device=similarity.device)
    if not len(similarity):
        return start
    dip = depth(similarity, causal)
    if causal:
        count = torch.arange(1, len(dip) + 1, device=dip.device)
        mean = dip.cumsum(0) / count
        spread = (dip.square().cumsum(0) / count - mean.square()).clamp_min(0).sqrt()
    else:
        mean, spread = dip.mean(), dip.std(correction=0)
    cut = (dip > mean + ALPHA * spread) & (dip > SHALLOW)
    return torch.cat([start, cut.cumsum(0)])
