"""Probe: a media file's metadata (container, streams, sizes, lengths), without decoding all of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StreamInfo:
    """One stream of a file: its type ("video", "audio", "subtitle", ...) and codec name ("" if unknown).

    ``cover`` marks a picture attached to an audio file, which is not video.
    """

    index: int
    type: str
    codec: str
    cover: bool = False


@dataclass(frozen=True)
class Probe:
    """The metadata of one file.

    Attributes:
        path: as given.
        container: libavformat's name of the format, e.g. "matroska,webm".
        streams: every stream of the file.
        width, height: displayed size of the video in pixels (pixel aspect and rotation applied); 0 without video.
        rotation: degrees counterclockwise already applied to width and height: 0, 90, 180 or 270.
        mirrored: whether the picture is mirrored left to right after that.
        duration_s: seconds on the Clip's clock, from the packets of the file, never from its header.
        video_s, audio_s: seconds of video, and the end of the audio, on that clock; 0 without.
        video_codec, audio_codec: of the streams that ``decode`` would use; "" without one.
        complete: False when part of the file could not be read.
        warnings: one line each.
    """

    path: str
    container: str
    streams: tuple[StreamInfo, ...]
    width: int
    height: int
    rotation: int
    duration_s: float
    video_codec: str
    audio_codec: str
    video_s: float = 0.0
    audio_s: float = 0.0
    mirrored: bool = False
    complete: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def has_video(self) -> bool:
        """Whether ``decode`` would decode frames."""
        return bool(self.video_codec)

    @property
    def has_audio(self) -> bool:
        """Whether ``decode`` would decode audio."""
        return bool(self.audio_codec)
