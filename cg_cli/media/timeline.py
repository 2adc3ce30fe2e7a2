"""Where a stream truly starts and ends, from the timestamps of its packets. Runs in the worker process only."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av

from cg_cli.media.decode_errors import DecodeErrors

NOMINAL_RATE = Fraction(25)  # frames a second of a raw stream that names none
MAX_JUMP_S = 60  # a timestamp that jumps ahead further is an outlier, unless MIN_AGREEING packets agree
MAX_REORDER_S = 3  # frames are stored in decoding order, which differs from display order by less
MIN_AGREEING = 8  # packets in a row that jumped ahead, from which on the jump is accepted


@dataclass(frozen=True)
class Timeline:
    """The extent of a stream on the file's own clock.

    Attributes:
        stream_index: index of the stream in the file.
        start, end: seconds; the first timestamp, and the last one plus its duration.
        packets, keyframes: their numbers.
        nominal_frame_s: seconds a frame for a raw stream without timestamps; None where timestamps exist.
    """

    stream_index: int
    start: Fraction
    end: Fraction
    packets: int
    keyframes: int
    nominal_frame_s: Fraction | None

    @property
    def duration(self) -> Fraction:
        """Seconds from start to end."""
        return self.end - self.start


class TimelineBuilder:
    """Builds one stream's Timeline, a packet at a time."""

    def __init__(self, stream: av.stream.Stream, errors: DecodeErrors):
        self.errors = errors
        self.stream_index = stream.index
        self.time_base = stream.time_base or Fraction(1, av.time_base)
        rate = getattr(stream, "average_rate", None) or getattr(stream, "guessed_rate", None)
        self.nominal = 1 / Fraction(rate) if rate else 1 / NOMINAL_RATE
        self.second = max(1, int(1 / self.time_base))
        self.is_video = stream.type == "video"
        self.packets = self.keyframes = 0
        self.accepted: int | None = None  # timestamp of the last accepted packet
        self.outliers: list[tuple[int, int]] = []  # timestamps and durations of packets that jumped ahead
        self.first_key: int | None = None
        self.start: int | None = None
        self.last: tuple[int, int] | None = None  # timestamp, duration
        self.before_last: int | None = None

    def add(self, packet: av.Packet, limit: Fraction | None) -> None:
        """Takes a packet; one with a timestamp beyond ``limit`` (seconds) is a read error."""
        self.errors.corrupt_packets += packet.is_corrupt
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and limit is not None and time * self.time_base > limit:
            self.errors.read_errors += 1
            return
        self.packets += 1
        self.keyframes += packet.is_keyframe
        if time is None or packet.is_discard:
            return
        if self.is_video and packet.is_keyframe and self.first_key is None:
            # What comes before, in the file or in time, cannot be decoded: the video starts here.
            self.first_key, self.accepted = time, None
            self.start = self.last = self.before_last = None
        if self.first_key is None or time >= self.first_key:
            self._screen(time, packet.duration or 0)

    def _screen(self, time: int, duration: int) -> None:
        """Accepts a timestamp near the last one, and a jump ahead only once enough packets in a row made it."""
        if self.accepted is not None and time > self.accepted + MAX_JUMP_S * self.second:
            self.outliers.append((time, duration))
            if len(self.outliers) >= MIN_AGREEING:
                self._accept_outliers()
            return
        self.errors.read_errors += len(self.outliers)  # back again: those were wrong
        self.outliers.clear()
        self._extend(time, duration)

    def _accept_outliers(self) -> None:
        for time, duration in self.outliers:
            self._extend(time, duration)
        self.outliers.clear()

    def _extend(self, time: int, duration: int) -> None:
        # Frames are stored out of order, but not by this much.
        self.errors.clock_resets += self.accepted is not None and time < self.accepted - MAX_REORDER_S * self.second
        self.accepted = time
        self.start = time if self.start is None else min(self.start, time)
        if self.last is None or time > self.last[0]:
            self.before_last = self.last[0] if self.last else None
            self.last = (time, duration)
        elif time < self.last[0] and (self.before_last is None or self.before_last < time):
            self.before_last = time

    def timeline(self) -> Timeline | None:
        """The Timeline of the packets so far; None without any."""
        self._accept_outliers()
        if not self.packets:
            return None
        if self.start is None or self.last is None:
            return Timeline(
                self.stream_index, Fraction(0), self.packets * self.nominal, self.packets, self.keyframes, self.nominal
            )
        last_duration = self.last[1] * self.time_base
        if not last_duration:
            last_duration = (
                self.nominal if self.before_last is None else (self.last[0] - self.before_last) * self.time_base
            )
        end = self.last[0] * self.time_base + last_duration
        return Timeline(self.stream_index, self.start * self.time_base, end, self.packets, self.keyframes, None)
