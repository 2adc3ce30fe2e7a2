"""Sound as 16 kHz mono blocks on the film's clock, whole, however long. Runs in the worker process only."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from cg_cli.media.clip import SAMPLE_RATE
from cg_cli.media.damage import Damage
from cg_cli.media.scan import Scan, decode, packets, single_threaded
from cg_cli.media.source import open_media

DRIFT_S = Fraction(1, 10)  # timestamps may wander this far from the sample count before silence or a cut corrects them
LEAD_IN_S = Fraction(1, 20)  # encoder delay: sound up to this much before the film's start goes without a warning
MAX_OVERLAP_S = 10  # sound that jumps back further is a restarted clock, not an overlap
MAX_SILENCE_S = 3600  # silence put into gaps, at most: beyond it a timestamp is not believed
BLOCK = SAMPLE_RATE  # samples in a message: few enough to stay small, many enough to be few


def blocks(path: str, shown: str, scan: Scan, origin: Fraction | None, damage: Damage) -> Iterator[np.ndarray]:
    """[S] float32 blocks, one behind the other from ``origin`` on (file's clock, seconds; None: the first sound).

    A late start and gaps become silence, sound before the origin is left out; ``damage.notes`` says of both.
    """
    with open_media(path, shown) as container:
        stream = container.streams[scan.audio_index]
        single_threaded(stream)
        track = _Track(origin, damage)
        for packet in packets(container, [stream], damage):
            for frame in decode(packet, "sound", damage):
                time = None if frame.pts is None else frame.pts * stream.time_base
                if time is not None and time > scan.audio.end + DRIFT_S:  # a stray; the sound itself may be good
                    time = None
                yield from track.add(frame, time)
        yield from track.finish()


class _Track:
    """Places resampled frames by their timestamps: a run of frames is resampled as one, a jump starts a new run."""

    def __init__(self, origin: Fraction | None, damage: Damage):
        self.origin = origin
        self.damage = damage
        self.resampler: av.AudioResampler | None = None
        self.signature: tuple | None = None
        self.expected: Fraction | None = None  # where the next frame of the run should start, file's clock
        self.shift = Fraction(0)  # added to timestamps after the clock restarted
        self.placed = 0  # samples from the origin on, silence included
        self.skip = 0  # samples of the run still to leave out
        self.silence = 0

    def add(self, frame: av.AudioFrame, time: Fraction | None) -> Iterator[np.ndarray]:
        """Blocks that became ready with ``frame``, which starts at ``time`` seconds (None: behind the one before)."""
        if time is None:
            time = self.expected if self.expected is not None else (self.origin or Fraction(0))
        else:
            time += self.shift
        if self.origin is None:
            self.origin = time
        signature = (frame.format.name, frame.layout.name, frame.sample_rate)
        jumped = self.expected is None or abs(time - self.expected) > DRIFT_S
        if jumped or signature != self.signature:
            yield from self._flush()
            self.resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE, frame_size=BLOCK)
            self.signature = signature
            if jumped:
                time = yield from self._jump(time)
            self.expected = time
        yield from self._kept(self.resampler.resample(frame))
        self.expected += Fraction(frame.samples, frame.sample_rate)

    def finish(self) -> Iterator[np.ndarray]:
        """What the resampler still holds; then notes what was filled."""
        yield from self._flush()
        if self.silence > DRIFT_S * SAMPLE_RATE:
            seconds = self.silence / SAMPLE_RATE
            self.damage.notes.append(f"{seconds:.1f} s of sound are missing between its parts and became silence")

    def _jump(self, time: Fraction) -> Iterator[np.ndarray]:
        """Aligns the samples with a frame at ``time``; returns the time that it was given."""
        gap = round((time - self.origin) * SAMPLE_RATE) - self.placed
        started = self.expected is not None
        if gap > (MAX_SILENCE_S * SAMPLE_RATE - self.silence) or (started and gap < -MAX_OVERLAP_S * SAMPLE_RATE):
            self.damage.notes.append(f"the sound's clock jumps by {gap / SAMPLE_RATE:.1f} s: the parts were joined")
            self.damage.lose("sound")
            self.shift -= Fraction(gap, SAMPLE_RATE)
            return time - Fraction(gap, SAMPLE_RATE)
        if gap < 0:
            self.skip = -gap
            if -gap > (DRIFT_S if started else LEAD_IN_S) * SAMPLE_RATE:
                place = "overlaps itself" if started else "starts before the picture"
                self.damage.notes.append(f"the sound {place}: {-gap / SAMPLE_RATE:.2f} s of it were left out")
        for begin in range(0, gap, BLOCK):
            yield np.zeros(min(BLOCK, gap - begin), np.float32)
        self.placed += max(gap, 0)
        if started:  # a late start is no loss
            self.silence += max(gap, 0)
        return time

    def _flush(self) -> Iterator[np.ndarray]:
        if self.resampler is not None:
            yield from self._kept(self.resampler.resample(None))
            self.resampler = None

    def _kept(self, resampled: list[av.AudioFrame]) -> Iterator[np.ndarray]:
        for frame in resampled:
            # The mean of the channels, as librosa's to_mono: libswresample's own mono is 3 dB louder and can clip.
            samples = frame.to_ndarray().mean(axis=0)[self.skip :]
            self.skip -= min(self.skip, frame.samples)
            if not np.isfinite(samples).all():
                self.damage.lose("sound")
                samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
            self.placed += len(samples)
            if len(samples):
                yield samples.astype(np.float32, copy=False)
