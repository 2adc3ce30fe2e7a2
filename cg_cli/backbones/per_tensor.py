"""What is computed once from a tensor that is handed to one layer after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

R = TypeVar("R")


def once_per_tensor(compute: Callable[..., R]) -> Callable[..., R]:
    """``compute(tensor, *more)``, computed once for a tensor and ``more`` and kept as long as the tensor lives.

    Tensors are told apart by what they are, not by their numbers: they must not be written to, as the inputs of a
    recorded step are. ``more`` must be hashable, and the result must not hold the tensor.
    """
    known: Any = WeakTensorKeyDictionary()

    @functools.wraps(compute)
    def look_up(tensor: Tensor, *more: Any) -> R:
        results = known.setdefault(tensor, {})
        if more not in results:
            results[more] = compute(tensor, *more)
        return results[more]

    return look_up
