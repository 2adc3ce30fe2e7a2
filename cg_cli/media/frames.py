"""Frames of a film at wanted times, resized while decoding, so that memory is what is kept, not what is read.

Runs in the worker process only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TypeVar

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from cg_cli.errors import ItemError
from cg_cli.media.damage import Damage
from cg_cli.media.scan import Scan, decode, packets, single_threaded
from cg_cli.media.sizes import displayed_size, quarter_turns
from cg_cli.media.source import fault, open_media
from cg_cli.media.timeline import Timeline

MAX_SIDE = 8192
MAX_SOURCE_PIXELS = MAX_SIDE * MAX_SIDE  # a decoder keeps several frames; larger ones do not fit the worker's memory
OVERSIZE_LOG = "Picture size"  # how libavutil's av_image_check_size2 begins its refusal
OVERSIZE_PACKETS = 8
SEEK_BELOW = 1 / 1.5  # wanted frames a keyframe; denser than this, decoding straight through is faster
SEEK_BACK_S = (0, 10, 120)  # seconds before the wanted time to seek to, tried in this order
LARGE_SHRINK = 4  # beyond this, averaging areas is as good as a bicubic filter and much cheaper

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A chosen frame: ``time`` in seconds from the film's start, how many wanted times it ``serves``, and the frame."""

    time: Fraction
    serves: int
    frame: av.VideoFrame


def last_before(items: Iterable[tuple[Fraction, T]], wanted: Sequence[Fraction]) -> Iterator[tuple[Fraction, T, int]]:
    """For ascending ``wanted`` times: the last of ``items`` (time, item) not later, and how many it serves.

    Wanted times before the first item get the first item. Items that go back in time are left out. Takes no more
    items than it needs.
    """
    done = 0
    held: tuple[Fraction, T] | None = None
    for time, item in items:
        if held is not None:
            if time <= held[0]:
                continue
            serves = 0
            while done + serves < len(wanted) and wanted[done + serves] < time:
                serves += 1
            if serves:
                yield *held, serves
                done += serves
            if done == len(wanted):
                return
        held = (time, item)
    if held is not None and done < len(wanted):
        yield *held, len(wanted) - done


def sparse(count: int, keyframes: int) -> bool:
    """Whether ``count`` frames spread over a film with ``keyframes`` are found faster by seeking."""
    return count < keyframes * SEEK_BELOW


def pictures(path: str, shown: str, scan: Scan, wanted: Sequence[Fraction], damage: Damage) -> Iterator[Picture]:
    """The frame at each of the ascending ``wanted`` times, in seconds from the film's start.

    Decodes straight through and stops behind the last wanted time; seeks to each one where that is less work.

    Raises:
        ItemError: kind too_large for a frame above MAX_SOURCE_PIXELS; as ``open_media``.
    """
    line = scan.video
    start = 0
    if line.counted is None and sparse(len(wanted), line.keyframes):
        with _opened(path, shown, scan) as (container, stream):
            while start < len(wanted):
                picture = _sought(container, stream, line, wanted[start], damage)
                if picture is None:
                    damage.notes.append(
                        f"seeking failed at {float(wanted[start]):.1f} s: the film was decoded from its start"
                    )
                    break
                yield picture
                start += 1
    if start < len(wanted):
        # A fresh container: some demuxers give nothing after rewinding in a damaged file.
        with _opened(path, shown, scan) as (container, stream):
            for time, frame, serves in last_before(_decoded(container, stream, line, damage), wanted[start:]):
                yield Picture(time, serves, frame)


@contextmanager
def _opened(path: str, shown: str, scan: Scan) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    with open_media(path, shown) as container:
        stream = container.streams[scan.video_index]
        _guard_size(stream, shown)
        single_threaded(stream)
        yield container, stream


def _sought(
    container: av.container.InputContainer, stream: av.VideoStream, line: Timeline, time: Fraction, damage: Damage
) -> Picture | None:
    """The frame at ``time`` by seeking; None if no seek leads to a frame that is not later."""
    for back in SEEK_BACK_S:
        # Demuxers seek by decoding time, which can put the keyframe behind the wanted time: then from further back.
        target = int((line.start + max(time - back, Fraction(0))) // stream.time_base)
        try:
            container.seek(target, stream=stream, backward=True)
        except (av.FFmpegError, OSError):
            return None
        for found, frame, serves in last_before(_decoded(container, stream, line, damage), [time]):
            if found <= time:
                return Picture(found, serves, frame)
    return None


def _guard_size(stream: av.VideoStream, shown: str) -> None:
    context = stream.codec_context
    if context.width * context.height > MAX_SOURCE_PIXELS:
        raise _oversize(shown, f"{context.width}x{context.height},")
    # The picture itself may be larger than the header says.
    context.options = {**context.options, "max_pixels": str(MAX_SOURCE_PIXELS)}


def refuse_oversize(path: str, shown: str, scan: Scan) -> None:
    """For a film without any decodable picture: raises ItemError (too_large) if the decoder refuses its size."""
    with av.logging.Capture() as logs, _opened(path, shown, scan) as (container, stream):
        for packet in islice(packets(container, [stream], Damage()), OVERSIZE_PACKETS):
            decode(packet, "video", Damage())
        if any(OVERSIZE_LOG in text for _, _, text in logs):
            raise _oversize(shown, "a size")


def _oversize(shown: str, size: str) -> ItemError:
    return fault("too_large", shown, f"has frames of {size} above {MAX_SIDE}x{MAX_SIDE} pixels: scale it down first")


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, line: Timeline, damage: Damage
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """(time in seconds from the film's start, frame), in the order of showing, from the container's position on."""
    count = 0
    for packet in packets(container, [stream], damage):
        for frame in decode(packet, "video", damage):
            if frame.is_corrupt:
                damage.lose("video")
            if line.counted is not None:
                yield count * line.counted, frame
            elif frame.pts is not None and (time := frame.pts * stream.time_base) < line.end:  # beyond: a stray
                yield time - line.start, frame
            count += 1


class Resizer:
    """Turns frames of one film into upright RGB arrays of one size.

    Args:
        pixel_aspect: width of a stored pixel over its height; None for square ones.
        first: the film's first frame, for its size and rotation.

    Attributes:
        rotation: degrees counterclockwise that make a frame upright.
        displayed: (width, height) in square pixels, upright.
    """

    def __init__(self, pixel_aspect: Fraction | None, first: av.VideoFrame):
        self.rotation = quarter_turns(first.rotation)
        self.displayed = displayed_size(first.width, first.height, pixel_aspect, self.rotation)
        self._scaler = VideoReformatter()

    def upright(self, frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
        """[H, W, 3] uint8 RGB, contiguous, for ``size`` = (W, H) after rotation."""
        width, height = size[::-1] if self.rotation % 180 else size
        shrink = max(frame.width / width, frame.height / height)
        method = Interpolation.AREA if shrink > LARGE_SHRINK else Interpolation.BICUBIC
        # One thread: swscale's pool would outlive its use.
        small = self._scaler.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=method, threads=1
        )
        return np.ascontiguousarray(np.rot90(small.to_ndarray(), self.rotation // 90))
