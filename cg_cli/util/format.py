"""Numbers for people: counts, bytes, seconds, shares."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: float, unit: str = "") -> str:
    """A number for people: three significant digits and a decimal prefix, e.g. ``41.2 G``."""
    amount, prefix = _scaled(number, 1000, ("", "k", "M", "G", "T", "P"))
    return f"{amount} {prefix}{unit}".rstrip()


def size(number: float) -> str:
    """Bytes for people: three significant digits and a binary unit, e.g. ``441 MiB``."""
    return " ".join(_scaled(number, 1024, ("B", "KiB", "MiB", "GiB", "TiB")))


def _scaled(number: float, base: int, prefixes: Sequence[str]) -> tuple[str, str]:
    """A number divided by the power of ``base`` that leaves less than 1000 of it, and the prefix of that power."""
    at = 0
    while abs(number) >= 999.5 and at < len(prefixes) - 1:
        number /= base
        at += 1
    whole = (not at and number == int(number)) or abs(number) >= 999.5
    return f"{number:,.0f}" if whole else f"{number:.3g}", prefixes[at]


def duration(seconds: float) -> str:
    """Seconds for people: ``34 ms``, ``1.2 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return "{} min {:02} s".format(*divmod(round(seconds), 60))
    return "{} h {:02} min".format(*divmod(round(seconds / 60), 60))


def rough_duration(seconds: float) -> str:
    """How long something will take, for people: ``40 s``, ``12 min``, ``3 h 30 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3570 else duration(seconds)


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"
