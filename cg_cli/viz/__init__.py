"""Pictures of what was kept, by the suffix of their file. Importing this package imports nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cg_cli.errors import UsageError

if TYPE_CHECKING:
    from cg_cli.viz.scene import Scene

FORMS = {".png": "sheet", ".mp4": "overlay", ".html": "page", ".npz": "data", ".json": "data"}


def check(paths: Sequence[Path]) -> None:
    """UsageError, before anything slow begins, for a file that cannot be drawn."""
    for path in paths:
        if path.suffix.lower() not in FORMS:
            raise UsageError(f"--show {path}: what is written is told by the suffix: {', '.join(FORMS)}")
        if not path.parent.is_dir():
            raise UsageError(f"--show {path}: no such folder {path.parent}")
        if path.is_dir():
            raise UsageError(f"--show {path} is a folder: name a file in it")
        if path.suffix.lower() == ".html" and path.exists():
            importlib.import_module(".page", __name__).check(path)


def write(path: Path, scene: Scene) -> None:
    """Draw ``scene`` into a file. CgError if that cannot be done."""
    importlib.import_module(f".{FORMS[path.suffix.lower()]}", __name__).write(path, scene)
