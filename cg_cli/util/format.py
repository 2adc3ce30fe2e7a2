"""Numbers for people: counts, bytes, seconds, shares."""

from __future__ import annotations


def count(number: float, unit: str = "") -> str:
    """A number for people: three significant digits and a decimal prefix, e.g. ``41.2 G``."""
    prefixes = iter(("", "k", "M", "G", "T", "P"))
    prefix = next(prefixes)
    while abs(number) >= 999.5 and prefix != "P":
        number /= 1000
        prefix = next(prefixes)
    text = f"{number:.0f}" if not prefix and number == int(number) else f"{number:.3g}"
    return f"{text} {prefix}{unit}".rstrip()


def size(number: int) -> str:
    """Bytes for people, in binary units."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.2f} GiB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def rough_duration(seconds: float) -> str:
    """How long something will take, for people: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"
