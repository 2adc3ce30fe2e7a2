"""What answers the jobs of a batch, by name."""

from __future__ import annotations

import os

from cg_cli.batch.gpus import gpu_count
from cg_cli.batch.pool import Pool
from cg_cli.batch.run import Engine
from cg_cli.errors import UsageError
from cg_cli.settings.table import Settings

NAMES = ("local", "ray")
MOST_DECODERS = 4  # of one model; more clips wait in memory, and no model keeps up


def make(name: str, settings: Settings, gpus: str | None) -> Engine:
    """The engine ``name``; ``gpus`` is how many CUDA devices it takes: a number, "all", or None for what ``settings``
    say.

    Raises:
        UsageError: no such engine, or not so many devices.
    """
    if name == "ray":
        from cg_cli.batch.ray_engine import RayEngine

        return RayEngine(settings, gpus)
    if name != "local":
        raise UsageError(f"--engine {name}: there are {', '.join(NAMES)}")
    devices = [settings.device] if gpus is None else _cuda_devices(gpus, settings.device)
    cores = os.cpu_count() or 1
    return Pool(settings, devices, decoders=max(1, min(MOST_DECODERS, cores // len(devices) - 1)))


def _cuda_devices(gpus: str, device: str) -> list[str]:
    import torch

    if device not in ("auto", "cuda"):
        raise UsageError(f"--gpus {gpus} and --device {device}: give one of them")
    count = gpu_count(gpus, torch.cuda.device_count(), "here")
    return [f"cuda:{number}" for number in range(count)]
