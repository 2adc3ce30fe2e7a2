"""Devices, dtypes and quantization by name, and free memory."""

from __future__ import annotations

import importlib.util

import psutil
import torch

from cg_cli.errors import UsageError

NONE, INT8, INT4 = "none", "int8", "int4"  # what the language model's weights are quantized to
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """A device with its index; "auto" is CUDA if there is one, else the CPU.

    Raises:
        UsageError: not a device, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"no device {name}; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError(f"no device {name} here: it takes an Apple GPU; use --device cpu")
        return torch.device("mps")
    if device.type != "cuda":
        raise UsageError(f"device {name} is not supported; use auto, cpu, cuda, cuda:N or mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index or 0
    if index >= count:
        raise UsageError(f"no device {name} here: {count} CUDA devices found; use --device cpu")
    return torch.device("cuda", index)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """A floating type; "auto" is bfloat16 on a GPU and float32 on the CPU.

    Raises:
        UsageError: not one of DTYPES.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise UsageError(f"no dtype {name}; use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def check_quantize(name: str, device: str) -> None:
    """UsageError, before anything is fetched, for a ``--quantize`` that cannot work on ``device``."""
    if name not in (NONE, INT8, INT4):
        raise UsageError(f"--quantize {name}: give {NONE}, {INT8} or {INT4}")
    if name == NONE:
        return
    place = resolve_device(device)
    if place.type not in ("cuda", "cpu"):
        raise UsageError(f"--quantize {name} works on CUDA and on the CPU, not on {place}")
    missing = [module for module in ("bitsandbytes", "accelerate") if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"--quantize {name} needs {' and '.join(missing)}: pip install 'cg-cli[quantize]'")


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has finished all queued work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that can still be had on ``device``: the host's, unless it is a CUDA device."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # free for torch's next tensors
    return torch.cuda.mem_get_info(device)[0] + cached
