"""What ``--gpus`` means."""

from __future__ import annotations

from cg_cli.errors import UsageError


def gpu_count(gpus: str, available: int, where: str) -> int:
    """How many GPUs ``--gpus`` means: a number, or "all" of those ``available``, which are ``where``. UsageError for
    any other word, for none, and for more than there are."""
    count = available if gpus == "all" else int(gpus) if gpus.isdecimal() else 0
    if not count and gpus != "all":
        raise UsageError(f"--gpus {gpus}: give a number above 0, or all")
    if not 0 < count <= available:
        verb, plural = ("is", "") if available == 1 else ("are", "s")
        raise UsageError(f"--gpus {gpus}: there {verb} {available or 'no'} CUDA device{plural} {where}")
    return count
