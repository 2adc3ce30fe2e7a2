"""Which packets of a video may stay undecoded: those whose frame is not looked at and that no other frame refers to.

The first is decided here, the second by FFmpeg's decoders: at skip_frame NONREF they drop a packet only if nothing
refers to its frame, so every other frame is the same, bit for bit. Damage in a dropped packet stays unnoticed, as it
does behind the last frame looked at, and between frames that were sought.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

CODECS = frozenset({"h264", "hevc", "mpeg2video"})  # for others NONREF is not defined, or not tested here
BEHIND, AHEAD = 16, 8  # packets around the one in turn whose timestamps are known
PROGRESSIVE = 1  # FFmpeg's AV_FIELD_PROGRESSIVE
HEVC_SPS = re.compile(rb"\x42\x01(.)", re.DOTALL)  # the header of a sequence parameter set, and the byte behind it


class Packet(Protocol):
    """What is read of a PyAV packet; ``pts`` in ticks of the stream's time base."""

    pts: int | None
    size: int
    is_keyframe: bool
    is_discard: bool


P = TypeVar("P", bound=Packet)


def can_skip(codec: str, field_order: int, extradata: bytes) -> bool:
    """Whether every packet of such a stream is a whole frame, and NONREF drops none that others refer to."""
    if codec == "h264" and field_order != PROGRESSIVE:  # a packet may be one field of a frame
        return False
    if codec == "hevc":  # frames of higher temporal layers may refer to what NONREF drops
        more_layers = [found[1][0] >> 1 & 7 for found in HEVC_SPS.finditer(extradata)]
        if not more_layers or any(more_layers):
            return False
    return codec in CODECS


def is_hidden(time: int, others: Iterable[int], wanted: Sequence[int]) -> bool:
    """Whether none of the ascending times ``wanted`` shows the frame of ``time``, the last one not later, because one
    of ``others`` lies between. All in ticks."""
    following = bisect_left(wanted, time)
    return following < len(wanted) and any(time < other <= wanted[following] for other in others)


class Skipping(Generic[P]):
    """Decides which packets to skip, in one pass over a stream from a keyframe on.

    Args:
        wanted: ascending times at which a frame is looked at, in ticks.
        end: frames from there on are not shown, in ticks.
    """

    def __init__(self, wanted: Sequence[int], end: int):
        self._wanted, self._end = wanted, end
        self._behind: deque[P] = deque(maxlen=BEHIND)
        self._ahead: deque[P] = deque()
        self._depth = 0  # most packets so far that precede one in storage and follow it on display
        self._last: int | None = None  # display time of the last frame that came out
        self._in_order = True

    def read_ahead(self, packets: Iterable[P]) -> Iterator[P]:
        """``packets``, each once AHEAD more are read."""
        source = iter(packets)
        while True:
            for packet in islice(source, AHEAD + 1 - len(self._ahead)):
                self._depth = max(self._depth, self._overtaken_by(packet))
                self._ahead.append(packet)
            if not self._ahead:
                return
            packet = self._ahead.popleft()
            yield packet
            self._behind.append(packet)

    def _overtaken_by(self, packet: P) -> int:
        """How many of the packets before ``packet`` are displayed behind it."""
        time = packet.pts
        return 0 if time is None else sum(near.pts is not None and near.pts > time for near in self._near())

    def _near(self) -> list[P]:
        return [packet for packet in (*self._behind, *self._ahead) if packet.size]

    def skips(self, packet: P, reorder_depth: int) -> bool:
        """Whether ``packet``, the one in turn, may be dropped if no other frame refers to its frame.

        Args:
            reorder_depth: frames that the decoder holds back to put them in order. It learns that from the frames it
                decodes, so none is dropped before it holds back enough.
        """
        # The first frame that comes out is on display at earlier times too.
        if packet.pts is None or packet.is_keyframe or self._last is None or not self._in_order:
            return False
        # Reordering that the timestamps do not show: they are not those of display.
        if self._depth > reorder_depth or (reorder_depth and not self._depth):
            return False
        near = self._near()
        if any(other.pts is None for other in near):
            return False
        shown = (other.pts for other in near if not other.is_discard and other.pts is not None)
        return is_hidden(packet.pts, (time for time in shown if time < self._end), self._wanted)

    def came_out(self, time: int | None) -> None:
        """Takes the display time of the next frame that was decoded, in ticks; after None nothing is skipped."""
        self._in_order &= time is not None and (self._last is None or time > self._last)
        self._last = time
