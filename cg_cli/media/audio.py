"""Audio as 16 kHz mono blocks on the video's clock, whole, however long. Runs in the worker process only."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction

import av
import numpy as np

from cg_cli.media.clip import SAMPLE_RATE
from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.demux import decode_packet, timeline_packets, use_one_thread
from cg_cli.media.downmix import Downmixer, weights_of
from cg_cli.media.source import open_media
from cg_cli.media.timeline import Timeline

DRIFT_S = Fraction(1, 10)  # timestamps may wander this far from the sample count before silence or a cut corrects them
ENCODER_DELAY_S = Fraction(1, 10)  # audio up to this much before the video's start goes without a warning
MAX_OVERLAP_S = 10  # audio that jumps back further is a restarted clock, not an overlap
MAX_SILENCE_S = 3600  # silence put into gaps, at most: beyond it a timestamp is not believed
EARLY = "the sound starts before the picture: {sum:.2f} s of it were left out"
OVERLAPS = "the sound overlaps itself{times}: {sum:.2f} s of it were left out"
JUMPS = "the sound's clock jumps{times}, by {sum:.1f} s: the parts were joined"
BLOCK = SAMPLE_RATE  # samples in a message: few enough to stay small, many enough to be few


def audio_blocks(
    path: str,
    display_path: str,
    timeline: Timeline,
    origin: Fraction | None,
    errors: DecodeErrors,
    stereo_gain: float = 0.5,
) -> Iterator[np.ndarray]:
    """[S] float32 blocks at SAMPLE_RATE, one after the other from ``origin`` on (seconds, file's clock; None: the first
    sample).

    A late start and gaps become silence, audio before the origin is left out; ``errors.notes`` tells both.
    ``stereo_gain``: as in ``DecodeOptions``. Raises as ``open_media``.
    """
    with open_media(path, display_path) as container:
        stream = container.streams[timeline.stream_index]
        use_one_thread(stream)
        aligner = _Aligner(origin, errors, stereo_gain)
        for packet in timeline_packets(container, [timeline], errors):
            for frame in decode_packet(packet, "sound", errors):
                time = None if frame.pts is None else frame.pts * stream.time_base
                if time is not None and time > timeline.end + DRIFT_S:  # an outlier; the samples may be good
                    time = None
                yield from aligner.add(frame, time)
        yield from aligner.finish()


class _Aligner:
    """Places resampled frames by their timestamps: a run of frames is resampled as one, a jump starts a new run."""

    def __init__(self, origin: Fraction | None, errors: DecodeErrors, stereo_gain: float):
        self.origin = origin
        self.errors = errors
        self.stereo_gain = stereo_gain
        self.resampler: av.AudioResampler | None = None
        self.input_format: tuple | None = None
        self.expected: Fraction | None = None  # where the next frame of the run should start, file's clock
        self.shift = Fraction(0)  # added to timestamps after the clock restarted
        self.emitted = 0  # samples from the origin on, silence included
        self.skip = 0  # samples of the run still to leave out
        self.silence = 0
        self.downmixer = Downmixer()

    def add(self, frame: av.AudioFrame, time: Fraction | None) -> Iterator[np.ndarray]:
        """Blocks that became ready with ``frame``, which starts at ``time`` seconds (None: behind the one before)."""
        if time is None:
            time = self.expected if self.expected is not None else (self.origin or Fraction(0))
        else:
            time += self.shift
        if self.origin is None:
            self.origin = time
        input_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        jumped = self.expected is None or abs(time - self.expected) > DRIFT_S
        start = time if self.expected is None else self.expected
        if self.resampler is None or jumped or input_format != self.input_format:
            yield from self._flush()
            # Interleaved: PyAV 18.1 misreads the planes of eight channels.
            self.resampler = av.AudioResampler(format="flt", rate=SAMPLE_RATE, frame_size=BLOCK)
            self.input_format = input_format
            if jumped:
                time = yield from self._jump(time, self.origin)
            start = time
        yield from self._aligned(self.resampler.resample(frame))
        self.expected = start + Fraction(frame.samples, frame.sample_rate)

    def finish(self) -> Iterator[np.ndarray]:
        """The resampler's rest; then notes how much silence was inserted."""
        yield from self._flush()
        if self.silence > DRIFT_S * SAMPLE_RATE:
            seconds = self.silence / SAMPLE_RATE
            self.errors.notes.append(f"{seconds:.1f} s of sound are missing between its parts and became silence")
        if self.downmixer.cancelled_s:
            self.errors.notes.append(
                f"the sound's channels cancel each other for {self.downmixer.cancelled_s:.1f} s: "
                "the louder one was used there"
            )

    def _jump(self, time: Fraction, origin: Fraction) -> Generator[np.ndarray, None, Fraction]:
        """Aligns the samples with a frame at ``time``; returns that time after corrections of the clock."""
        gap = round((time - origin) * SAMPLE_RATE) - self.emitted
        started = self.expected is not None
        if gap > (MAX_SILENCE_S * SAMPLE_RATE - self.silence) or (started and gap < -MAX_OVERLAP_S * SAMPLE_RATE):
            self.errors.count(JUMPS, abs(gap) / SAMPLE_RATE)
            self.errors.add_undecodable("sound")
            self.shift -= Fraction(gap, SAMPLE_RATE)
            return time - Fraction(gap, SAMPLE_RATE)
        if gap < 0:
            self.skip = -gap
            if -gap > (DRIFT_S if started else ENCODER_DELAY_S) * SAMPLE_RATE:
                self.errors.count(OVERLAPS if started else EARLY, -gap / SAMPLE_RATE)
        for begin in range(0, gap, BLOCK):
            yield np.zeros(min(BLOCK, gap - begin), np.float32)
        self.emitted += max(gap, 0)
        if started:  # a late start is no loss
            self.silence += max(gap, 0)
        return time

    def _flush(self) -> Iterator[np.ndarray]:
        if self.resampler is not None:
            yield from self._aligned(self.resampler.resample(None))
            self.resampler = None

    def _aligned(self, resampled: list[av.AudioFrame]) -> Iterator[np.ndarray]:
        for frame in resampled:
            channels = frame.to_ndarray().reshape(frame.samples, -1)[self.skip :].T
            self.skip -= min(self.skip, frame.samples)
            samples = self.downmixer.mix(channels, weights_of(frame.layout, self.stereo_gain))
            if not np.isfinite(samples).all():
                self.errors.add_undecodable("sound")
                samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
            self.emitted += len(samples)
            if len(samples):
                yield np.ascontiguousarray(samples, np.float32)
