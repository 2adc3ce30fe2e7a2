"""The steps from a file to the messages of its Clip or Probe. Runs in the worker process only.

Rules of the clock. With a film, t = 0 is its first frame and the frames cover the film's own length: frame i stands
for [i, i + 1) * seconds_per_frame. Sound keeps its place on that clock: a late start becomes silence, what precedes the
first frame is left out with a warning, and it may end before or after the film; ``duration_s`` is the later end.
Without a film, t = 0 is the first sound.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np

from cg_cli.media.clip import SAMPLE_RATE, DecodeOptions
from cg_cli.media.damage import Damage
from cg_cli.media.facts import Probe, StreamFacts
from cg_cli.media.frames import Resizer, pictures, refuse_oversize
from cg_cli.media.scan import Scan, is_cover, scan
from cg_cli.media.sizes import fit_size, frame_count, slot_centres
from cg_cli.media.sound import blocks
from cg_cli.media.source import fault, open_media

NOTHING = "holds no picture and no sound that can be decoded: copy it again, or convert it to mp4"

Emit = Callable[[dict[str, Any], np.ndarray], None]


def decode_clip(path: str, shown: str, options: DecodeOptions, emit: Emit) -> dict[str, Any]:
    """Emits "frame" messages (payload [H, W, 3] uint8) and "sound" messages (payload float32), returns the summary.

    Args:
        path: absolute; ``shown``: as the user gave it, for messages.
        emit: takes a message and its payload.

    Raises:
        ItemError: with stage "media" and the kinds of ``open_media`` and ``pictures``; no_streams; unreadable when
            nothing could be decoded.
    """
    damage = Damage()
    found = scan(path, shown, damage)
    _require_streams(shown, found)

    film = _send_frames(path, shown, found, options, damage, emit) if found.video else {}
    if found.video_index is not None and not film:
        damage.lose("video")
        damage.notes.append("no picture could be decoded: only the sound is used")
    origin = found.video.start if film else None
    status, samples = _send_sound(path, shown, found, options, origin, damage, emit)
    if not film and not samples:
        without = " (sound was left out on request)" if status == "off" and found.audio else ""
        raise fault("unreadable", shown, NOTHING + without)

    film_s = float(found.video.duration) if film else 0.0
    return {
        "seconds_per_frame": 0.0,
        "source_size": [0, 0],
        **film,
        "audio_status": status,
        "duration_s": max(film_s, samples / SAMPLE_RATE),
        "complete": damage.complete,
        "warnings": damage.lines,
    }


def probe_file(path: str, shown: str) -> Probe:
    """The Probe of a file, from its packets and one decoded frame. Raises as ``decode_clip``."""
    damage = Damage()
    found = scan(path, shown, damage)
    _require_streams(shown, found)
    resizer = None
    if found.video:
        first = next(pictures(path, shown, found, [Fraction(0)], damage), None)
        if first is None:
            refuse_oversize(path, shown, found)
        else:
            resizer = _resizer(path, shown, found, first.frame)
    if resizer is None and (found.audio is None):
        raise fault("unreadable", shown, NOTHING)
    ends = [line.end for line in (found.video, found.audio) if line]
    origin = (found.video or found.audio).start if ends else 0
    with open_media(path, shown) as container:
        streams = tuple(
            StreamFacts(s.index, s.type, s.codec_context.name if s.codec_context else "", is_cover(s))
            for s in container.streams
        )
    codec = {s.index: s.codec for s in streams}
    width, height = resizer.displayed if resizer else (0, 0)
    return Probe(
        path=shown,
        container=found.container,
        streams=streams,
        width=width,
        height=height,
        rotation=resizer.rotation if resizer else 0,
        duration_s=float(max(ends, default=origin) - origin),
        video_codec=codec.get(found.video_index, ""),
        audio_codec=codec.get(found.audio_index, ""),
        film_s=float(found.video.duration) if found.video and resizer else 0.0,
        sound_s=float(max(0, found.audio.end - origin)) if found.audio else 0.0,
        complete=damage.complete,
        warnings=tuple(damage.lines),
    )


def _require_streams(shown: str, found: Scan) -> None:
    if found.video_index is None and found.audio_index is None:
        raise fault("no_streams", shown, "has neither video nor sound that can be decoded: give another file")


def _resizer(path: str, shown: str, found: Scan, first: av.VideoFrame) -> Resizer:
    with open_media(path, shown) as container:
        return Resizer(container.streams[found.video_index].sample_aspect_ratio, first)


def _send_frames(
    path: str, shown: str, found: Scan, options: DecodeOptions, damage: Damage, emit: Emit
) -> dict[str, Any]:
    """Emits the chosen frames; returns what the summary says about them, {} if none could be decoded."""
    duration = found.video.duration
    count = frame_count(duration, options)
    resizer = size = None
    for picture in pictures(path, shown, found, slot_centres(duration, count), damage):
        if resizer is None:
            resizer = _resizer(path, shown, found, picture.frame)
            size = fit_size(*resizer.displayed, options.frame_pixels(count), options.side_multiple)
        pixels = resizer.upright(picture.frame, size)
        emit({"event": "frame", "size": size, "time": float(picture.time), "serves": picture.serves}, pixels)
    if resizer is None:
        refuse_oversize(path, shown, found)
        return {}
    return {"seconds_per_frame": float(duration / count), "source_size": list(resizer.displayed)}


def _send_sound(
    path: str, shown: str, found: Scan, options: DecodeOptions, origin: Fraction | None, damage: Damage, emit: Emit
) -> tuple[str, int]:
    """Emits the sound; returns its status and the number of samples."""
    if not options.audio:
        return "off", 0
    if found.audio_index is None:
        return "absent", 0
    if found.audio is None:
        damage.notes.append("the sound track is empty")
        return "absent", 0
    samples = 0
    try:
        for block in blocks(path, shown, found, origin, damage):
            emit({"event": "sound"}, block)
            samples += len(block)
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        damage.lose("sound")
        damage.notes.append(f"the sound could not be decoded to its end: {' '.join(str(error).split())}")
    if samples:
        return "used", samples
    damage.lose("sound")
    damage.notes.append("the sound track holds no sound that could be decoded")
    return "failed", 0
