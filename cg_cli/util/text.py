"""Words for people: one line of an exception, the nearest of several names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches


def one_line(error: BaseException | str) -> str:
    """The message of an error without line breaks; the name of its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message that is not blank; the name of its type where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# What can steer a terminal, or show a text as what it is not: C0 and C1 controls, DEL, separators of lines, changes of
# the direction of writing; and lone surrogates, which cannot be written.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object, *, lines: bool = False) -> str:
    """``text`` as it may be printed whoever wrote it: what a terminal would act on becomes an escape such as ``\\x1b``.

    Args:
        lines: newlines and tabs stay.
    """
    return _UNPRINTABLE.sub(lambda match: match[0] if lines and match[0] in "\n\t" else _escape(match[0]), str(text))


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


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
