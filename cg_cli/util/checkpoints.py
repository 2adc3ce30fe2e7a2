"""Checkpoints of the trainings."""

from __future__ import annotations

from pathlib import Path

import torch


def save_whole(data: dict, path: Path) -> None:
    """``torch.save`` that a kill cannot leave half done."""
    torch.save(data, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
