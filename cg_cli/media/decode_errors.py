"""DecodeErrors: what of a file could not be read or decoded, counted, and as warnings for the user."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DecodeErrors:
    """What could not be read or decoded, counted while reading.

    Attributes:
        read_errors: errors of the demuxer, and packets with impossible timestamps.
        corrupt_packets: packets that the demuxer itself marks as corrupt.
        undecodable: "video" or "sound" -> packets that could not be decoded cleanly.
        packets: "video" or "sound" -> all packets of the stream in use.
        notes: further warnings, one line each; a note alone leaves the file ``complete``.
        counted: warning -> how often, and the sum of its seconds; see ``count``.
        limits: warnings that part of the file was left out, because it is too long or another file follows in it; they
            leave it incomplete.
        truncation: the warning that the file was cut off, "" if it was not.
    """

    read_errors: int = 0
    corrupt_packets: int = 0
    undecodable: dict[str, int] = field(default_factory=dict)
    packets: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    counted: dict[str, tuple[int, float]] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)
    truncation: str = ""

    def add_undecodable(self, kind: str) -> None:
        """Counts a packet of ``kind`` ("video" or "sound") that could not be decoded cleanly."""
        self.undecodable[kind] = self.undecodable.get(kind, 0) + 1

    def count(self, warning: str, seconds: float) -> None:
        """Counts a case of ``warning``, one line for all of them; in it ``{times}`` is how often, ``{sum}`` seconds."""
        times, total = self.counted.get(warning, (0, 0.0))
        self.counted[warning] = (times + 1, total + seconds)

    @property
    def complete(self) -> bool:
        """Whether all of the file was read and decoded."""
        return not (self.read_errors or self.corrupt_packets or self.undecodable or self.truncation or self.limits)

    @property
    def warnings(self) -> list[str]:
        """One line for each kind of error, with its extent, then the notes."""
        lines = [self.truncation] if self.truncation else []
        if self.read_errors or self.corrupt_packets:
            lines.append(f"the file is damaged: {self.read_errors + self.corrupt_packets} read errors were skipped")
        for kind, count in sorted(self.undecodable.items()):
            lines.append(f"damaged {kind}: {count} of {self.packets.get(kind, 0)} packets could not be decoded cleanly")
        for warning, (count, total) in self.counted.items():
            lines.append(warning.format(times=f" {count} times" if count > 1 else "", sum=total))
        return list(dict.fromkeys([*lines, *self.limits, *self.notes]))
