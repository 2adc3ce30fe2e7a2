"""The Clip: the decoded frames and audio of a media file. Plain numpy; this package knows no model and imports no
torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cg_cli.errors import UsageError
from cg_cli.media import defaults

MEDIA_VERSION = 2  # part of a record's key: raised when the same file and options give other frames or other sound
MAX_AUDIO_S = 7200  # sound beyond two hours is left out: five times what Qwen2.5-Omni has positions for, 440 MiB
SAMPLE_RATE = 16_000  # Hz, what every supported audio encoder reads
CPU, NVDEC = DECODERS = ("cpu", "nvdec")  # values of ``DecodeOptions.decoder``
ON_THE_CPU = "decoded on the CPU: "  # begins the warning that NVDEC was asked for in vain
HARDWARE = "hardware"  # kind of an ItemError that has the file decoded again, on the CPU; it reaches nobody
# Values of ``DecodeOptions.frames``.
UNIFORM, PAIRS, CHANGE, LINSPACE = FRAME_CHOICES = ("uniform", "pairs", "change", "linspace")


@dataclass(frozen=True)
class DecodeOptions:
    """How to turn a file into a Clip.

    Args:
        fps: frames sampled a second.
        max_frames: at most this many; a longer video is sampled more thinly.
        max_pixels: a frame's area after resizing, at most.
        side_multiple: both frame sides are multiples of this (the backbone's merged patch).
        frame_multiple: the number of frames is a multiple of this (the backbone's temporal patch).
        audio: False leaves the audio out (``audio_status`` "off").
        timeout_s: the decode worker is killed after this many seconds.
        min_frames: at least this many; a shorter video is sampled more densely. One multiple is the least in any case.
        video_pixels: the area of all frames together, at most; 0 for no such limit.
        audio_track: which sound track, counted from 1; 0 for the one that the file presents first (libav's choice).
        frames: where they stand if ``max_frames`` leaves some out: UNIFORM, all equally far apart; PAIRS, whole grids
            of ``frame_multiple`` frames, ``1 / fps`` apart, evenly spread; CHANGE, such grids, about half of them
            evenly spread and the others where the picture changes. As many frames in each case. LINSPACE: whatever
            their number, by frame numbers from the first to the last (``linspace``), without ``frame_multiple``.
        look_once: a grid of frames is not encoded again if none of its values, 0..255, differs by more than so many
            from the one that was encoded last (``repeats.grid_sources``); None: all are encoded.
        decoder: CPU, or NVDEC: on an NVIDIA GPU what it decodes to the same frames, else on the CPU, with a warning.
        spread_pixels: where fewer than ``max_frames`` are read, this share of ``max_frames * max_pixels`` is spread
            over them, so that they may be larger than ``max_pixels``; 0: they may not.
        audio_on_clock: the sound's sample 0 belongs to t = 0; False: it is its first one, whenever that is heard.
        stereo_gain: of each of two channels in the downmix: 0.5 is their mean (librosa's ``to_mono``), sqrt(0.5) keeps
            the power of unrelated channels (libswresample to floating point).

    UsageError for another word.
    """

    fps: float = defaults.FPS
    max_frames: int = defaults.MAX_FRAMES
    max_pixels: int = defaults.MAX_PIXELS
    side_multiple: int = 28
    frame_multiple: int = 2
    audio: bool = True
    timeout_s: float = defaults.TIMEOUT_S
    min_frames: int = 0
    video_pixels: int = 0
    audio_track: int = 0
    frames: str = UNIFORM
    look_once: int | None = 0
    decoder: str = CPU
    spread_pixels: float = 0.0
    audio_on_clock: bool = True
    stereo_gain: float = 0.5

    def __post_init__(self) -> None:
        if self.frames not in FRAME_CHOICES:
            raise UsageError(f"frames must be {UNIFORM}, {PAIRS}, {CHANGE} or {LINSPACE}, not {self.frames}")
        if self.decoder not in DECODERS:
            raise UsageError(f"decoder must be {' or '.join(DECODERS)}, not {self.decoder}")

    def frame_pixels(self, count: int) -> float:
        """A frame's area, at most, where there are ``count`` of them."""
        pixels: float = self.max_pixels
        if self.spread_pixels and count < self.max_frames:
            pixels *= self.spread_pixels * self.max_frames / count
        return min(pixels, self.video_pixels // count) if self.video_pixels else pixels


@dataclass(frozen=True)
class Clip:
    """One decoded file on one clock: t = 0 is the first frame; without video, the first audio sample.

    Attributes:
        path: as given.
        frames: [N, H, W, 3] uint8, RGB, upright; None for audio-only input.
        frame_times: [N] float64, seconds, the PTS of each frame used; None for audio-only input.
        seconds_per_frame: the video's own length / N, seconds; 0 without frames. The width of a sampling slot, where
            frames are evenly spaced.
        audio: [S] float32 mono at SAMPLE_RATE, sample 0 at t = 0 (see ``DecodeOptions.audio_on_clock``); None unless
            ``audio_status`` is "used".
        audio_status: "used", "absent", "off" or "failed".
        duration_s: later end of video and audio on that clock, from what the file really holds.
        source_width, source_height: displayed size in pixels (rotation applied); 0 without video.
        complete: False when part of the file could not be read.
        warnings: one line each, for the record.
        content: SHA-256 of the file that was read, in hex; "" where nobody asked for it.
        options: how it was read, where the reader says so.
        audio_track: the sound track used, counted from 1; None without.
        look_once: as in ``DecodeOptions``.
        grid_starts: [G] float64, seconds, where each whole grid of N / G frames starts; None where all frames are
            evenly spaced, and grid g starts at g * (frames of a grid) * seconds_per_frame.
    """

    path: str
    frames: np.ndarray | None
    frame_times: np.ndarray | None
    seconds_per_frame: float
    audio: np.ndarray | None
    audio_status: str
    duration_s: float
    source_width: int
    source_height: int
    complete: bool = True
    warnings: tuple[str, ...] = ()
    content: str = ""
    options: DecodeOptions | None = None
    audio_track: int | None = None
    grid_starts: np.ndarray | None = None
    look_once: int | None = None

    @property
    def audio_s(self) -> float:
        """Seconds of audio in use."""
        return 0.0 if self.audio is None else len(self.audio) / SAMPLE_RATE

    def with_grids(self, chosen: Sequence[int]) -> Clip:
        """The same clip with some of its whole grids, by their numbers, ascending; for one that has ``grid_starts``."""
        assert self.frames is not None and self.frame_times is not None and self.grid_starts is not None
        of_a_grid = len(self.frames) // len(self.grid_starts)
        index = (np.asarray(chosen)[:, None] * of_a_grid + np.arange(of_a_grid)).ravel()
        return replace(
            self,
            frames=self.frames[index],
            frame_times=self.frame_times[index],
            seconds_per_frame=self.seconds_per_frame * len(self.frames) / len(index),
            grid_starts=self.grid_starts[list(chosen)],
        )
