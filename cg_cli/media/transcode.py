"""Transcoding a video with something painted on every frame, audio included. Runs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.demux import decode_packet, scan_file, timeline_packets, use_one_thread
from cg_cli.media.frames import Resizer, sample_frames
from cg_cli.media.source import open_media
from cg_cli.media.timeline import Timeline

TIME_BASE = Fraction(1, 90_000)  # seconds; fine enough for any frame rate
MAX_SIDE = 1920  # pixels of the longer side, at most
AAC_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)  # Hz

Paint = Callable[[np.ndarray, float], np.ndarray]  # a frame [H, W, 3] uint8 and its time in seconds, painted


def transcode(source: str, target: Path, paint: Paint, audio_track: int = 0, comment: str = "") -> None:
    """Write the video of ``source``, upright and painted, as H.264 and AAC into the MP4 ``target``: same times, same
    length, same audio (``audio_track`` as in ``DecodeOptions``); ``comment`` goes into its metadata.

    Raises:
        ItemError: kinds as for decoding.
        ValueError: there is no video in it.
        OSError, av.FFmpegError: ``target`` cannot be written.
    """
    errors = DecodeErrors()
    scan = scan_file(source, source, errors, audio_track)
    timeline = scan.video
    # The frame size has to be known before anything, be it audio, is written.
    first = next(sample_frames(source, source, timeline, [Fraction(0)], errors), None) if timeline else None
    if timeline is None or first is None:
        raise ValueError("there is no film in it to paint on")
    with (
        open_media(source, source) as container,
        av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as out,
    ):
        out.metadata["comment"] = comment
        video = container.streams[timeline.stream_index]
        audio = container.streams[scan.audio.stream_index] if scan.audio else None
        streams = [stream for stream in (video, audio) if stream is not None]
        for stream in streams:
            use_one_thread(stream)
        video_out = _VideoOut(out, video, timeline, paint, Resizer(video.sample_aspect_ratio, first.frame))
        audio_out = _AudioOut(out, audio, timeline.start) if audio else None
        for packet in timeline_packets(container, [timeline, *([scan.audio] if scan.audio else [])], errors):
            if packet.stream_index == timeline.stream_index:
                for frame in decode_packet(packet, "video", errors):
                    video_out.add(frame)
            elif audio_out:
                for frame in decode_packet(packet, "sound", errors):
                    audio_out.add(frame)
        video_out.close()
        if audio_out:
            audio_out.close()


class _VideoOut:
    """Paints and encodes frames, one behind: a frame's duration is known only from the next one."""

    def __init__(
        self,
        out: av.container.OutputContainer,
        video: av.VideoStream,
        timeline: Timeline,
        paint: Paint,
        resizer: Resizer,
    ):
        self._out, self._video, self._timeline, self._paint, self._resizer = out, video, timeline, paint, resizer
        scale = min(1.0, MAX_SIDE / max(resizer.displayed))
        width, height = (max(2, 2 * round(side * scale / 2)) for side in resizer.displayed)
        self._size = (width, height)
        self._stream = out.add_stream("libx264", options={"preset": "veryfast", "crf": "20"})
        self._stream.pix_fmt = "yuv420p"
        self._stream.width, self._stream.height = self._size
        self._stream.codec_context.time_base = TIME_BASE
        self._pending: tuple[Fraction, av.VideoFrame] | None = None
        self._durations: dict[int, int] = {}  # presentation time -> duration, both in TIME_BASE
        self._count = 0

    def add(self, frame: av.VideoFrame) -> None:
        """Takes the next frame in display order."""
        timeline = self._timeline
        if timeline.nominal_frame_s is not None:
            time = self._count * timeline.nominal_frame_s
        elif frame.pts is not None and self._video.time_base is not None:
            time = frame.pts * self._video.time_base - timeline.start
        else:
            return
        self._count += 1
        if time < 0 or time >= timeline.duration or (self._pending and time <= self._pending[0]):
            return
        if self._pending:
            self._encode(*self._pending, time)
        self._pending = (time, frame)

    def close(self) -> None:
        """Encodes the last frame and flushes."""
        if self._pending:
            self._encode(*self._pending, self._timeline.duration)
        self._mux(self._stream.encode(None))

    def _encode(self, time: Fraction, frame: av.VideoFrame, until: Fraction) -> None:
        painted = av.VideoFrame.from_ndarray(
            self._paint(self._resizer.upright(frame, self._size), float(time)), format="rgb24"
        )
        pts = round(time / TIME_BASE)
        painted.pts, painted.time_base = pts, TIME_BASE
        self._durations[pts] = round(until / TIME_BASE) - pts
        self._mux(self._stream.encode(painted))

    def _mux(self, encoded: list[av.Packet]) -> None:
        for packet in encoded:
            if packet.pts is not None:
                pts = round(packet.pts * packet.time_base / TIME_BASE)
                packet.duration = round(self._durations.pop(pts, 0) * TIME_BASE / packet.time_base)
            self._out.mux(packet)


class _AudioOut:
    """The audio, decoded and encoded anew, in its place on the video's clock.

    Args:
        origin: where the video starts, seconds on the file's clock.
    """

    def __init__(self, out: av.container.OutputContainer, audio: av.AudioStream, origin: Fraction):
        self._out, self._audio, self._origin = out, audio, origin
        rate = audio.codec_context.sample_rate or AAC_RATES[0]
        self._rate = rate if rate in AAC_RATES else AAC_RATES[0]
        layout = "mono" if audio.codec_context.channels == 1 else "stereo"
        self._stream = out.add_stream("aac", rate=self._rate, layout=layout)
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=self._rate, frame_size=1024)
        self._next_pts: int | None = None  # in samples

    def add(self, frame: av.AudioFrame) -> None:
        """Takes the next frame."""
        if self._next_pts is None:
            start = (frame.pts or 0) * (self._audio.time_base or Fraction(0)) - self._origin
            self._next_pts = round(start * self._rate)
        self._encode(self._next_pts, self._resampler.resample(frame))

    def close(self) -> None:
        """Encodes the resampler's rest and flushes."""
        if self._next_pts is not None:
            self._encode(self._next_pts, self._resampler.resample(None))
        for packet in self._stream.encode(None):
            self._out.mux(packet)

    def _encode(self, pts: int, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            # Counted rather than copied: a broken time stamp would stop the muxer.
            frame.pts, frame.time_base = pts, Fraction(1, self._rate)
            pts += frame.samples
            for packet in self._stream.encode(frame):
                self._out.mux(packet)
        self._next_pts = pts
