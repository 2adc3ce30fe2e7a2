"""One pass over a file's packets, decoding nothing: which streams, where they truly start and end, what is damaged.

Headers lie (``stream.duration`` and ``average_rate`` of variable-rate files, cut files, streams), timestamps do not.
Runs in the worker process only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.stream import Disposition

from cg_cli.media.damage import Damage
from cg_cli.media.integrity import declares_length, is_cut
from cg_cli.media.source import open_file, open_media
from cg_cli.media.timeline import STRAY_S, Survey, Timeline

MAX_READ_ERRORS = 64  # in a row, before the rest of the file is given up
SHORTFALL_S, SHORTFALL_SHARE = 0.5, 0.005  # a file this much shorter than its header says was cut
LOG_BATCH = 1000  # lines kept before they are counted


@dataclass(frozen=True)
class Scan:
    """The file's format, the indices of the streams to use, and their timelines (None: absent or empty)."""

    container: str
    video_index: int | None
    audio_index: int | None
    video: Timeline | None
    audio: Timeline | None


def scan(path: str, shown: str, damage: Damage) -> Scan:
    """Reads every packet of the file once. Memory does not grow with its length.

    Raises:
        ItemError: as ``open_media``.
    """
    with open_media(path, shown) as container:
        name = container.format.name
        video, audio = video_stream(container), audio_stream(container)
        surveys = {stream.index: Survey(stream, damage) for stream in container.streams if not is_cover(stream)}
        declared = None
        with open_file(path, shown) as file:
            if container.duration and declares_length(file, name):
                declared = Fraction(container.duration, av.time_base)
            cut = is_cut(file, name)
        first = Fraction(container.start_time or 0, av.time_base)
        limit = None if declared is None else first + 2 * declared + STRAY_S
        # Only the demuxer's own complaints count: codecs also complain about sound files that begin between keyframes.
        with av.logging.Capture() as logs:
            for packet in packets(container, list(container.streams), damage):
                if packet.stream_index in surveys and packet.size:
                    surveys[packet.stream_index].add(packet, limit)
                if len(logs) >= LOG_BATCH:
                    damage.unreadable += _complaints(logs, name)
                    logs.clear()
        damage.unreadable += _complaints(logs, name)
        # Taken here: a stream of a closed container points to freed memory.
        indices = [stream.index if stream else None for stream in (video, audio)]
        timelines = {index: survey.timeline() for index, survey in surveys.items()}
    used = [timelines.get(index) for index in indices]
    damage.packets = {kind: line.packets for kind, line in zip(("video", "sound"), used) if line}
    damage.cut = _cut_line(cut, declared, first, [line for line in timelines.values() if line])
    return Scan(name, *indices, *used)


def _cut_line(cut: bool, declared: Fraction | None, first: Fraction, timelines: list[Timeline]) -> str:
    """The warning for a file that ends early, "" for one that does not."""
    # Some formats count their length from zero, some from the first timestamp.
    read = max((line.end for line in timelines), default=first) - min(first, Fraction(0))
    short = declared is not None and declared - read > max(SHORTFALL_S, SHORTFALL_SHARE * declared)
    if not (cut or short):
        return ""
    return (
        f"the file is cut off: {float(read):.1f} s"
        + (f" of {float(declared):.1f} s" if short else "")
        + " could be read"
    )


def _complaints(logs: list[tuple[int, str, str]], source: str) -> int:
    return sum(1 for _, name, _ in logs if name == source)


def is_cover(stream: av.stream.Stream) -> bool:
    """Whether a stream is a picture attached to a sound file."""
    return bool(stream.disposition & Disposition.attached_pic)


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The film of a file: libavformat's choice among the streams that are no cover art and have a decoder."""
    films = [stream for stream in container.streams.video if not is_cover(stream) and stream.codec_context]
    best = container.streams.best("video")
    return best if best in films else (films[0] if films else None)


def audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The sound of a file: libavformat's choice among the streams that have a decoder."""
    tracks = [stream for stream in container.streams.audio if stream.codec_context]
    best = container.streams.best("audio")
    return best if best in tracks else (tracks[0] if tracks else None)


def packets(container: av.container.InputContainer, streams: list, damage: Damage) -> Iterator[av.Packet]:
    """Packets of ``streams`` to the end of the file, over read errors; a demuxer goes on behind most of them."""
    failed = 0
    while failed < MAX_READ_ERRORS:
        try:
            for packet in container.demux(streams):
                failed = 0
                yield packet
            return
        except MemoryError:
            raise
        except IndexError:  # PyAV at the end of a file whose damage made a new stream appear on the way
            damage.unreadable += 1
            return
        except (av.FFmpegError, OSError):  # OSError: a damaged index led to an offset that no file has
            failed += 1
            damage.unreadable += 1


def single_threaded(stream: av.stream.Stream) -> None:
    """Decode without threads: PyAV's other modes can hang (PyAV issue 1861) and gain little on short clips."""
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1


def decode(packet: av.Packet, kind: str, damage: Damage) -> list:
    """The frames of one packet; none, and a loss on the record, if it is broken."""
    flush = packet.pts is None and packet.dts is None
    if not packet.size and not flush:  # an empty packet (a dropped frame) would end the decoder's work
        return []
    try:
        return packet.decode()
    except MemoryError:
        raise
    except EOFError:
        return []
    except (av.FFmpegError, ValueError):
        damage.lose(kind)
        return []
