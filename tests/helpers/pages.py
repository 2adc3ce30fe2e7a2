"""The pages people read, and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NOT_RUN = re.compile(r"#\s*(needs|takes) ")  # a command that not every machine can run says so in a comment


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line where it begins."""

    language: str
    text: str
    line: int


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of ``page`` in a language, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", text, re.DOTALL | re.MULTILINE):
        if match[1] == language:
            found.append(Block(language, match[2], text.count("\n", 0, match.start()) + 2))
    return found


def commands(block: Block) -> list[str]:
    """The commands of a ``sh`` block that are run, each with its continuation lines."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if lines and lines[0].startswith("#") and NOT_RUN.search(lines[0]):
        return []
    return [line for line in lines if line.strip() and not line.startswith("#") and not NOT_RUN.search(line)]
