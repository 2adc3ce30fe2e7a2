"""The values of the setting ``look_once``."""

from __future__ import annotations

from typing import Any

from cg_cli.errors import UsageError

OFF, EXACT = "off", "exact"  # beside numbers of grey levels
MOST = 64  # levels of 255; beyond, other pictures pass for the same


def from_yaml(value: Any) -> Any:
    """``value`` as text, if it is a number, or the word off that YAML takes for false; else as it is."""
    if value is False:
        return OFF
    return str(value) if type(value) is int else value


def levels(value: str) -> int | None:
    """The largest difference of values 0..255 that counts as the same, or None where every grid of frames is encoded.
    UsageError for what is neither a word nor such a number."""
    if value == OFF:
        return None
    if value == EXACT:
        return 0
    if value.isascii() and value.isdigit() and int(value) <= MOST:
        return int(value)
    raise UsageError(f"--look-once {value}: give {OFF}, {EXACT} or a number of grey levels from 0 to {MOST}")
