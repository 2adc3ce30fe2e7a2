"""The certificate in a preset that ``cg calibrate`` wrote: what makes it one. What it says is for those who read it;
``cg_cli.engine.certificate`` tells whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.util.text import short

SCHEMA = "cg.certificate/1"


def check(data: Mapping[str, Any], source: str) -> None:
    """UsageError, which names ``source``, for a certificate that no version of cg has written like this."""
    if data.get("schema") != SCHEMA:
        raise UsageError(
            f"{source}: its certificate is not of schema {SCHEMA} but {short(repr(data.get('schema')))}: "
            f"remove it, or run cg calibrate again"
        )
    asked = data.get("asked")
    whole = {
        "risk": _is_share(data.get("risk")),
        "confidence": _is_share(data.get("confidence")),
        "conditions": isinstance(data.get("conditions"), dict),
        "asked": asked is None or (isinstance(asked, list) and all(isinstance(text, str) for text in asked)),
    }
    if broken := [key for key, fine in whole.items() if not fine]:
        raise UsageError(f"{source}: {broken[0]} of its certificate is damaged: remove it, or run cg calibrate again")


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
