"""A synthetic clip, moving noise and a tone, for devices without videos at hand."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np

from cg_cli.errors import UsageError
from cg_cli.media.clip import SAMPLE_RATE, Clip, DecodeOptions
from cg_cli.media.sizes import fit_size, frame_count

SOURCE = 1280, 720  # pixels, before resizing
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?")
_UNITS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def seconds(text: str) -> float:
    """``60s``, ``2m`` or plain seconds. UsageError for anything else."""
    match = _LENGTH.fullmatch(text.strip())
    if not match or not float(match[1]):
        raise UsageError(f"--synthetic {text}: give a length such as 60s or 2m")
    return float(match[1]) * _UNITS[match[2]]


def clip(length_s: float, options: DecodeOptions) -> Clip:
    """``length_s`` seconds, as ``media.decode`` would return them for a 1280 x 720 video with sound; the same in every
    run."""
    rng = np.random.default_rng(0)
    count = frame_count(Fraction(length_s), options)
    width, height = fit_size(*SOURCE, options.frame_pixels(count), options.side_multiple)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    frames = np.stack([np.roll(image, 4 * number, axis=1) for number in range(count)])
    frames[::8] = rng.integers(0, 256, frames[::8].shape, dtype=np.uint8)  # scene cuts
    time = np.arange(round(length_s * SAMPLE_RATE)) / SAMPLE_RATE
    audio = (0.2 * np.sin(2 * np.pi * 440 * time) + 0.02 * rng.standard_normal(len(time))).astype(np.float32)
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
