"""What the site shows of files that lie beside ``docs``; mkdocs calls it (``mkdocs.yml``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(text: str, page: Any, **_: Any) -> str:
    """The changelog in the place of the page that points to it."""
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8") if page.file.src_uri == "changelog.md" else text
