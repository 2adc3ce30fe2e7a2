"""Farthest point sampling (k-centre, Gonzalez 1985) of many small sets side by side."""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

from cg_cli.pruning.ops.grids import PAIRS

log = logging.getLogger(__name__)


def distances(point: Tensor) -> Tensor:
    """Euclidean distances [W, n, n] of points [W, n, k] float32; those of near ones are exact, too."""
    return torch.cdist(point, point, compute_mode="donot_use_mm_for_euclid_dist")


def insertion_radius(distance: Tensor, mask: Tensor, first: Tensor, picks: int) -> Tensor:
    """How far each token was from those picked before it, when each next one is the farthest from all that were.

    Sorting by it, stably and descending, gives the order of the picks: no later pick is farther, and among equals the
    one with the lower number goes first.

    Args:
        distance: [W, n, n] float32, of the tokens of each set with each other.
        mask: [W, n] bool, False where there is no token.
        first: [W] int64, the token of each set that is picked first.
        picks: how many are picked in each set; one with fewer tokens picks all of them.

    Returns:
        [W, n] float32: infinite for the first, minus infinity for what is not picked.
    """
    farthest = torch.finfo(distance.dtype).max
    own = torch.eye(distance.shape[1], dtype=torch.bool, device=distance.device)
    # To itself a token is so near that once picked it never is again.
    distance = distance.masked_fill(own, -torch.inf)
    closest = torch.full(mask.shape, farthest, dtype=distance.dtype, device=distance.device)
    closest = closest.scatter(1, first[:, None], torch.inf).masked_fill(~mask, -torch.inf)
    if distance.device.type != "cuda":
        return _picked(distance, closest, picks)
    sets = max(len(distance), PAIRS // distance.shape[1] ** 2)
    return _recorded(distance.device, sets, distance.shape[1], picks)(distance, closest)


def _picked(distance: Tensor, closest: Tensor, picks: int) -> Tensor:
    """The radius of each token [W, n] from the distance to the nearest pick so far, ``closest`` [W, n]."""
    radius = torch.full_like(closest, -torch.inf)
    for _ in range(picks):
        # A set that has run out of tokens picks one of minus infinity again, to no effect.
        far, pick = closest.max(1, keepdim=True)
        radius = radius.scatter_reduce(1, pick, far, "amax")
        closest = torch.minimum(closest, distance.gather(1, pick[:, :, None].expand_as(distance[:, :1]))[:, 0])
    return radius


class _Recorded:
    """``_picked`` as a CUDA graph, for up to ``sets`` sets of ``size`` tokens: thousands of small kernels are launched
    in a fraction of the time. Where it cannot be recorded, it is computed without."""

    def __init__(self, device: torch.device, sets: int, size: int, picks: int):
        self._distance = torch.zeros(sets, size, size, device=device)
        self._closest = torch.zeros(sets, size, device=device)
        self._picks = picks
        self._graph: torch.cuda.CUDAGraph | None = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._radius = _picked(self._distance, self._closest, picks)
        except RuntimeError as error:
            log.warning("selection goes on without CUDA graphs, and slower: %s", str(error).partition("\n")[0])
            self._graph = None

    def __call__(self, distance: Tensor, closest: Tensor) -> Tensor:
        """As ``_picked``."""
        if self._graph is None:
            return _picked(distance, closest, self._picks)
        self._distance[: len(distance)].copy_(distance)
        self._closest[: len(closest)].copy_(closest)
        self._graph.replay()
        return self._radius[: len(closest)].clone()


# The clips of a folder often have the same shape.
_recorded = functools.lru_cache(maxsize=4)(_Recorded)
