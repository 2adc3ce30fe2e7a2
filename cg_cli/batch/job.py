"""The unit of work that engines hand to workers, and the name of its worst end. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from cg_cli.errors import ItemError

POISON = "poison"  # type of a failure that no run tries again
MAX_ATTEMPTS = 2  # a file that has killed its worker so often is poison


@dataclass(frozen=True)
class Job:
    """A file, what tells its version (``records.video_identity``), and questions."""

    video: str
    identity: str
    questions: tuple[str, ...]


def poisoned(stage: str, message: str) -> ItemError:
    """The error of a file that has killed its worker MAX_ATTEMPTS times; ``message`` is about the last time."""
    return ItemError(
        stage, f"{message}; that was the second time, so it is set aside as poison and not tried again", POISON
    )
