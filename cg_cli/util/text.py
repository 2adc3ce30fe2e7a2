"""Words for people: one line of an exception, the nearest of several names."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches


def one_line(error: BaseException | str) -> str:
    """The message of an error without line breaks; the name of its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message that is not blank; the name of its type where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def short(text: str, most: int = 80) -> str:
    """``text``, cut after ``most`` characters."""
    return text if len(text) <= most else f"{text[:most]}..."


def closest(word: str, words: Iterable[str]) -> str:
    """``, did you mean 'x'?`` for the word most like ``word``, or nothing."""
    matches = get_close_matches(short(word), list(words), n=1)
    return f", did you mean '{matches[0]}'?" if matches else ""


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
