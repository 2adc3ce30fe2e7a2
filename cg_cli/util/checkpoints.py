"""Checkpoints of trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cg_cli.util.atomic import atomic_path


def save_checkpoint(data: dict[str, Any], path: Path) -> None:
    """``torch.save`` that a kill cannot leave half done."""
    import torch

    with atomic_path(path) as temporary:
        torch.save(data, temporary)
