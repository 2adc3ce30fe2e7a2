"""Demuxing: one pass over a file's packets tells which streams to use, their true start and end, and read errors.

Headers lie (``stream.duration`` and ``average_rate`` of variable-rate files, cut files, streams), timestamps do not.
Runs in the worker process only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import av
from av.stream import Disposition

from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.integrity import appended_at, declares_length, is_scrambled, is_truncated
from cg_cli.media.opening import media_error, open_file
from cg_cli.media.source import open_media
from cg_cli.media.timeline import MAX_JUMP_S, FileClock, Rebase, Timeline, TimelineBuilder, join_timelines

MAX_READ_ERRORS = 64  # in a row, before the rest of the file is given up
SHORTFALL_S, SHORTFALL_SHARE = 0.5, 0.005  # a file this much shorter than its header says was truncated
LOG_BATCH = 1000  # lines kept before they are counted
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
ENCRYPTED_TAGS = ("drms", "drmi", "encv", "enca")  # of tracks in mp4 whose packets do not say it themselves
DISCONTINUOUS = ("mpegts", "mpeg")  # formats whose clock may jump


class Decoder(Protocol):
    """Decodes packets in place of a stream's own decoder."""

    def decode(self, packet: av.Packet | None = None) -> list[av.VideoFrame]:
        """The frames of a packet; None ends the stream."""
        ...


@dataclass(frozen=True)
class Scan:
    """The file's format, the indices of the streams to use, and their timelines (None: absent or empty).

    A stream without packets has an index and no timeline.
    """

    container: str
    video_index: int | None
    audio_index: int | None
    video: Timeline | None
    audio: Timeline | None
    audio_track: int | None = None  # counted from 1

    @property
    def has_packets(self) -> bool:
        """Whether there is anything in the streams to use."""
        return bool(self.video or self.audio)


def scan_file(path: str, display_path: str, errors: DecodeErrors, audio_track: int = 0) -> Scan:
    """Reads every packet of the file once. Memory does not grow with its length.

    Args:
        audio_track: as in ``DecodeOptions``.

    Raises:
        ItemError: as ``open_media``; kind no_track where the file has sound, but no such track; encrypted.
    """
    with open_media(path, display_path) as container:
        name = container.format.name
        video, audio = video_stream(container), _track(container, audio_track, display_path)
        clock = FileClock(discontinuous=name in DISCONTINUOUS, hides_negative=name.startswith("matroska"))
        in_use = {stream.index for stream in (video, audio) if stream}
        builders = {
            stream.index: TimelineBuilder(stream, errors, clock if stream.index in in_use else None)
            for stream in container.streams
            if not is_cover(stream)
        }
        declared = None
        with open_file(path, display_path) as file:
            if container.duration and declares_length(file, name):
                declared = Fraction(container.duration, av.time_base)
            truncated = is_truncated(file, name)
            encrypted = is_scrambled(file, name)
        first = Fraction(container.start_time or 0, av.time_base)
        encrypted |= any(stream.codec_context.codec_tag in ENCRYPTED_TAGS for stream in (video, audio) if stream)
        side_data = "encryption_init_info" if name.startswith("matroska") else "encryption_info"
        limit = None if declared is None else first + 2 * declared + MAX_JUMP_S
        # Only the demuxer's own messages count: codecs also log errors for streams that begin between keyframes.
        read_to = 0
        with av.logging.Capture() as logs:
            for packet in demux_packets(container, list(container.streams), errors):
                read_to = max(read_to, (packet.pos or 0) + packet.size)
                if packet.stream_index in builders and packet.size:
                    builders[packet.stream_index].add(packet, limit)
                    encrypted |= packet.stream_index in in_use and packet.has_sidedata(side_data)
                if len(logs) >= LOG_BATCH:
                    errors.read_errors += _count_messages(logs, name)
                    logs.clear()
        errors.read_errors += _count_messages(logs, name)
        # Taken here: a stream of a closed container points to freed memory.
        tracks = [stream.index for stream in container.streams.audio]
        video_index, audio_index = (stream.index if stream else None for stream in (video, audio))
        timelines: dict[int | None, Timeline | None] = {}
        for index, builder in builders.items():
            if index not in in_use:
                timelines[index] = builder.timeline()
        for index, timeline in join_timelines([builders[index] for index in in_use]).items():
            timelines[index] = timeline
        recordings = max((len(builders[index].parts) for index in in_use), default=1)
    if encrypted:
        raise media_error(
            "encrypted", display_path, "is encrypted (copy protection): give a copy that was decrypted with its key"
        )
    with open_file(path, display_path) as file:
        appended = appended_at(file, name, read_to)
        if appended is not None:
            rest = os.fstat(file.fileno()).st_size - appended
            errors.limits.append(
                f"another file follows in it, whose {rest:,} bytes are not read: give each its own name"
            )
    if recordings > 1:
        errors.notes.append(f"the file is {recordings} recordings one after the other: they were joined")
    video_timeline, audio_timeline = timelines.get(video_index), timelines.get(audio_index)
    used = {"video": video_timeline, "sound": audio_timeline}
    errors.packets = {kind: timeline.packets for kind, timeline in used.items() if timeline}
    errors.truncation = _truncation_warning(
        truncated, name.startswith("mov"), declared, first, [timeline for timeline in timelines.values() if timeline]
    )
    track = None if audio_index is None else tracks.index(audio_index) + 1
    return Scan(name, video_index, audio_index, video_timeline, audio_timeline, track)


def _truncation_warning(
    truncated: bool, by_structure: bool, declared: Fraction | None, first: Fraction, timelines: list[Timeline]
) -> str:
    """The warning for a file that ends early, "" for one that does not."""
    # Some formats count their length from zero, some from the first timestamp.
    read = max((timeline.end for timeline in timelines), default=first) - min(first, Fraction(0))
    of_declared = ""
    # An mp4's structure shows every cut, while the length of its tracks leaves their edit lists out.
    if (
        declared is not None
        and (truncated or not by_structure)
        and declared - read > max(SHORTFALL_S, SHORTFALL_SHARE * declared)
    ):
        of_declared = f" of {float(declared):.1f} s"
    if not (truncated or of_declared):
        return ""
    return f"the file is cut off: {float(read):.1f} s{of_declared} could be read"


def _count_messages(logs: list[tuple[int, str, str]], source: str) -> int:
    return sum(1 for _, name, _ in logs if name == source)


def is_cover(stream: av.stream.Stream) -> bool:
    """Whether a stream is a picture attached to an audio file."""
    return bool(stream.disposition & Disposition.attached_pic)


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video stream to use: libavformat's choice among the streams that are no cover art and have a decoder."""
    candidates = [stream for stream in container.streams.video if not is_cover(stream) and stream.codec_context]
    best = container.streams.best("video")
    return best if best in candidates else (candidates[0] if candidates else None)


def audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The audio stream to use: libavformat's choice among the streams that have a decoder."""
    candidates = [stream for stream in container.streams.audio if stream.codec_context]
    best = container.streams.best("audio")
    return best if best in candidates else (candidates[0] if candidates else None)


def _track(container: av.container.InputContainer, number: int, display_path: str) -> av.AudioStream | None:
    """The sound track of a number from 1 on; 0: ``audio_stream``."""
    tracks = container.streams.audio
    if not number or not tracks:
        return audio_stream(container)
    if number > len(tracks) or not tracks[number - 1].codec_context:
        count = "one sound track" if len(tracks) == 1 else f"{len(tracks)} sound tracks"
        raise media_error("no_track", display_path, f"has {count}: sound track {number} cannot be read from it")
    return tracks[number - 1]


def demux_packets(container: av.container.InputContainer, streams: list, errors: DecodeErrors) -> Iterator[av.Packet]:
    """Packets of ``streams`` to the end of the file, past read errors; a demuxer goes on behind most of them."""
    failures = 0
    while failures < MAX_READ_ERRORS:
        try:
            for packet in container.demux(streams):
                failures = 0
                yield packet
            return
        except MemoryError:
            raise
        except IndexError:  # PyAV at the end of a file whose errors made a new stream appear on the way
            errors.read_errors += 1
            return
        except (av.FFmpegError, OSError):  # OSError: a damaged index led to an offset that no file has
            failures += 1
            errors.read_errors += 1


def timeline_packets(
    container: av.container.InputContainer, timelines: list[Timeline], errors: DecodeErrors
) -> Iterator[av.Packet]:
    """As ``demux_packets``, from the start of a fresh container, with timestamps on the clock of ``timelines``."""
    rebases = {timeline.stream_index: Rebase(timeline) for timeline in timelines}
    for packet in demux_packets(container, [container.streams[index] for index in rebases], errors):
        yield rebases[packet.stream_index].move(packet) if packet.stream_index in rebases else packet


def use_one_thread(stream: av.stream.Stream) -> None:
    """Decode without threads: PyAV's other modes can hang (PyAV issue 1861) and gain little on short clips."""
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1


def alpha_decoder(stream: av.VideoStream) -> av.VideoCodecContext | None:
    """A decoder that reads the transparency of a VP8 or VP9 stream, which the usual one leaves out; None for others."""
    name = ALPHA_DECODERS.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        return None
    decoder = av.VideoCodecContext.create(name, "r")
    decoder.thread_type, decoder.thread_count = "NONE", 1
    decoder.options = stream.codec_context.options
    return decoder


def decode_packet(packet: av.Packet, kind: str, errors: DecodeErrors, decoder: Decoder | None = None) -> list:
    """The frames of one packet; none, counted in ``errors`` as ``kind`` ("video" or "sound"), if it is broken.

    ``decoder`` does it, if there is one, in place of the stream's own.
    """
    flush = packet.pts is None and packet.dts is None
    if not packet.size and not flush:  # an empty packet (a dropped frame) would end the decoder's work
        return []
    try:
        if decoder is not None:
            return decoder.decode(packet if packet.size else None)
        return packet.decode()
    except MemoryError:
        raise
    except EOFError:
        return []
    except (av.FFmpegError, ValueError):
        errors.add_undecodable(kind)
        return []
