"""Where a stream truly starts and ends, from the timestamps of its packets. Runs in the worker process only."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av

from cg_cli.media.damage import Damage

NOMINAL_RATE = Fraction(25)  # frames a second of a raw stream that names none
STRAY_S = 60  # a timestamp this far from where it should be is damage, unless others agree with it
REORDER_S = 3  # frames are stored out of order within less
COMPANY = 8  # packets in a row that agree


@dataclass(frozen=True)
class Timeline:
    """Where a stream lies on the file's own clock.

    Attributes:
        start, end: seconds; the first timestamp, and the last one plus what it lasts.
        packets, keyframes: how many there are.
        counted: seconds a frame for a raw stream without timestamps; None where timestamps exist.
    """

    start: Fraction
    end: Fraction
    packets: int
    keyframes: int
    counted: Fraction | None

    @property
    def duration(self) -> Fraction:
        return self.end - self.start


class Survey:
    """Builds one stream's Timeline, a packet at a time."""

    def __init__(self, stream: av.stream.Stream, damage: Damage):
        self.damage = damage
        self.time_base = stream.time_base or Fraction(1, av.time_base)
        rate = getattr(stream, "average_rate", None) or getattr(stream, "guessed_rate", None)
        self.nominal = 1 / Fraction(rate) if rate else 1 / NOMINAL_RATE
        self.second = max(1, int(1 / self.time_base))
        self.film = stream.type == "video"
        self.packets = self.keyframes = 0
        self.latest: int | None = None  # timestamp of the last packet believed
        self.far: list[tuple[int, int]] = []  # timestamps and durations of packets that jumped ahead, not yet believed
        self.first_key: int | None = None
        self.start: int | None = None
        self.last: tuple[int, int] | None = None  # timestamp, duration
        self.before_last: int | None = None

    def add(self, packet: av.Packet, limit: Fraction | None) -> None:
        """Takes a packet; one with a timestamp beyond ``limit`` (seconds) is damage."""
        self.damage.corrupt_packets += packet.is_corrupt
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and limit is not None and time * self.time_base > limit:
            self.damage.unreadable += 1
            return
        self.packets += 1
        self.keyframes += packet.is_keyframe
        if time is None or packet.is_discard:
            return
        if self.film and packet.is_keyframe and self.first_key is None:
            # What comes before, in the file or in time, cannot be decoded: the film starts here.
            self.first_key, self.latest = time, None
            self.start = self.last = self.before_last = None
        if self.first_key is None or time >= self.first_key:
            self._weigh(time, packet.duration or 0)

    def _weigh(self, time: int, duration: int) -> None:
        """Believes a timestamp near the last one, and a jump ahead only once enough packets made it."""
        if self.latest is not None and time > self.latest + STRAY_S * self.second:
            self.far.append((time, duration))
            if len(self.far) >= COMPANY:
                self._believe_far()
            return
        self.damage.unreadable += len(self.far)  # back again: those were strays
        self.far.clear()
        self._count(time, duration)

    def _believe_far(self) -> None:
        for time, duration in self.far:
            self._count(time, duration)
        self.far.clear()

    def _count(self, time: int, duration: int) -> None:
        # Frames are stored out of order, but not by this much.
        self.damage.restarts += self.latest is not None and time < self.latest - REORDER_S * self.second
        self.latest = time
        self.start = time if self.start is None else min(self.start, time)
        if self.last is None or time > self.last[0]:
            self.before_last = self.last[0] if self.last else None
            self.last = (time, duration)
        elif time < self.last[0] and (self.before_last is None or self.before_last < time):
            self.before_last = time

    def timeline(self) -> Timeline | None:
        """What the packets so far amount to; None without any."""
        self._believe_far()
        if not self.packets:
            return None
        if self.start is None or self.last is None:
            return Timeline(Fraction(0), self.packets * self.nominal, self.packets, self.keyframes, self.nominal)
        lasts = self.last[1] * self.time_base
        if not lasts:
            lasts = self.nominal if self.before_last is None else (self.last[0] - self.before_last) * self.time_base
        end = self.last[0] * self.time_base + lasts
        return Timeline(self.start * self.time_base, end, self.packets, self.keyframes, None)
