"""The Probe: what a media file says about itself, before anyone decodes all of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StreamFacts:
    """One stream of a file: its type ("video", "audio", "subtitle", ...) and codec name ("" if unknown).

    ``cover`` marks a picture attached to a sound file, which is not video.
    """

    index: int
    type: str
    codec: str
    cover: bool = False


@dataclass(frozen=True)
class Probe:
    """What ``probe`` found.

    Attributes:
        path: as given.
        container: libavformat's name of the format, e.g. "matroska,webm".
        streams: every stream of the file.
        width, height: displayed size of the video in pixels (pixel aspect and rotation applied); 0 without video.
        rotation: degrees counterclockwise already applied to width and height: 0, 90, 180 or 270.
        duration_s: length on the Clip's clock, from the packets of the file, never from its header.
        film_s, sound_s: how long pictures and sound last on that clock; 0 without.
        video_codec, audio_codec: of the streams that ``decode`` would use; "" without one.
        complete: False when part of the file could not be read.
        warnings: one line each.
    """

    path: str
    container: str
    streams: tuple[StreamFacts, ...]
    width: int
    height: int
    rotation: int
    duration_s: float
    video_codec: str
    audio_codec: str
    film_s: float = 0.0
    sound_s: float = 0.0
    complete: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def has_video(self) -> bool:
        """Whether ``decode`` would look for frames."""
        return bool(self.video_codec)

    @property
    def has_audio(self) -> bool:
        """Whether ``decode`` would look for sound."""
        return bool(self.audio_codec)
