"""What could not be read of a file, as counts and as lines for the user."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Damage:
    """What could not be read, counted while reading. ``lines`` are the warnings, ``complete`` the verdict."""

    unreadable: int = 0
    corrupt_packets: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    packets: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cut: str = ""
    restarts: int = 0

    def lose(self, kind: str) -> None:
        """One packet of ``kind`` ("video" or "sound") could not be decoded cleanly."""
        self.lost[kind] = self.lost.get(kind, 0) + 1

    @property
    def complete(self) -> bool:
        return not (self.unreadable or self.corrupt_packets or self.lost or self.cut or self.restarts)

    @property
    def lines(self) -> list[str]:
        """One warning a kind of damage, with its extent."""
        found = [self.cut] if self.cut else []
        if self.unreadable or self.corrupt_packets:
            found.append(f"the file is damaged: {self.unreadable + self.corrupt_packets} read errors were skipped")
        if self.restarts:
            found.append("the file's clock goes back in the middle: only one part of what overlaps was used")
        for kind, count in sorted(self.lost.items()):
            found.append(f"damaged {kind}: {count} of {self.packets.get(kind, 0)} packets could not be decoded cleanly")
        return found + self.notes
