"""Decoding on an NVIDIA card (NVDEC), with the very frames that the CPU gives, or not at all.

Runs in the worker process only. What is known beforehand to be for the CPU is decoded there at once (``choose``). What
fails on the card later raises an ItemError of kind HARDWARE: DecodeWorker has the file decoded again, on the CPU, so
that damage is dealt with and told as ever.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import av
import psutil
from av.codec.hwaccel import HWAccel
from av.video.reformatter import ColorRange, VideoReformatter

from cg_cli.errors import ItemError
from cg_cli.media import color
from cg_cli.media.clip import HARDWARE, NVDEC, ON_THE_CPU
from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.demux import alpha_decoder
from cg_cli.media.source import open_media
from cg_cli.media.timeline import Timeline
from cg_cli.util.text import one_line

# Standards of integer arithmetic, whose decoders agree bit for bit. Those of MPEG-1, 2 and 4 and of JPEG may round.
EXACT_CODECS = frozenset({"h264", "hevc", "vp8", "vp9"})
# The pixel format of the CPU's decoder -> that of frames from the card, the same samples in another order.
CARD_FORMATS = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}
FULL_RANGE = int(ColorRange.JPEG)
MARKS_RANGE = frozenset({"h264", "hevc"})  # codecs whose decoder on the CPU gives yuvj420p for the full range
CARD = "0"  # of the visible ones (CUDA_VISIBLE_DEVICES)
DECODER_MEMORY = 1 << 29  # bytes of the process that libnvcuvid may take beside what the CUDA context does

_contexts: list[av.VideoCodecContext] = []  # holds the process's CUDA context, which takes long to make


def failure(reason: str) -> ItemError:
    """What has the file decoded again on the CPU; ``reason`` ends up in the clip's warnings."""
    return ItemError("media", reason, HARDWARE)


def choose(decoder: str, path: str, display_path: str, timeline: Timeline, errors: DecodeErrors) -> NvdecVideo | None:
    """The video of ``timeline`` on the card; None where the CPU decodes it, with a note in ``errors`` if ``decoder``
    is NVDEC. Raises as ``open_media``."""
    if decoder != NVDEC:
        return None
    with open_media(path, display_path) as container:
        stream = container.streams[timeline.stream_index]
        codec, pixel_format = stream.codec_context.name, stream.codec_context.pix_fmt
        transparent = alpha_decoder(stream) is not None
    reason = ""
    if not errors.complete:
        reason = "the card does not tell what is damaged"
    elif codec not in EXACT_CODECS:
        reason = f"the card's frames of {codec} are not known to be the same"
    elif pixel_format not in CARD_FORMATS or transparent:
        reason = f"the card does not take {codec} of the pixel format {'yuva420p' if transparent else pixel_format}"
    else:
        reason = _without_card()
    if reason:
        errors.notes.append(ON_THE_CPU + reason)
        return None
    return NvdecVideo(codec, pixel_format)


class NvdecVideo:
    """One video that the card decodes.

    Args:
        codec: its name.
        pixel_format: what the CPU's decoder gives.
    """

    def __init__(self, codec: str, pixel_format: str):
        self._codec, self._pixel_format = codec, pixel_format
        self._reformatter = VideoReformatter()

    @contextmanager
    def open(self, path: str, display_path: str) -> Iterator[av.container.InputContainer]:
        """As ``open_media``, with decoders on the card. ItemError (HARDWARE) if that fails."""
        with ExitStack() as stack:
            try:
                container = stack.enter_context(open_media(path, display_path, _accelerator()))
            except (ItemError, RuntimeError) as error:
                raise failure(f"the card could not be used ({one_line(error)})") from error
            yield container

    def decoder(self, stream: av.VideoStream, errors: DecodeErrors) -> NvdecDecoder:
        """Decodes packets of ``stream``, of a container from ``open``; any of ``errors`` ends that."""
        return NvdecDecoder(stream.codec_context, self._codec, self._pixel_format, errors)

    def as_on_the_cpu(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The same frame in the pixel format of the CPU's decoder: swscale rounds NV12 otherwise on its way to RGB."""
        full = ColorRange.JPEG if self._pixel_format == "yuvj420p" else None
        matrix = color.source_matrix(frame)  # the tags of a frame may name one that swscale refuses
        return self._reformatter.reformat(
            frame,
            format=self._pixel_format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=full,
            dst_color_range=full,
            threads=1,
        )


class NvdecDecoder:
    """The decoder of one stream on the card, for ``demux.decode_packet``; see ``NvdecVideo`` for the arguments."""

    def __init__(self, context: av.VideoCodecContext, codec: str, pixel_format: str, errors: DecodeErrors):
        self._context, self._errors = context, errors
        self._format, self._full_range = CARD_FORMATS[pixel_format], pixel_format == "yuvj420p"
        self._marks_range = codec in MARKS_RANGE

    def decode(self, packet: av.Packet | None = None) -> list[av.VideoFrame]:
        """The frames of a packet, NV12 or P010 in the process's memory; None ends the stream.

        Raises:
            ItemError: kind HARDWARE, if anything is not as in a sound file.
        """
        if not self._errors.complete:
            raise failure("the card does not tell what is damaged")
        try:
            frames = self._context.decode(packet)
        except EOFError:
            raise
        except (av.FFmpegError, ValueError, RuntimeError) as error:
            raise failure(f"the card could not decode it ({_cause(error)})") from error
        for frame in frames:
            self._check(frame)
        return frames

    def _check(self, frame: av.VideoFrame) -> None:
        if frame.is_corrupt:
            raise failure("the card does not tell what is damaged")
        if frame.format.name != self._format:
            raise failure(f"the card gave a frame of the pixel format {frame.format.name}")
        if self._marks_range and (int(frame.color_range) == FULL_RANGE) != self._full_range:
            raise failure("the range of its colours changes")
        # libav leaves what is cut off a frame's left and top in frames of a card.
        if (frame.width, frame.height) != (self._context.width, self._context.height):
            raise failure("its frames are cut, or change their size")


def _accelerator() -> HWAccel:
    # No fallback within libav: it would not be told, and it leaves out what ``choose`` promises.
    return HWAccel("cuda", device=CARD, allow_software_fallback=False, options={"primary_ctx": "1"})


def _without_card() -> str:
    """Why there is no card that can be used; "" where there is one, whose context this process then keeps."""
    if not _contexts:
        try:
            with _room_for_the_driver():
                _contexts.append(av.VideoCodecContext.create("h264", "r", hwaccel=_accelerator()))
        except (av.FFmpegError, MemoryError, RuntimeError) as error:
            return f"there is no NVIDIA GPU with a driver that can be used ({_cause(error)})"
    return ""


@contextmanager
def _room_for_the_driver() -> Iterator[None]:
    """Raises the process's limit of memory by what the driver takes within the context, and DECODER_MEMORY."""
    if sys.platform != "linux":
        yield
        return
    limit, most = resource.getrlimit(resource.RLIMIT_DATA)
    before = psutil.Process().memory_info().data
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    raised = limit
    try:
        yield
        raised += psutil.Process().memory_info().data - before + DECODER_MEMORY
    finally:
        unlimited = limit == resource.RLIM_INFINITY
        raised = limit if unlimited else raised if most == resource.RLIM_INFINITY else min(raised, most)
        resource.setrlimit(resource.RLIMIT_DATA, (raised, most))


def _cause(error: BaseException) -> str:
    """The error in a line: what libav logged last, as its codes say little."""
    log = getattr(error, "log", None)
    return one_line(log[2]) if log else one_line(error)
