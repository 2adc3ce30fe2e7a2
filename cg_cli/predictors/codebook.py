"""A codebook of visual words: k-means of video tokens in the coarse space, from a greedy k-means++ start (Arthur and
Vassilvitskii, 2007: of some candidates drawn by distance, the best is taken)."""

from __future__ import annotations

import torch
from torch import Tensor

from cg_cli.pruning.predictor import CODEBOOK

MOST = 1 << 16  # tokens that a codebook is made from
TOKENS_A_WORD = 8  # at least, of those: fewer tokens make fewer words
ROUNDS = 25
CANDIDATES = 4


def size(tokens: int) -> int:
    """How many words ``tokens`` tokens make."""
    return max(1, min(CODEBOOK, tokens // TOKENS_A_WORD))


def kmeans(point: Tensor, words: int, seed: int) -> Tensor:
    """``words`` centres [words, k] of points [n, k] float32, n >= ``words``; the same for the same ``seed``.

    Computed on the CPU, where sums have one order.
    """
    point = point.cpu()
    generator = torch.Generator().manual_seed(seed)
    centre = point[torch.randint(len(point), (1,), generator=generator)]
    distance = _squared(point, centre)[:, 0]
    for _ in range(words - 1):
        drawn = torch.multinomial(distance.clamp_min(1e-12), CANDIDATES, replacement=True, generator=generator)
        left = torch.minimum(distance[:, None], _squared(point, point[drawn]))
        best = left.sum(0).argmin()
        centre, distance = torch.cat([centre, point[drawn[best]][None]]), left[:, best]
    nearest = None
    for _ in range(ROUNDS):
        before, nearest = nearest, _squared(point, centre).argmin(1)
        if before is not None and torch.equal(before, nearest):
            break
        count = torch.bincount(nearest, minlength=words)[:, None]
        total = torch.zeros_like(centre).index_add_(0, nearest, point)
        centre = torch.where(count > 0, total / count.clamp_min(1), centre)  # one of which nothing is left stays
    return centre


def _squared(point: Tensor, centre: Tensor) -> Tensor:
    """Squared distances [n, m]."""
    return (point.square().sum(1, keepdim=True) - 2 * point @ centre.T + centre.square().sum(1)).clamp_min_(0)
