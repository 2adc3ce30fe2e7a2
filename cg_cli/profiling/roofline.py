"""The roofline of this device, measured: peak matrix FLOP/s and memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from cg_cli.backbones.device import synchronize

ROUNDS = 5
SIDE = {"cuda": 8192, "cpu": 1024}  # of the square matrices
BYTES = {"cuda": 1 << 30, "cpu": 1 << 28}  # of the copied buffer


def roofline(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """``flops_per_s`` of a large matrix product in ``dtype``, ``bytes_per_s`` of a copy (read plus written); the best
    of ROUNDS."""
    side = SIDE.get(device.type, SIDE["cpu"])
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.empty(BYTES.get(device.type, BYTES["cpu"]), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = _best(lambda: left @ right, device)
    copy = _best(lambda: target.copy_(source), device)
    return {"flops_per_s": 2 * side**3 / product, "bytes_per_s": 2 * source.nbytes / copy}


def _best(work: Callable[[], object], device: torch.device) -> float:
    """The shortest time of ``work`` in seconds, after a warm-up."""
    seconds = []
    for _ in range(ROUNDS + 1):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
