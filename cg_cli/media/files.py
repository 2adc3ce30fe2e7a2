"""Which files of a folder are media, by their names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

VIDEO_SUFFIXES = (
    ".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".flv", ".3gp", ".3g2",
    ".ogv", ".wmv", ".mxf", ".vob", ".f4v", ".divx", ".asf", ".nut",
)  # fmt: skip
AUDIO_SUFFIXES = (
    ".mp3", ".wav", ".flac", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aiff", ".aif", ".caf", ".amr", ".mka",
)  # fmt: skip


def walk(folder: Path, suffixes: tuple[str, ...], on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """The files below ``folder`` whose names end in one of ``suffixes`` (lower case), in order of name; hidden ones
    (``._clip.mp4``) are left out, broken links are not.

    ``on_error`` gets the error of a folder that cannot be listed, and may raise.
    """
    for parent, folders, names in os.walk(folder, onerror=on_error):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() in suffixes:
                yield path
