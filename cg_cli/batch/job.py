"""The unit of work that engines hand to workers, and the name of its worst end. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from cg_cli.errors import ItemError

POISON = "poison"  # type of a failure whose file has killed its worker
# Types of failures that lie in a file's bytes, which nobody can mend by trying again.
FOR_GOOD = frozenset({"empty", "not_media", "no_streams", "no_track", "encrypted", "unreadable"})
MAX_ATTEMPTS = 2  # a file that has killed its worker so often is poison


@dataclass(frozen=True)
class Job:
    """A file and questions about it; ``number`` tells it from other jobs of the run.

    ``together``: the questions are decoded side by side, as far as that works; ``alone``: with none of another clip;
    ``check``: the whole clip answers them, too.
    """

    number: int
    video: str
    questions: tuple[str, ...]
    together: bool = True
    alone: bool = False
    check: bool = False

    def to_message(self) -> dict[str, Any]:
        """As plain data, for another process."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        own = {name: value for name, value in message.items() if name in cls.__dataclass_fields__}
        return cls(**own | {"questions": tuple(message["questions"])})


def poisoned(stage: str, message: str) -> ItemError:
    """The error of a file that has killed its worker MAX_ATTEMPTS times; ``message`` is about the last time."""
    return ItemError(
        stage, f"{message}; that was the second time, so it is poison, and not tried again without --retry", POISON
    )
