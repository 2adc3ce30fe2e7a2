"""Every pruner with the settings that the property tests run it in: a new method is one more row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """A pruner by its registry name; ``whole_only`` for one that refuses any budget but the whole stream."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    whole_only: bool = False

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])


CASES = [
    Case("none", whole_only=True),
    Case("random"),
    Case("random", {"seed": 7}),
    Case("uniform"),
    Case("evs"),
    Case("contextguard"),
    Case("contextguard", {"detail": False}),
    Case("contextguard", {"merge": False}),
    Case("contextguard", {"prediction": "oracle"}),
    Case("contextguard", {"prediction": "ridge"}),
    Case("contextguard-online"),
]
PRUNING_CASES = [case for case in CASES if not case.whole_only]
