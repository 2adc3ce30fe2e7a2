"""Where a stream truly starts and ends, from the timestamps of its packets. Runs in the worker process only."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av

from cg_cli.media.decode_errors import DecodeErrors

NOMINAL_RATE = Fraction(25)  # frames a second of a raw stream that names none
MAX_JUMP_S = 60  # a timestamp that jumps ahead further is an outlier, unless MIN_AGREEING packets agree
MAX_BACK_S = Fraction(1, 4)  # decoding times may go back by less; further back, the clock was reset
MAX_REORDER_S = 3  # without decoding times: display order differs from stored order by less,
MAX_REORDER_FRAMES = 16  # or by fewer frames than this (a slideshow)
MIN_AGREEING = 8  # packets in a row that jumped, from which on the jump is accepted
CORRUPT_AT_JOINT = 3  # packets next to a reset that may be marked as corrupt
STRAY_START = 2  # packets before a reset that are no recording of their own
SPARSE = 4  # times the distance of the packets that follow it: a shorter jump ahead is usual in a sparse stream
MAX_PAUSE_S = 3600  # a longer jump ahead is another clock, not a pause
DISCONTINUITY_S = 10  # so is one that is longer than this in a broadcast format, as for ffmpeg


@dataclass(frozen=True)
class Timeline:
    """The extent of a stream on the file's own clock.

    Attributes:
        stream_index: index of the stream in the file.
        start, end: seconds; the first timestamp, and the last one plus its duration.
        packets, keyframes: their numbers.
        nominal_frame_s: seconds a frame for a raw stream without timestamps; None where timestamps exist.
        shifts: (number of the first packet, ticks of the stream's time base to add to its timestamps and all later
            ones) for each part after the first, where the file is several recordings one after the other.
    """

    stream_index: int
    start: Fraction
    end: Fraction
    packets: int
    keyframes: int
    nominal_frame_s: Fraction | None
    shifts: tuple[tuple[int, int], ...] = ()

    @property
    def duration(self) -> Fraction:
        """Seconds from start to end."""
        return self.end - self.start


class Rebase:
    """Moves the packets of a stream, from its first on, to the clock of its Timeline."""

    def __init__(self, timeline: Timeline):
        self._shifts = list(reversed(timeline.shifts))
        self._shift = self._count = 0

    def move(self, packet: av.Packet) -> av.Packet:
        """``packet``, the next one, with its timestamps shifted."""
        if packet.size:
            while self._shifts and self._shifts[-1][0] <= self._count:
                self._shift = self._shifts.pop()[1]
            self._count += 1
        if self._shift:
            if packet.pts is not None:
                packet.pts += self._shift
            if packet.dts is not None:
                packet.dts += self._shift
        return packet


@dataclass
class FileClock:
    """What all streams of a file share.

    Attributes:
        resets: how many times the clock was reset so far, in the stream where that was most often.
        packets: how many were read so far, of all streams.
        discontinuous: the format's clock may jump at any time (MPEG-TS).
        hides_negative: packets with negative timestamps come without (Matroska).
    """

    resets: int = 0
    packets: int = 0
    discontinuous: bool = False
    hides_negative: bool = False


@dataclass
class _Part:
    """Packets on one clock: the number of its first one in the stream, and in the file; extent in ticks.

    ``after_pause`` marks one that may as well go on after a pause, on the clock of the part before.
    """

    first_packet: int
    position: int
    after_pause: bool = False
    start: int | None = None
    last: tuple[int, int] | None = None  # timestamp, duration
    before_last: int | None = None

    def extend(self, time: int, duration: int) -> None:
        self.start = time if self.start is None else min(self.start, time)
        if self.last is None or time > self.last[0]:
            self.before_last = self.last[0] if self.last else None
            self.last = (time, duration)
        elif time < self.last[0] and (self.before_last is None or self.before_last < time):
            self.before_last = time

    def absorb(self, later: _Part) -> None:
        """Takes in the packets of a part on the same clock."""
        if later.start is None or later.last is None:
            return
        if later.before_last is not None:
            self.extend(later.before_last, 0)
        self.extend(*later.last)
        self.extend(later.start, 0)

    def end(self, nominal: int) -> int:
        """In ticks; ``nominal`` is the duration of a lone packet that states none."""
        if self.last is None:
            return 0
        gap = nominal if self.before_last is None else self.last[0] - self.before_last
        return self.last[0] + (self.last[1] or gap)


@dataclass(frozen=True)
class _Stamp:
    """A packet's number in the stream and in the file; its decoding (or else display) time, display time and duration
    in ticks."""

    packet: int
    position: int
    clock: int
    time: int
    duration: int
    ordered: bool = field(default=True)  # the clock is that of decoding, which never goes back

    @property
    def delay(self) -> int:
        """Ticks from decoding to display."""
        return self.time - self.clock


class TimelineBuilder:
    """Builds one stream's Timeline, a packet at a time."""

    def __init__(self, stream: av.stream.Stream, errors: DecodeErrors, clock: FileClock | None = None):
        self.errors = errors
        self.clock = clock or FileClock()
        self.stream_index = stream.index
        self.time_base = stream.time_base or Fraction(1, av.time_base)
        rate = getattr(stream, "average_rate", None) or getattr(stream, "guessed_rate", None)
        self.nominal = 1 / Fraction(rate) if rate else 1 / NOMINAL_RATE
        self.second = max(1, int(1 / self.time_base))
        self.is_video = stream.type == "video"
        self.packets = self.keyframes = 0
        self.accepted: _Stamp | None = None
        self.step = 0  # ticks between the last two packets accepted
        self.outliers: list[_Stamp] = []  # packets that jumped
        self.first_key: int | None = None
        self.corrupt: deque[int] = deque(maxlen=CORRUPT_AT_JOINT)
        self.parts = [_Part(0, 0)]  # one more after each reset of the clock

    def add(self, packet: av.Packet, limit: Fraction | None) -> None:
        """Takes a packet; one with a timestamp beyond ``limit`` (seconds) is a read error."""
        self.errors.corrupt_packets += packet.is_corrupt
        number = self.packets
        self.clock.packets += 1
        self.packets += 1
        self.keyframes += packet.is_keyframe
        time = packet.pts if packet.pts is not None else packet.dts
        if packet.is_corrupt:
            self.corrupt.append(number)
        if time is None:
            if self.clock.hides_negative and packet.is_keyframe and self.first_key is None:
                self.first_key = 0  # decoded, and what follows is shown from 0 on
            return
        if limit is not None and time * self.time_base > limit:
            self.errors.read_errors += 1
            return
        if self.is_video and packet.is_keyframe and self.first_key is None:
            # What comes before, in the file or in time, cannot be decoded: the video starts here. An edit list may
            # discard the keyframe itself and show what depends on it.
            self.first_key, self.accepted = time, None
            self.parts = [_Part(0, 0)]
        if packet.is_discard:
            return
        clock = packet.dts if packet.dts is not None else time
        ordered = packet.dts is not None or not self.is_video
        self._screen(_Stamp(number, self.clock.packets, clock, time, packet.duration or 0, ordered))

    def _screen(self, stamp: _Stamp) -> None:
        """Accepts a timestamp near the last one; a jump ahead or back only once enough packets in a row made it."""
        if self.accepted is not None and stamp.delay > self.accepted.delay + self._most_delay:
            self.errors.read_errors += 1  # a display time far from the time of decoding
            return
        if self._jumps(stamp):
            if self.outliers and stamp.clock < self.outliers[-1].clock:  # they do not agree with each other
                self._reject_outliers()
            self.outliers.append(stamp)
            if len(self.outliers) >= MIN_AGREEING:
                self.accept_outliers()
            return
        self._reject_outliers()  # back again: those were wrong
        self._extend(stamp)

    @property
    def _most_delay(self) -> int:
        return MAX_JUMP_S * self.second + MAX_REORDER_FRAMES * self.step

    def _jumps(self, stamp: _Stamp) -> bool:
        if self.accepted is None:
            return False
        if stamp.clock > self.accepted.clock + MAX_JUMP_S * self.second or self._goes_back(stamp, self.accepted):
            return True
        # Another stream's clock was reset, and this one's goes back a little or ahead a lot.
        behind = self.clock.resets >= len(self.parts)
        if behind and stamp.clock < self.accepted.clock:
            return True
        return self.clock.discontinuous and stamp.clock > self.accepted.clock + DISCONTINUITY_S * self.second

    def _goes_back(self, stamp: _Stamp, last: _Stamp) -> bool:
        slack = MAX_BACK_S * self.second
        if not (stamp.ordered and last.ordered):
            slack = max(Fraction(MAX_REORDER_S * self.second), Fraction(MAX_REORDER_FRAMES * self.step))
        return stamp.clock < last.clock - slack

    def _reject_outliers(self) -> None:
        outliers, self.outliers = self.outliers, []
        for stamp in outliers:
            if self._is_reordered(stamp):
                self._extend(stamp)
            else:
                self.errors.read_errors += 1

    def _is_reordered(self, stamp: _Stamp) -> bool:
        """Whether a packet that jumped is near enough to be one out of order."""
        return self.accepted is not None and abs(stamp.clock - self.accepted.clock) <= MAX_REORDER_S * self.second

    def accept_outliers(self) -> None:
        """Takes the packets that jumped for a part with a clock of its own, or for what follows a pause."""
        if len(self.outliers) < MIN_AGREEING and any(map(self._is_reordered, self.outliers)):
            self._reject_outliers()
        outliers, self.outliers = self.outliers, []
        if outliers and self.accepted is not None:
            ahead = outliers[0].clock - self.accepted.clock
            spacing = (outliers[-1].clock - outliers[0].clock) / max(1, len(outliers) - 1)
            stands_out = ahead > max(DISCONTINUITY_S * self.second, SPARSE * spacing)
            pause = 0 <= ahead <= MAX_PAUSE_S * self.second
            if not pause or (self.clock.discontinuous and stands_out):
                first = outliers[0].packet
                if len(self.parts) == 1 and first - self.parts[0].first_packet <= STRAY_START:
                    self.errors.read_errors += first - self.parts[0].first_packet
                    self.parts = []  # the stream's first timestamps were the wrong ones
                    self.first_key = min(stamp.time for stamp in outliers)
                pause = pause and bool(self.parts)
                self.clock.resets = max(self.clock.resets, len(self.parts))
                self.parts.append(_Part(first, outliers[0].position, pause))
                if not self.clock.discontinuous:
                    self.corrupt.clear()
                # Packet counters do not go on in the next part: the demuxer takes the joint for damage.
                self.errors.corrupt_packets -= sum(abs(first - number) < CORRUPT_AT_JOINT for number in self.corrupt)
                self.corrupt.clear()
                self.accepted = None
        for stamp in outliers:
            self._extend(stamp)

    def join_pauses(self) -> None:
        """Takes every jump ahead for a pause."""
        parts: list[_Part] = []
        for part in self.parts:
            if part.after_pause:
                parts[-1].absorb(part)
            else:
                parts.append(part)
        self.parts = parts

    def _extend(self, stamp: _Stamp) -> None:
        if self.accepted is not None:
            self.step = max(abs(stamp.clock - self.accepted.clock), self.step // 2)
        self.accepted = stamp
        if len(self.parts) > 1 or self.first_key is None or stamp.time >= self.first_key:
            self.parts[-1].extend(stamp.time, stamp.duration)

    def timeline(self) -> Timeline | None:
        """The Timeline of the packets so far; None without any."""
        return join_timelines([self])[self.stream_index]

    def seconds(self, ticks: int) -> Fraction:
        """Ticks of the stream's time base in seconds."""
        return ticks * self.time_base

    @property
    def nominal_ticks(self) -> int:
        """The nominal duration of a frame in ticks, at least one."""
        return max(1, round(self.nominal / self.time_base))


def join_timelines(builders: Iterable[TimelineBuilder]) -> dict[int, Timeline | None]:
    """Stream index -> Timeline; None without packets.

    After a reset of the clock, each part begins where the longest stream of the part before ended, all streams by the
    same shift, so that sound and picture keep their places.
    """
    builders = list(builders)
    starts: dict[int, list[Fraction]] = {}
    ends: dict[int, list[Fraction]] = {}
    for builder in builders:
        builder.accept_outliers()
    # A jump ahead in one stream alone is a pause in it.
    if len({sum(part.after_pause for part in builder.parts) for builder in builders}) > 1:
        for builder in builders:
            builder.join_pauses()
    places = _places(builders)
    for builder in builders:
        for part, place in zip(builder.parts, places[builder.stream_index]):
            if part.start is not None:
                starts.setdefault(place, []).append(builder.seconds(part.start))
                ends.setdefault(place, []).append(builder.seconds(part.end(builder.nominal_ticks)))
    shifts: dict[int, Fraction] = {}
    end: Fraction | None = None
    for place in sorted(starts):
        shifts[place] = Fraction(0) if end is None else end - min(starts[place])
        end = max(ends[place]) + shifts[place]
    return {
        builder.stream_index: _timeline(
            builder, [shifts.get(place, Fraction(0)) for place in places[builder.stream_index]]
        )
        for builder in builders
    }


def _places(builders: Sequence[TimelineBuilder]) -> dict[int, list[int]]:
    """Stream index -> of each of its parts, which recording of the file it belongs to.

    The stream with the most parts counts them; a part of another stream, which may be missing in some, belongs to the
    recording that begins nearest to it in the file.
    """
    if not builders:
        return {}
    positions = [part.position for part in max(builders, key=lambda builder: len(builder.parts)).parts]
    places: dict[int, list[int]] = {}
    for builder in builders:
        chosen = places[builder.stream_index] = [0]
        for part in builder.parts[1:]:
            after = bisect_left(positions, part.position, lo=1)
            near = [place for place in (after - 1, after) if 0 < place < len(positions)]
            nearest = min(near, key=lambda place: abs(positions[place] - part.position))
            chosen.append(max(chosen[-1] + 1, nearest))
    return places


def _timeline(builder: TimelineBuilder, shifts: Sequence[Fraction]) -> Timeline | None:
    index, packets, keyframes = builder.stream_index, builder.packets, builder.keyframes
    if not packets:
        return None
    parts = [(part, round(shift / builder.time_base)) for part, shift in zip(builder.parts, shifts)]
    parts = [(part, shift) for part, shift in parts if part.start is not None]
    if not parts:
        return Timeline(index, Fraction(0), packets * builder.nominal, packets, keyframes, builder.nominal)
    start = min(part.start + shift for part, shift in parts if part.start is not None)
    end = max(part.end(builder.nominal_ticks) + shift for part, shift in parts)
    moved = tuple((part.first_packet, shift) for part, shift in parts if shift)
    return Timeline(index, builder.seconds(start), builder.seconds(end), packets, keyframes, None, moved)
