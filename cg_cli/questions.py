"""What is asked about which video: plain data, whether a manifest or a benchmark brings it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GOLD = "expected"  # what a record calls the ``answer`` of a manifest: its own ``answer`` is the model's


@dataclass(frozen=True)
class Question:
    """One question about a clip; ``id`` and ``more`` come from its manifest and go into its record."""

    text: str
    id: str | int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells two questions about one video apart: text, id, choices."""
        return self.text, self.id, *self.choices

    @property
    def expected(self) -> str | None:
        """The right answer, if the manifest has it."""
        return None if self.more.get(GOLD) is None else str(self.more[GOLD])

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts to choose from; none if the question is open."""
        texts = self.more.get("choices")
        return tuple(map(str, texts)) if isinstance(texts, list | tuple) else ()


@dataclass(frozen=True)
class Item:
    """One media file, by a path that this process can open, and its questions."""

    video: str
    questions: tuple[Question, ...]


@dataclass
class Collected:
    """Everything to do: ``items`` in order of first mention, each file once; ``faults``, a line each about what was
    left out."""

    items: list[Item]
    faults: list[str]
