"""Writes small media files with PyAV whose every frame says which one it is, and whose sound says what time it is."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 12  # stripes in a frame: the binary digits of its number, white for one
TIME_BASE = Fraction(1, 1000)
AUDIO_BLOCK = 1024  # samples an audio frame


def striped(number: int, width: int, height: int) -> np.ndarray:
    """[height, width, 3] uint8: ``number`` as black and white vertical stripes, the lowest bit on the left."""
    digits = (number >> np.arange(BITS)) & 1
    row = digits[np.arange(width) * BITS // width] * 255
    return np.repeat(np.tile(row[None, :, None], (height, 1, 3)), 1, axis=0).astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    """The number that ``striped`` painted, read from a frame [H, W, 3] of any size."""
    columns = ((np.arange(BITS) + 0.5) * frame.shape[1] / BITS).astype(int)
    return int((frame[:, columns].mean(axis=(0, 2)) > 127) @ (1 << np.arange(BITS)))


def beeps(seconds: float, rate: int, every_s: float = 1.0) -> np.ndarray:
    """[S] float32: silence with a 20 ms burst at the start of each ``every_s``."""
    time = np.arange(round(seconds * rate)) / rate
    return np.where(time % every_s < 0.02, 0.8 * np.sin(2 * np.pi * 1000 * time), 0.0).astype(np.float32)


def write(
    path: Path,
    *,
    times: list[float] | None = None,
    size: tuple[int, int] = (96, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
    gop: int = 12,
    rotation: int = 0,
    pixel_aspect: Fraction | None = None,
    sound: np.ndarray | None = None,
    sound_start_s: float = 0.0,
    sound_codec: str = "aac",
    sound_rate: int = 48_000,
    sound_layout: str = "mono",
    gap: tuple[float, float] = (0.0, 0.0),
    container_format: str | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """One file: a striped frame at each of ``times`` (seconds), and ``sound`` [S] from ``sound_start_s`` on.

    Sound blocks that begin within ``gap`` (seconds of the sound) are not written.
    """
    width, height = size
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as output:
        if times is not None:
            options = {"preset": "ultrafast"} if codec == "libx264" else {}
            video = output.add_stream(codec, rate=25, options=options | (codec_options or {}))
            video.width, video.height, video.pix_fmt, video.gop_size = width, height, pix_fmt, gop
            if pixel_aspect is not None:
                video.codec_context.sample_aspect_ratio = pixel_aspect
            if codec not in ("gif", "png", "mpeg4", "rawvideo"):
                video.codec_context.time_base = TIME_BASE
            if rotation:
                video.set_display_rotation(rotation)
        if sound is not None:
            audio = output.add_stream(sound_codec, rate=sound_rate, layout=sound_layout)
        if times is not None:
            _write_frames(output, video, times, size, pix_fmt)
        if sound is not None:
            write_sound(output, audio, sound, sound_start_s, sound_rate, sound_layout, gap)
    return path


def _write_frames(output, video, times: list[float], size: tuple[int, int], pix_fmt: str) -> None:
    time_base = video.codec_context.time_base or Fraction(1, 25)
    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(striped(number, *size), format="rgb24").reformat(format=pix_fmt)
        frame.pts, frame.time_base = round(time / time_base), time_base
        output.mux(video.encode(frame))
    output.mux(video.encode(None))


def film(
    path,
    codec="libx264",
    times=None,
    rate=25,
    gop=40,
    fine=True,
    size=(160, 96),
    pix_fmt="yuv420p",
    rotation=0,
    color_range=0,
    **codec_options,
):
    """A film of a texture that moves under noise; ``fine`` times are stored in milliseconds, others in frames."""
    width, height = size
    draw = np.random.default_rng(0)
    small = draw.integers(40, 216, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    texture = small.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, options={"preset": "fast"} | codec_options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, pix_fmt, gop
        stream.codec_context.color_range = color_range
        if fine:
            stream.codec_context.time_base = TIME_BASE
        if rotation:
            stream.set_display_rotation(rotation)
        time_base = stream.codec_context.time_base or Fraction(1, rate)
        for number, time in enumerate(steady(4) if times is None else times):
            moved = np.roll(texture, (number // 2, number * 3), axis=(0, 1)) + draw.integers(0, 20, texture.shape)
            frame = av.VideoFrame.from_ndarray(moved.astype(np.uint8), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = round(time / time_base), time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_sound(
    output, audio, sound: np.ndarray, start_s: float, rate: int, layout: str, gap: tuple[float, float] = (0.0, 0.0)
) -> None:
    """Encodes ``sound`` [S] into the stream ``audio`` of ``output``; see ``write``."""
    channels = av.AudioLayout(layout).nb_channels
    first = round(start_s * rate)
    for begin in range(0, len(sound), AUDIO_BLOCK):
        if gap[0] <= begin / rate < gap[1]:
            continue
        block = np.ascontiguousarray(np.tile(sound[begin : begin + AUDIO_BLOCK], (channels, 1)))
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first + begin
        output.mux(audio.encode(frame))
    output.mux(audio.encode(None))


def steady(seconds: float, fps: float = 25.0, start_s: float = 0.0) -> list[float]:
    """Times of ``seconds`` of video at a constant rate."""
    return [start_s + index / fps for index in range(round(seconds * fps))]


def image(
    path: Path, number: int = 5, size: tuple[int, int] = (96, 48), codec: str = "png", pix_fmt: str = "rgb24"
) -> Path:
    """One picture in a file of its own, without a container."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = *size, pix_fmt, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(striped(number, *size), format="rgb24").reformat(format=pix_fmt)
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))
    return path


def cut_without_encoding(source: Path, target: Path, start_s: float, **options: str) -> Path:
    """As ``ffmpeg -ss START -i SOURCE -c copy TARGET``: from the keyframe before, with timestamps from ``start_s`` on;
    what is before is negative. ``options`` are the muxer's."""
    with av.open(str(source)) as container, av.open(str(target), "w", options=options) as output:
        copies = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        container.seek(round(start_s * av.time_base), backward=True)
        for packet in container.demux():
            if packet.dts is None:
                continue
            offset = round(start_s / packet.time_base)
            if packet.stream.type == "audio" and packet.pts < offset - 2 * AUDIO_BLOCK:
                continue
            packet.pts, packet.dts, packet.stream = (
                packet.pts - offset,
                packet.dts - offset,
                copies[packet.stream_index],
            )
            output.mux(packet)
    return target
