"""The steps from a file to the messages of its Clip or Probe. Runs in the worker process only.

Rules of the clock. With video, t = 0 is its first frame and the sampled frames cover the video's own length: frame i
stands for [i, i + 1) * seconds_per_frame, unless whole grids were chosen, which have starts of their own. Audio keeps
its place on that clock: a late start becomes silence, what precedes the first frame is left out with a warning, and it
may end before or after the video; ``duration_s`` is the later end. Without video, or where ``audio_on_clock`` says so,
its clock begins with its first sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np

from cg_cli.media.audio import audio_blocks
from cg_cli.media.clip import MAX_AUDIO_S, SAMPLE_RATE, DecodeOptions
from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.demux import Scan, is_cover, scan_file
from cg_cli.media.frames import refuse_oversize, sample_frames
from cg_cli.media.hardware import choose
from cg_cli.media.metadata import Probe, StreamInfo
from cg_cli.media.opening import media_error
from cg_cli.media.pictures import PictureReader, resizer_of
from cg_cli.media.source import open_media
from cg_cli.media.timeline import Timeline
from cg_cli.util.text import one_line

NOTHING_DECODABLE = "holds no picture and no sound that can be decoded: copy it again, or convert it to mp4"
EMPTY = (
    "names its tracks, but holds no picture and no sound: it is the beginning of a stream without its segments, "
    "or a recording that was cut off, so record or download it again"
)

SPARSE_S = 4  # seconds a frame, from which on it is said

Emit = Callable[[dict[str, Any], np.ndarray], None]


def decode_clip(
    path: str, display_path: str, options: DecodeOptions, emit: Emit, max_bytes: float = math.inf
) -> dict[str, Any]:
    """Emits "frame" messages (payload [H, W, 3] uint8) and "audio" messages (payload [S] float32, mono at
    SAMPLE_RATE), returns the summary.

    Args:
        path: absolute; ``display_path``: as the user gave it, for messages.
        emit: takes a message and its payload.
        max_bytes: of pixels and samples that there is memory for.

    Raises:
        ItemError: with stage "media" and the kinds of ``scan_file`` and ``sample_frames``; no_streams; unreadable when
            nothing could be decoded; too_large for more than ``max_bytes``.
    """
    errors = DecodeErrors()
    scan = scan_file(path, display_path, errors, options.audio_track if options.audio else 0)
    _require_streams(display_path, scan)
    emit = _bounded(emit, display_path, max_bytes)

    timeline = scan.video
    frames = _emit_frames(path, display_path, timeline, options, errors, emit) if timeline else {}
    if not frames:
        timeline = None
        if scan.video_index is not None and not scan.video:
            errors.notes.append("the video track holds no pictures: only the sound is used")
        elif scan.video_index is not None:
            errors.add_undecodable("video")
            errors.notes.append("no picture could be decoded: only the sound is used")
    origin = timeline.start if timeline and options.audio_on_clock else None
    status, samples = _emit_audio(path, display_path, scan, options, origin, errors, emit)
    if not frames and not samples:
        reason = " (sound was left out on request)" if status == "off" and scan.audio else ""
        raise media_error("unreadable", display_path, (NOTHING_DECODABLE if scan.has_packets else EMPTY) + reason)

    video_s = float(timeline.duration) if timeline else 0.0
    audio_s = samples / SAMPLE_RATE
    if audio_s >= MAX_AUDIO_S and scan.audio:
        audio_s = float(scan.audio.end - (scan.audio.start if origin is None else origin))
    return {
        "seconds_per_frame": 0.0,
        "source_size": [0, 0],
        "grid_starts": None,
        **frames,
        "audio_status": status,
        "audio_track": scan.audio_track if status == "used" else None,
        "duration_s": max(video_s, audio_s),
        "complete": errors.complete,
        "warnings": errors.warnings,
    }


def probe_file(path: str, display_path: str) -> Probe:
    """The Probe of a file, from its packets and one decoded frame. Raises as ``decode_clip``."""
    errors = DecodeErrors()
    scan = scan_file(path, display_path, errors)
    _require_streams(display_path, scan)
    resizer = None
    if scan.video:
        first = next(sample_frames(path, display_path, scan.video, [Fraction(0)], errors), None)
        if first is None:
            refuse_oversize(path, display_path, scan.video)
        else:
            resizer = resizer_of(path, display_path, scan.video, first.frame)
    if resizer is None and scan.audio is None:
        raise media_error("unreadable", display_path, NOTHING_DECODABLE if scan.has_packets else EMPTY)
    timelines = [timeline for timeline in (scan.video, scan.audio) if timeline]
    origin = timelines[0].start
    end = max(timeline.end for timeline in timelines)
    with open_media(path, display_path) as container:
        streams = tuple(
            StreamInfo(s.index, s.type, s.codec_context.name if s.codec_context else "", is_cover(s))
            for s in container.streams
        )
    codecs: dict[int | None, str] = {s.index: s.codec for s in streams}
    width, height = resizer.displayed if resizer else (0, 0)
    return Probe(
        path=display_path,
        container=scan.container,
        streams=streams,
        width=width,
        height=height,
        rotation=resizer.orientation.rotation if resizer else 0,
        mirrored=resizer.orientation.mirrored if resizer else False,
        duration_s=float(end - origin),
        video_codec=codecs.get(scan.video_index, ""),
        audio_codec=codecs.get(scan.audio_index, ""),
        video_s=float(scan.video.duration) if scan.video and resizer else 0.0,
        audio_s=max(0.0, float(scan.audio.end - origin)) if scan.audio else 0.0,
        complete=errors.complete,
        warnings=tuple(errors.warnings),
    )


def stated_duration(path: str, display_path: str) -> float | None:
    """Seconds that the header of a file states, right or wrong; None if it states none. ItemError if it is no media."""
    with open_media(path, display_path) as container:
        return container.duration / av.time_base if container.duration else None


def _require_streams(display_path: str, scan: Scan) -> None:
    if scan.video_index is None and scan.audio_index is None:
        raise media_error(
            "no_streams", display_path, "has neither video nor sound that can be decoded: give another file"
        )


def _bounded(emit: Emit, display_path: str, max_bytes: float) -> Emit:
    """``emit`` for ``max_bytes`` in all, where a frame on display several times counts as often."""
    total = 0

    def count(message: dict[str, Any], payload: np.ndarray) -> None:
        nonlocal total
        total += payload.nbytes * message.get("repeats", 1)
        if total > max_bytes:
            remedy = "shorten it, or give a smaller --max-frames or --max-pixels"
            text = f"needs more memory than the {max_bytes / 2**30:.1f} GiB that may be used for it: {remedy}"
            raise media_error("too_large", display_path, text)
        emit(message, payload)

    return count


def _emit_frames(
    path: str, display_path: str, timeline: Timeline, options: DecodeOptions, errors: DecodeErrors, emit: Emit
) -> dict[str, Any]:
    """Emits the sampled frames; returns what the summary says about them, {} if none could be decoded."""
    nvdec = choose(options.decoder, path, display_path, timeline, errors)
    reader = PictureReader(path, display_path, timeline, options, errors, nvdec)
    for picture in reader.read():
        message = {"event": "frame", "size": reader.size, "time": float(picture.time), "repeats": picture.repeats}
        emit(message, picture.pixels)
    if reader.resizer is None:
        refuse_oversize(path, display_path, timeline)
        return {}
    if reader.resizer.note:
        errors.notes.append(reader.resizer.note)
    count = reader.count
    if timeline.duration / count > SPARSE_S and timeline.packets > count:
        errors.notes.append(
            f"one frame in {float(timeline.duration / count):.1f} s is read: what is shorter may be missed "
            "(a larger --max-frames reads more)"
        )
    return {
        "seconds_per_frame": float(timeline.duration / count),
        "source_size": list(reader.resizer.displayed),
        "grid_starts": None if reader.starts is None else [float(start) for start in reader.starts],
    }


def _emit_audio(
    path: str,
    display_path: str,
    scan: Scan,
    options: DecodeOptions,
    origin: Fraction | None,
    errors: DecodeErrors,
    emit: Emit,
) -> tuple[str, int]:
    """Emits the audio; returns its status ("used", "absent", "off" or "failed") and the number of samples."""
    if not options.audio:
        return "off", 0
    if scan.audio_index is None:
        return "absent", 0
    if scan.audio is None:
        errors.notes.append("the sound track is empty")
        return "absent", 0
    samples = 0
    try:
        for block in audio_blocks(path, display_path, scan.audio, origin, errors, options.stereo_gain):
            block = block[: MAX_AUDIO_S * SAMPLE_RATE - samples]
            emit({"event": "audio"}, block)
            samples += len(block)
            if samples == MAX_AUDIO_S * SAMPLE_RATE:
                errors.limits.append(f"the sound is longer than {MAX_AUDIO_S // 3600} hours: the rest was left out")
                break
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        errors.add_undecodable("sound")
        errors.notes.append(f"the sound could not be decoded to its end: {one_line(error)}")
    if samples:
        return "used", samples
    errors.add_undecodable("sound")
    errors.notes.append("the sound track holds no sound that could be decoded")
    return "failed", 0
