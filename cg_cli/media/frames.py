"""Frames of a video at given times, resized while decoding, so that memory is what is kept, not what is read.

Runs in the worker process only.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from typing import TypeVar

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

from cg_cli.errors import ItemError
from cg_cli.media import color
from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.demux import alpha_decoder, decode_packet, demux_packets, timeline_packets, use_one_thread
from cg_cli.media.hardware import NvdecVideo, failure
from cg_cli.media.opening import media_error
from cg_cli.media.side_data import side_data
from cg_cli.media.sizes import Orientation, displayed_size
from cg_cli.media.skipping import Skipping, can_skip
from cg_cli.media.source import open_media
from cg_cli.media.timeline import Timeline

MAX_SIDE = 8192  # pixels
MAX_SOURCE_PIXELS = MAX_SIDE * MAX_SIDE  # a decoder keeps several frames; larger ones do not fit the worker's memory
OVERSIZE_LOG = "Picture size"  # how libavutil's av_image_check_size2 begins its refusal
OVERSIZE_PACKETS = 8  # packets tried for that refusal
SEEK_BELOW = 1 / 1.5  # sampled frames a keyframe; denser than this, decoding straight through is faster
SEEK_BACK_S = (0, 10, 120)  # seconds before the frame's time to seek to, tried in this order
MAX_FLAT_PIXELS = 4096 * 4096  # of a transparent frame that is composited in its full size
LARGE_SHRINK = 4  # beyond this, averaging areas is as good as a bicubic filter and much cheaper

T = TypeVar("T")


@dataclass(frozen=True)
class SampledFrame:
    """A sampled frame: ``time`` in seconds from the video's start, at how many of the sampling times it is on display
    (``repeats``), and the frame."""

    time: Fraction
    repeats: int
    frame: av.VideoFrame


def zero_order_hold(
    items: Iterable[tuple[Fraction, T]], times: Sequence[Fraction]
) -> Iterator[tuple[Fraction, T, int]]:
    """Zero-order hold: for ascending ``times``, the last of ``items`` (time, item) not later, and for how many of them.

    Times before the first item get the first item. Items that go back in time are left out. Takes no more items than
    it needs.
    """
    done = 0
    candidate: tuple[Fraction, T] | None = None
    for time, item in items:
        if candidate is not None:
            if time <= candidate[0]:
                continue
            repeats = 0
            while done + repeats < len(times) and times[done + repeats] < time:
                repeats += 1
            if repeats:
                yield *candidate, repeats
                done += repeats
            if done == len(times):
                return
        candidate = (time, item)
    if candidate is not None and done < len(times):
        yield *candidate, len(times) - done


def seeking_is_faster(count: int, keyframes: int) -> bool:
    """Whether ``count`` frames spread over a video with ``keyframes`` are reached faster by seeking."""
    return count < keyframes * SEEK_BELOW


def sample_frames(
    path: str,
    display_path: str,
    timeline: Timeline,
    times: Sequence[Fraction],
    errors: DecodeErrors,
    nvdec: NvdecVideo | None = None,
) -> Iterator[SampledFrame]:
    """The frame on display at each of the ascending ``times``, in seconds from the video's start.

    Decodes straight through and stops behind the last of them; seeks to each one where that is less work. Frames in
    between that no other refers to are left out (``skipping``), unless anything of the file looks damaged.

    Args:
        nvdec: decodes them on the card; None: on the CPU.

    Raises:
        ItemError: kind too_large for a frame above MAX_SOURCE_PIXELS; HARDWARE if the card fails; as ``open_media``.
    """
    sampled = None
    for sampled in _sample_frames(path, display_path, timeline, times, errors, nvdec):
        yield replace(sampled, frame=nvdec.as_on_the_cpu(sampled.frame)) if nvdec else sampled
    if nvdec and sampled is None:
        raise failure("the card gave no frame")


def _sample_frames(
    path: str,
    display_path: str,
    timeline: Timeline,
    times: Sequence[Fraction],
    errors: DecodeErrors,
    nvdec: NvdecVideo | None,
) -> Iterator[SampledFrame]:
    start = 0
    seekable = timeline.nominal_frame_s is None and not timeline.shifts
    if seekable and seeking_is_faster(len(times), timeline.keyframes):
        with _open_video(path, display_path, timeline, nvdec) as (container, stream):
            while start < len(times):
                sampled = _seek_frame(container, stream, timeline, times[start], errors, nvdec)
                if sampled is None:
                    errors.notes.append(
                        f"seeking failed at {float(times[start]):.1f} s: the film was decoded from its start"
                    )
                    break
                yield sampled
                start += 1
    if start < len(times):
        # A fresh container: some demuxers give nothing after rewinding in a damaged file.
        with _open_video(path, display_path, timeline, nvdec) as (container, stream):
            frames = _decode_frames(container, stream, timeline, errors, times[start:], nvdec)
            for time, frame, repeats in zero_order_hold(frames, times[start:]):
                yield SampledFrame(time, repeats, frame)


@contextmanager
def _open_video(
    path: str, display_path: str, timeline: Timeline, nvdec: NvdecVideo | None = None
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    with (nvdec.open if nvdec else open_media)(path, display_path) as container:
        stream = container.streams[timeline.stream_index]
        _limit_size(stream, display_path)
        use_one_thread(stream)
        yield container, stream


def _seek_frame(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    timeline: Timeline,
    time: Fraction,
    errors: DecodeErrors,
    nvdec: NvdecVideo | None,
) -> SampledFrame | None:
    """The frame at ``time`` by seeking; None if no seek leads to a frame that is not later."""
    for back in SEEK_BACK_S:
        # Demuxers seek by decoding time, which can put the keyframe behind ``time``: then from further back.
        target = int((timeline.start + max(time - back, Fraction(0))) // stream.time_base)
        try:
            container.seek(target, stream=stream, backward=True)
        except (av.FFmpegError, OSError):
            return None
        frames = _decode_frames(container, stream, timeline, errors, [time], nvdec)
        for frame_time, frame, repeats in zero_order_hold(frames, [time]):
            if frame_time <= time:
                return SampledFrame(frame_time, repeats, frame)
    return None


def _limit_size(stream: av.VideoStream, display_path: str) -> None:
    context = stream.codec_context
    if context.width * context.height > MAX_SOURCE_PIXELS:
        raise _oversize_error(display_path, f"{context.width}x{context.height},")
    # The frame itself may be larger than the header says.
    context.options = {**context.options, "max_pixels": str(MAX_SOURCE_PIXELS)}


def refuse_oversize(path: str, display_path: str, timeline: Timeline) -> None:
    """For a video without any decodable frame: raises ItemError (too_large) if the decoder refuses its size."""
    with av.logging.Capture() as logs, _open_video(path, display_path, timeline) as (container, stream):
        for packet in islice(demux_packets(container, [stream], DecodeErrors()), OVERSIZE_PACKETS):
            decode_packet(packet, "video", DecodeErrors())
        if any(OVERSIZE_LOG in text for _, _, text in logs):
            raise _oversize_error(display_path, "a size")


def _oversize_error(display_path: str, size: str) -> ItemError:
    return media_error(
        "too_large", display_path, f"has frames of {size} above {MAX_SIDE}x{MAX_SIDE} pixels: scale it down first"
    )


def _decode_frames(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    timeline: Timeline,
    errors: DecodeErrors,
    times: Sequence[Fraction],
    nvdec: NvdecVideo | None,
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """(time in seconds from the video's start, frame), in display order, from the container's position on.

    May leave out frames that are not on display at any of the ascending ``times``, but not the first one.
    """
    count, context = 0, stream.codec_context
    decoder = nvdec.decoder(stream, errors) if nvdec else alpha_decoder(stream)
    packets = timeline_packets(container, [timeline], errors)
    # A card's decoder may not heed what it is told to skip.
    skipping = _skipping(stream, timeline, times) if errors.complete and not nvdec else None
    for packet in skipping.read_ahead(packets) if skipping else packets:
        # Behind damage all is decoded: what is displayed in place of a lost frame must not be missing too.
        skip = skipping is not None and errors.complete and skipping.skips(packet, context.reorder_depth)
        context.skip_frame = "NONREF" if skip else "DEFAULT"
        for frame in decode_packet(packet, "video", errors, decoder):
            if frame.is_corrupt:
                errors.add_undecodable("video")
            if skipping:
                fields = frame.interlaced_frame and context.name == "h264"  # from here on a packet may be half a frame
                skipping.came_out(None if fields else frame.pts)
            if timeline.nominal_frame_s is not None:
                yield count * timeline.nominal_frame_s, frame
            elif frame.pts is not None and (time := frame.pts * stream.time_base) < timeline.end:  # beyond: an outlier
                yield time - timeline.start, frame
            count += 1


def _skipping(stream: av.VideoStream, timeline: Timeline, times: Sequence[Fraction]) -> Skipping | None:
    """For frames wanted at ``times``; None where all have to be decoded."""
    context = stream.codec_context
    plain_clock = timeline.nominal_frame_s is None and not timeline.shifts
    if not (plain_clock and can_skip(context.name, context.field_order, bytes(context.extradata or b""))):
        return None
    wanted = [math.floor((timeline.start + time) / stream.time_base) for time in times]
    return Skipping(wanted, math.ceil(timeline.end / stream.time_base))


class Resizer:
    """Turns frames of one video into upright RGB arrays of one size.

    Args:
        pixel_aspect: width of a stored pixel over its height; None for square ones.
        first: the video's first frame, for its size and orientation.

    Attributes:
        orientation: what makes a frame upright.
        displayed: (width, height) in square pixels, upright.
        note: what was done to the colours that somebody has to know; "" if nothing was.
    """

    def __init__(self, pixel_aspect: Fraction | None, first: av.VideoFrame):
        self.orientation = _orientation(first)
        self.displayed = displayed_size(first.width, first.height, pixel_aspect, self.orientation.rotation)
        self.note = color.conversion_note(first)
        self._scaler, self._flattener = VideoReformatter(), VideoReformatter()

    def upright(self, frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
        """[H, W, 3] uint8 RGB, contiguous, for ``size`` = (W, H) once upright: SDR (``color.to_sdr``), and opaque on
        mid grey (``color.flatten``)."""
        width, height = size[::-1] if self.orientation.rotation % 180 else size
        if color.has_alpha(frame):
            pixels = self._flat(frame, width, height)
        elif color.needs_conversion(frame):
            pixels = color.to_sdr(self._scale(frame, width, height, "rgb48le"), frame)
        else:
            pixels = self._scale(frame, width, height, "rgb24")
        return np.ascontiguousarray(self.orientation.apply(pixels))

    def _flat(self, frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
        # Composited before it is scaled: colours of transparent pixels must not bleed into their neighbours.
        if frame.width * frame.height > MAX_FLAT_PIXELS:
            return color.flatten(self._scale(frame, width, height, "rgba"))
        matrix = color.source_matrix(frame)
        rgba = self._flattener.reformat(frame, format="rgba", src_colorspace=matrix, threads=1).to_ndarray()
        return self._scale(av.VideoFrame.from_ndarray(color.flatten(rgba), format="rgb24"), width, height, "rgb24")

    def _scale(self, frame: av.VideoFrame, width: int, height: int, pixel_format: str) -> np.ndarray:
        shrink = max(frame.width / width, frame.height / height)
        method = Interpolation.AREA if shrink > LARGE_SHRINK else Interpolation.BICUBIC
        # One thread: swscale's pool would outlive its use.
        small = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format=pixel_format,
            interpolation=method,
            src_colorspace=color.source_matrix(frame),
            threads=1,
        )
        return small.to_ndarray()


def _orientation(frame: av.VideoFrame) -> Orientation:
    matrix = side_data(frame, Type.DISPLAYMATRIX, 5 * 4)
    if matrix is None:
        return Orientation()
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    return Orientation.of(a, b, c, d)
