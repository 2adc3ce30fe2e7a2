"""Masks, indices and even spacing, of sizes that the host knows: none of these waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def mask_to_index(mask: Tensor, count: int) -> Tensor:
    """The first ``count`` places at which ``mask`` [n] bool is True, ascending [count] int64; there have to be as many.

    Like ``mask.nonzero()``, but does not wait for the device, since the caller knows the size.
    """
    return torch.argsort((~mask).to(torch.uint8), stable=True)[:count]


def complement(total: int, kept: Tensor) -> Tensor:
    """The numbers of ``range(total)`` that are not in ``kept`` [k] int64, distinct: ascending [total - k] int64."""
    rest = torch.ones(total, dtype=torch.bool, device=kept.device).scatter_(0, kept, False)
    return mask_to_index(rest, total - len(kept))


def bincount(number: Tensor, size: int) -> Tensor:
    """How often each of ``range(size)`` is in ``number`` [n] int64: [size] int64. ``torch.bincount`` waits for the
    device."""
    return torch.zeros(size, dtype=torch.int64, device=number.device).index_add_(0, number, torch.ones_like(number))


def evenly_spaced(rank: Tensor, count: Tensor | int, total: Tensor) -> Tensor:
    """Whether each ``rank``, from 1 to ``total``, is one of ``count`` evenly spaced ones; bool in the shape of
    ``rank``. ``count`` and ``total`` broadcast to it."""
    return (rank * count + total // 2) // total > ((rank - 1) * count + total // 2) // total


def evenly_spaced_mask(member: Tensor, count: Tensor | int) -> Tensor:
    """Pick ``count`` evenly spaced ones of the places where ``member`` [n] is True; all of them if there are no more.

    Returns a mask [n] bool. Counts in integers, as a line is drawn on a pixel grid, so that the number is exact.
    ``count`` may be a tensor, and below 1 picks nothing.
    """
    return member & evenly_spaced(member.cumsum(0), count, member.sum().clamp_min(1))


def evenly_spaced_index(total: int, count: int, device: torch.device) -> Tensor:
    """``count`` evenly spaced numbers of ``range(total)``, ascending [count] int64."""
    return mask_to_index(evenly_spaced_mask(torch.ones(total, dtype=torch.bool, device=device), count), count)
