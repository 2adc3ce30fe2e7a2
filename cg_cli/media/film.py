"""Every frame of a film with something painted over it, and its sound, into a new file. Runs in a process of its
own."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cg_cli.media.damage import Damage
from cg_cli.media.frames import Resizer, pictures
from cg_cli.media.scan import Scan, decode, packets, scan, single_threaded
from cg_cli.media.source import open_media

CLOCK = Fraction(1, 90_000)  # seconds; fine enough for any frame rate
LONGEST = 1920  # pixels of the longer side, at most
SOUND_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)  # that AAC knows

Paint = Callable[[np.ndarray, float], np.ndarray]  # a frame [H, W, 3] uint8 and its time in seconds, painted


def repaint(source: str, target: Path, paint: Paint) -> None:
    """Write the film of ``source``, upright, as H.264 and AAC into the MP4 ``target``: same times, same length, same
    sound.

    Raises:
        ItemError: kinds as for decoding.
        ValueError: there is no film in it.
        OSError, av.FFmpegError: ``target`` cannot be written.
    """
    damage = Damage()
    found = scan(source, source, damage)
    # Its size has to be known before anything, be it sound, is written.
    first = next(pictures(source, source, found, [Fraction(0)], damage), None) if found.video else None
    if first is None:
        raise ValueError("there is no film in it to paint on")
    with (
        open_media(source, source) as container,
        av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as out,
    ):
        film = container.streams[found.video_index]
        sound = container.streams[found.audio_index] if found.audio else None
        streams = [stream for stream in (film, sound) if stream is not None]
        for stream in streams:
            single_threaded(stream)
        seen = _Pictures(out, film, found, paint, Resizer(film.sample_aspect_ratio, first.frame))
        sounds = _Sounds(out, sound, found) if sound else None
        for packet in packets(container, streams, damage):
            if packet.stream_index == found.video_index:
                for frame in decode(packet, "video", damage):
                    seen.add(frame)
            elif sounds:
                for frame in decode(packet, "sound", damage):
                    sounds.add(frame)
        seen.close()
        if sounds:
            sounds.close()


class _Pictures:
    """Frames, one behind: only the next one tells how long a frame shows."""

    def __init__(
        self, out: av.container.OutputContainer, film: av.VideoStream, found: Scan, paint: Paint, resizer: Resizer
    ):
        self._out, self._film, self._line, self._paint, self._resizer = out, film, found.video, paint, resizer
        scale = min(1.0, LONGEST / max(resizer.displayed))
        self._size = tuple(max(2, 2 * round(side * scale / 2)) for side in resizer.displayed)
        self._stream = out.add_stream("libx264", options={"preset": "veryfast", "crf": "20"})
        self._stream.pix_fmt = "yuv420p"
        self._stream.width, self._stream.height = self._size
        self._stream.codec_context.time_base = CLOCK
        self._held: tuple[Fraction, av.VideoFrame] | None = None
        self._lasts: dict[int, int] = {}
        self._count = 0

    def add(self, frame: av.VideoFrame) -> None:
        line = self._line
        counted = line.counted is not None
        if not counted and frame.pts is None:
            return
        time = self._count * line.counted if counted else frame.pts * self._film.time_base - line.start
        self._count += 1
        if time < 0 or time >= line.duration or (self._held and time <= self._held[0]):
            return
        if self._held:
            self._encode(*self._held, time)
        self._held = (time, frame)

    def close(self) -> None:
        if self._held:
            self._encode(*self._held, self._line.duration)
        self._mux(self._stream.encode(None))

    def _encode(self, time: Fraction, frame: av.VideoFrame, until: Fraction) -> None:
        painted = av.VideoFrame.from_ndarray(
            self._paint(self._resizer.upright(frame, self._size), float(time)), format="rgb24"
        )
        painted.pts, painted.time_base = round(time / CLOCK), CLOCK
        self._lasts[painted.pts] = round(until / CLOCK) - painted.pts
        self._mux(self._stream.encode(painted))

    def _mux(self, encoded: list[av.Packet]) -> None:
        for packet in encoded:
            packet.duration = round(
                self._lasts.pop(round(packet.pts * packet.time_base / CLOCK), 0) * CLOCK / packet.time_base
            )
            self._out.mux(packet)


class _Sounds:
    """The sound, decoded and encoded anew, at the times that it has beside the film."""

    def __init__(self, out: av.container.OutputContainer, sound: av.AudioStream, found: Scan):
        self._out, self._sound, self._start = out, sound, found.video.start
        rate = sound.codec_context.sample_rate or SOUND_RATES[0]
        self._rate = rate if rate in SOUND_RATES else SOUND_RATES[0]
        layout = "mono" if sound.codec_context.channels == 1 else "stereo"
        self._stream = out.add_stream("aac", rate=self._rate, layout=layout)
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=self._rate, frame_size=1024)
        self._first: Fraction | None = None
        self._samples = 0

    def add(self, frame: av.AudioFrame) -> None:
        if self._first is None:
            self._first = (frame.pts or 0) * self._sound.time_base - self._start
        self._encode(self._resampler.resample(frame))

    def close(self) -> None:
        if self._first is not None:
            self._encode(self._resampler.resample(None))
        for packet in self._stream.encode(None):
            self._out.mux(packet)

    def _encode(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            # Counted rather than copied: a broken time stamp would stop the muxer.
            frame.pts, frame.time_base = round(self._first * self._rate) + self._samples, Fraction(1, self._rate)
            self._samples += frame.samples
            for packet in self._stream.encode(frame):
                self._out.mux(packet)
