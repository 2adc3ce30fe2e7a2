"""A synthetic clip, moving noise and a tone, for devices without videos at hand; and one as a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from cg_cli.errors import UsageError
from cg_cli.media.clip import SAMPLE_RATE, Clip, DecodeOptions
from cg_cli.media.sizes import fit_size, frame_count

SOURCE = 1280, 720  # pixels, before resizing
FPS = 25  # frames a second of a file
BLOCK = 40  # pixels of a square of one colour in a file: noise would take an encoder for ever
AUDIO_FRAME = 1024  # samples of an AAC frame
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?")
_UNITS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def seconds(text: str) -> float:
    """``60s``, ``2m`` or plain seconds. UsageError for anything else."""
    match = _LENGTH.fullmatch(text.strip())
    if not match or not float(match[1]):
        raise UsageError(f"--synthetic {text}: give a length such as 60s or 2m")
    return float(match[1]) * _UNITS[match[2]]


def clip(length_s: float, options: DecodeOptions) -> Clip:
    """``length_s`` seconds, as ``media.decode`` would return them for a 1280 x 720 video with sound and evenly spaced
    frames; the same in every run."""
    rng = np.random.default_rng(0)
    count = frame_count(Fraction(length_s), options)
    width, height = fit_size(*SOURCE, options.frame_pixels(count), options.side_multiple)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    frames = np.stack([np.roll(image, 4 * number, axis=1) for number in range(count)])
    frames[::8] = rng.integers(0, 256, frames[::8].shape, dtype=np.uint8)  # scene cuts
    audio = _tone(length_s, rng)
    slot = length_s / count
    return Clip(
        path=f"synthetic {length_s:g} s",
        frames=frames,
        frame_times=(np.arange(count) + 0.5) * slot,
        seconds_per_frame=slot,
        audio=audio if options.audio else None,
        audio_status="used" if options.audio else "off",
        duration_s=length_s,
        source_width=SOURCE[0],
        source_height=SOURCE[1],
    )


def _tone(length_s: float, rng: np.random.Generator) -> np.ndarray:
    """[S] float32 at SAMPLE_RATE: 440 Hz and a little noise."""
    time = np.arange(round(length_s * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.2 * np.sin(2 * np.pi * 440 * time) + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


def write(path: Path, length_s: float) -> None:
    """An MP4 of SOURCE pixels with sound: squares of random colours that move to the left, and others after every
    second."""
    rng = np.random.default_rng(0)
    sound = _tone(length_s, rng)
    save(path, _squares(round(length_s * FPS), rng), sound, preset="ultrafast")


def _squares(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    width, height = SOURCE
    for number in range(count):
        if number % FPS == 0:
            squares = rng.integers(0, 256, (height // BLOCK, width // BLOCK, 3), dtype=np.uint8)
            image = squares.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
        image = np.roll(image, -4, axis=1)
        yield image


def save(path: Path, pictures: Iterable[np.ndarray], sound: np.ndarray, **options: str) -> None:
    """An MP4, H.264 and AAC.

    Args:
        pictures: [H, W, 3] uint8 each, of SOURCE pixels, FPS a second.
        sound: [S] float32 at SAMPLE_RATE.
        options: of libx264.
    """
    import av

    with av.open(str(path), "w", format="mp4") as file:
        video = file.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height = SOURCE
        video.pix_fmt = "yuv420p"
        audio = file.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            file.mux(video.encode(frame))
        for start in range(0, len(sound), AUDIO_FRAME):
            piece = av.AudioFrame.from_ndarray(sound[None, start : start + AUDIO_FRAME], format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            file.mux(audio.encode(piece))
        file.mux(video.encode(None))
        file.mux(audio.encode(None))
