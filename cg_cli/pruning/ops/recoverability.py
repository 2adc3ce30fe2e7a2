"""What of a window's video tokens its sound has told already, as either kind of predictor says it: a direction of the
coarse space, or visual words (clusters of tokens; after Sivic and Zisserman, "Video Google", 2003)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cg_cli.pruning.ops.grids import Grids

# Tokens that sound tells of, in a window, that count in full: "what is it" stays where "how much of it" goes. Farthest
# first takes them from different words. Were these the first of each word, next to nothing would change where a heard
# class is a set of looks, of each of which novelty keeps little more than one: of the silent objects in a simulation of
# tokens (keep .25) 77 % stayed, 91 % as it is here, and 73 % without sound. Chosen there, not on nano.
FEW = 2
# Sound tells of a word only what exceeds twice its usual likelihood, since what is learned from a few thousand clips is
# no more exact than that. Without it, a dubbed scene of the simulation lost up to a quarter of its silent objects to
# words that its sound made a little likelier, and a predictor trained on shuffled sound changed what is kept.
MARGIN = math.log(2)


class Heard(Protocol):
    """What a window's sound tells of its picture."""

    def point(self, grids: Grids) -> Tensor:
        """What it leaves of the tokens [G, P, k]."""

    def untold(self, grids: Grids) -> Tensor:
        """How little of each token it tells, whatever the token's detail [G, P]."""

    def weigh(self, score: Tensor, order: Tensor, grids: Grids) -> Tensor:
        """What it leaves of the tokens' ``score`` [G, P]; ``order`` [G, P] says which tokens come first."""

    def share(self, grids: Grids) -> Tensor:
        """How much of each grid's picture it tells [G], 0..1."""


@dataclass(frozen=True)
class HeardDirection:
    """The direction that each grid's sound predicts [G, k], unit length or 0, and the confidence in it [G], 0..1."""

    direction: Tensor
    confidence: Tensor

    def point(self, grids: Grids) -> Tensor:
        return grids.point - self.confidence[:, None, None] * self._along(grids) * self.direction[:, None]

    def untold(self, grids: Grids) -> Tensor:
        along = self._along(grids)[:, :, 0]
        return 1 - self.confidence[:, None] * along / grids.point.norm(dim=-1).clamp_min(1e-6)

    def weigh(self, score: Tensor, order: Tensor, grids: Grids) -> Tensor:
        return score

    def share(self, grids: Grids) -> Tensor:
        return self.confidence

    def _along(self, grids: Grids) -> Tensor:
        return (grids.point * self.direction[:, None]).sum(-1, keepdim=True)


@dataclass(frozen=True)
class HeardWords:
    """The word of each token [G, P] int64, the window of each grid [G] int64, and the recoverability of each word in
    each window, ``log p(word | sound) - log p(word)``, [W, K]."""

    word: Tensor
    window: Tensor
    recoverability: Tensor

    def point(self, grids: Grids) -> Tensor:
        return grids.point

    def untold(self, grids: Grids) -> Tensor:
        return torch.ones_like(grids.point[:, :, 0])

    def weigh(self, score: Tensor, order: Tensor, grids: Grids) -> Tensor:
        """From the FEW-th token of a window that sound tells of on, by how likely its word is against how likely sound
        makes it, beyond MARGIN. Sound that makes a word no likelier than that takes nothing."""
        return torch.where(self.rank(order, grids) < FEW, score, score * self._untold_share())

    def share(self, grids: Grids) -> Tensor:
        told = (1 - self._untold_share()) * grids.mask
        return told.sum(1) / grids.mask.sum(1).clamp_min(1)

    def rank(self, order: Tensor, grids: Grids) -> Tensor:
        """Rank of each token that sound tells of among those of its window [G, P] int64, by ``order`` [G, P]: the
        highest is 0, earlier tokens first among equals. Those of the others mean nothing. Never waits for the
        device."""
        told = grids.mask & (self._of_tokens() > MARGIN)
        group = torch.where(told, self.window[:, None], len(self.window)).flatten()
        ranked = torch.sort(order.flatten(), descending=True, stable=True).indices
        ranked = ranked[torch.argsort(group[ranked], stable=True)]
        group = group[ranked]
        rank = torch.arange(len(group), device=group.device) - torch.searchsorted(group, group)
        return torch.empty_like(rank).scatter_(0, ranked, rank).view_as(self.word)

    def _of_tokens(self) -> Tensor:
        """Recoverability of each token's word [G, P]."""
        return self.recoverability[self.window[:, None], self.word]

    def _untold_share(self) -> Tensor:
        """``2 p(word) / p(word | sound)`` of each token's word [G, P], at most 1."""
        return (MARGIN - self._of_tokens()).clamp_max(0).exp()
