"""How the heard surfaces of the ambience world sound: noise with a band, a modulation and grains, 16 kHz mono float32.

A recording has its own band (within 8 %), tempo (within 15 %) and grains; the class is in what they vary around.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cg_cli.nano.sounds import RATE


class Grains(NamedTuple):
    """Short events at random times: this many a second, decaying in so many seconds, each a tone between two pitches,
    this loud against the noise."""

    rate: float
    seconds: float
    low: float  # hertz
    high: float
    level: float


class Voice(NamedTuple):
    """Noise between two frequencies, how it swells, and its grains."""

    low: float  # hertz
    high: float
    hertz: float = 0.0  # of the swelling
    depth: float = 0.0  # 0..1
    grains: Grains | None = None


VOICES = {
    "rain": Voice(1200, 6500, grains=Grains(50, 0.006, 2000, 6000, 2.0)),
    "sea": Voice(80, 1500, 0.5, 0.95),
    "stream": Voice(350, 2400, 2.5, 0.3, Grains(12, 0.05, 500, 1600, 2.5)),
    "leaves": Voice(2800, 7800, 1.3, 0.85),
    "fire": Voice(40, 500, 1.0, 0.3, Grains(16, 0.004, 1500, 7000, 5.0)),
    "crowd": Voice(200, 1300, 4.5, 0.7, Grains(6, 0.12, 180, 420, 2.0)),
    "traffic": Voice(30, 260, 0.4, 0.6, Grains(0.8, 0.35, 380, 460, 1.5)),
    "snowstorm": Voice(450, 800, 0.8, 0.7),
    "engine": Voice(50, 220, 12.0, 0.95),
    "keyboards": Voice(1500, 3500, grains=Grains(9, 0.012, 2200, 3600, 40.0)),
    "frying": Voice(4500, 8000, grains=Grains(130, 0.003, 4000, 7500, 2.5)),
    "applause": Voice(700, 3200, grains=Grains(35, 0.012, 900, 2600, 4.0)),
}


def _band(samples: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Noise between ``low`` and ``high`` hertz of standard deviation 1."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / RATE)
    spectrum *= np.exp(-0.5 * np.clip(np.maximum(low - frequency, frequency - high) / (0.15 * low + 20), 0, None) ** 2)
    wave = np.fft.irfft(spectrum, samples)
    return wave / wave.std()


def voice(surface: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """One recording of ``surface``: [seconds * RATE] float32, peak 1."""
    samples, kind = round(seconds * RATE), VOICES[surface]
    pitch, tempo, phase = rng.uniform(0.92, 1.08), rng.uniform(0.85, 1.15), rng.uniform(0, 2 * np.pi)
    wave = _band(samples, kind.low * pitch, min(kind.high * pitch, RATE / 2), rng)
    time = np.arange(samples) / RATE
    wave *= 1 - kind.depth * (0.5 + 0.5 * np.sin(2 * np.pi * kind.hertz * tempo * time + phase))
    if kind.grains:
        rate, decay, low, high, level = kind.grains
        s = np.arange(round(5 * decay * RATE)) / RATE
        padded = np.zeros(samples + len(s))
        for start in rng.integers(samples, size=max(1, round(rate * tempo * seconds))):
            tone = np.sin(2 * np.pi * rng.uniform(low, high) * pitch * s + rng.uniform(0, 2 * np.pi))
            padded[start : start + len(s)] += rng.uniform(0.4, 1) * tone * np.exp(-s / decay)
        wave += level * padded[:samples]
    # Peaks are cut where they stand out by far, so that recordings are about equally loud.
    limit = min(np.abs(wave).max(), 4 * wave.std())
    return (np.clip(wave, -limit, limit) / limit).astype(np.float32)
