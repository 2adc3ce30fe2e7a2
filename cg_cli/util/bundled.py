"""Files that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cg_cli.errors import UsageError


def bundled_folder(places: Sequence[Path], what: str) -> Path:
    """The first of ``places`` that is there. UsageError if the installation lost it; ``what`` is in it."""
    for folder in places:
        if folder.is_dir():
            return folder
    raise UsageError(f"the bundled {what} are missing, {places[0]} should hold them: reinstall cg-cli")
