"""Pictures of what was kept, by the suffix of their file. Importing this package imports nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cg_cli.errors import CgError, UsageError
from cg_cli.util.outputs import check_output, is_replaceable

if TYPE_CHECKING:
    from cg_cli.viz.scene import Scene

ENDS = 1 << 20  # bytes at either end of a picture or film in which MARK is
FORMS = {".png": "sheet", ".mp4": "overlay", ".html": "page", ".npz": "data", ".json": "data"}
MARK = "made by cg: what was kept"  # in every file, so that it may be written over


def check(paths: Sequence[Path], inputs: Sequence[str | Path] = ()) -> None:
    """UsageError, before anything slow begins, for a file that cannot be drawn, or would be drawn over somebody
    else's."""
    for path in paths:
        if path.suffix.lower() not in FORMS:
            raise UsageError(f"--show {path}: what is written is told by the suffix: {', '.join(FORMS)}")
        check_output("--show", path, inputs=inputs, is_ours=is_ours)


def is_ours(path: Path) -> bool:
    """Whether an existing file is one that ``write`` made."""
    match path.suffix.lower():
        case ".html":
            importlib.import_module(".page", __name__).check(path)  # raises, with what else to do
            return True
        case ".npz" | ".json":
            return importlib.import_module(".data", __name__).is_ours(path)
        case _:
            with path.open("rb") as file:
                head = file.read(ENDS)
                file.seek(max(0, path.stat().st_size - ENDS))
                return MARK.encode() in head + file.read(ENDS)


def write(path: Path, scene: Scene) -> None:
    """Draw ``scene`` into a file. CgError if that cannot be done, or the file is somebody else's."""
    if path.is_file() and not is_replaceable(path, is_ours):
        raise CgError(f"cannot write {path}: it exists, and cg did not write it")
    importlib.import_module(f".{FORMS[path.suffix.lower()]}", __name__).write(path, scene)
