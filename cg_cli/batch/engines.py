"""What answers the jobs of a batch, by name."""

from __future__ import annotations

from cg_cli.batch import decoders
from cg_cli.batch.decoders import AUTO
from cg_cli.batch.gpus import gpu_count
from cg_cli.batch.pool import IN_FLIGHT, Pool
from cg_cli.batch.run import Engine
from cg_cli.errors import UsageError
from cg_cli.settings.table import Settings

NAMES = ("local", "ray")


def make(name: str, settings: Settings, gpus: str | None, in_flight: str = AUTO, decode: str = AUTO) -> Engine:
    """The engine ``name``.

    Args:
        gpus: how many CUDA devices it takes: a number, "all", or None for what ``settings`` say.
        in_flight: clips whose questions are decoded together, at most: a number, or "auto".
        decode: files that each worker decodes at a time: a number, or "auto".

    Raises:
        UsageError: no such engine, not so many devices, or no such number.
    """
    if name == "ray":
        from cg_cli.batch.ray_engine import RayEngine

        return RayEngine(settings, gpus, clips_in_flight(in_flight), decode)
    if name != "local":
        raise UsageError(f"--engine {name}: there are {', '.join(NAMES)}")
    devices = [settings.device] if gpus is None else _cuda_devices(gpus, settings.device)
    ahead = decoders.parse(decode, decoders.usable_cores(), len(devices))
    return Pool(settings, devices, ahead, clips_in_flight(in_flight))


def clips_in_flight(value: str) -> int:
    """The number that ``--in-flight`` says; a worker takes fewer where its device has no room. UsageError if it is
    none."""
    return decoders.number_or_auto("--in-flight", value) or IN_FLIGHT


def _cuda_devices(gpus: str, device: str) -> list[str]:
    import torch

    if device not in ("auto", "cuda"):
        raise UsageError(f"--gpus {gpus} and --device {device}: give one of them")
    count = gpu_count(gpus, torch.cuda.device_count(), "here")
    return [f"cuda:{number}" for number in range(count)]
