"""Whether the certificate of a preset holds for an answer: it was given for one way to answer, and for questions like
those that were asked then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cg_cli.engine.inputs import AnswerInputs, conditions, conditions_of_before, describe_changes

DOUBT = "the certificate of preset"  # how the warning begins


@dataclass(frozen=True)
class Certificate:
    """What a certificate was given for.

    Attributes:
        preset: name of the preset that has it.
        conditions: under which it was measured, as ``inputs.conditions``.
        asked: the questions, if all clips had the same; None for those of a manifest.
    """

    preset: str
    conditions: Mapping[str, Any]
    asked: tuple[str, ...] | None

    @classmethod
    def of(cls, preset: str | None, data: Mapping[str, Any]) -> Certificate:
        asked = data["asked"]
        return cls(str(preset), conditions_of_before(data["conditions"]), None if asked is None else tuple(asked))

    def doubt(self, inputs: AnswerInputs, question: str) -> str | None:
        """Why it does not hold for an answer, in one line; None where it does."""
        differences = describe_changes(self.conditions, conditions(inputs))
        if self.asked is not None and question not in self.asked:
            differences = "; ".join(filter(None, [differences, "it is about other questions"]))
        return f"{DOUBT} {self.preset} does not hold: {differences}" if differences else None
