"""Texts that people see, held as files: ``UPDATE_SNAPSHOTS=1 pytest tests/console`` writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "console" / "snapshots"


def check(name: str, text: str) -> None:
    """AssertionError unless ``text`` is what the file ``name`` holds; spaces at the ends of lines do not count."""
    path = FOLDER / f"{name}.txt"
    plain = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(plain, encoding="utf-8")
    assert plain == path.read_text(encoding="utf-8"), f"{path.name} differs; see {__doc__}"
