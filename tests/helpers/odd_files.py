"""What a path may be instead of a regular file."""

from __future__ import annotations

import os
from pathlib import Path


def odd_file(path: Path, kind: str) -> Path:
    """A "fifo" that nobody writes, a "device" that never ends, or a "folder" at ``path``."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path
