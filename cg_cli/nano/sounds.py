"""How the audible kinds of the nano world sound: short synthesisers, 16 kHz mono float32.

Every kind sounds the same in every clip up to pitch (within 6 %), tempo and loudness. Sound tells the kind of a thing
and nothing else about it.
"""

from __future__ import annotations

import numpy as np

RATE = 16_000  # Hz


def _repeat(event: np.ndarray, samples: int, period_s: float, phase: float) -> np.ndarray:
    """``event`` placed every ``period_s`` seconds, overlaps added, starting ``phase`` of a period late."""
    out = np.zeros(samples + len(event))
    period = int(period_s * RATE)
    for start in range(int(phase * period), samples, period):
        out[start : start + len(event)] += event
    return out[:samples]


def _decay(seconds: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    t = np.arange(int(seconds * RATE)) / RATE
    return t, np.exp(-rate * t)


def _lowpass(noise: np.ndarray, width: int) -> np.ndarray:
    return np.convolve(noise, np.ones(width) / width, mode="same")


def voice(kind: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """``seconds`` of the sound of ``kind``: [seconds * RATE] float32, peak 1."""
    samples = round(seconds * RATE)
    pitch, tempo, phase = rng.uniform(0.94, 1.06), rng.uniform(0.9, 1.1), rng.uniform(0, 0.3)
    t = np.arange(samples) / RATE
    match kind:
        case "bell":
            s, fall = _decay(1.2, 4)
            partials = zip((1, 2.0, 2.76, 5.4), (1, 0.6, 0.5, 0.25), (1, 1.4, 2, 3))
            event = np.zeros(len(s))
            for ratio, level, decay in partials:
                event += level * np.sin(2 * np.pi * 880 * pitch * ratio * s) * fall**decay
            wave = _repeat(event, samples, 0.9 / tempo, phase)
        case "drum":
            s, fall = _decay(0.3, 14)
            event = np.sin(2 * np.pi * (60 * s + 70 * pitch * (1 - np.exp(-12 * s)) / 12)) * fall
            event = event + 0.3 * rng.standard_normal(len(s)) * np.exp(-70 * s)
            wave = _repeat(event, samples, 0.45 / tempo, phase)
        case "siren":
            sweep = 850 + 350 * np.sin(2 * np.pi * 0.9 * tempo * t + 6 * phase)
            angle = 2 * np.pi * np.cumsum(sweep * pitch) / RATE
            wave = np.sin(angle) + 0.4 * np.sin(2 * angle)
        case "bird":
            s, _ = _decay(0.11, 1)
            chirp = np.sin(2 * np.pi * pitch * (3000 * s + 9000 * s**2)) * np.sin(np.pi * s / s[-1])
            event = np.concatenate([chirp, np.zeros(700), chirp, np.zeros(700), chirp])
            wave = _repeat(event, samples, 0.75 / tempo, phase)
        case "car":
            saw = 2 * ((70 * pitch * t) % 1) - 1
            rumble = _lowpass(rng.standard_normal(samples), 24)
            wave = _lowpass(saw, 8) + 1.2 * rumble * (1 + 0.5 * np.sin(2 * np.pi * 11 * tempo * t))
        case "clock":
            s, fall = _decay(0.04, 120)
            tick, tock = np.sin(2 * np.pi * 2600 * pitch * s) * fall, np.sin(2 * np.pi * 1900 * pitch * s) * fall
            gap = np.zeros(int(0.3 / tempo * RATE) - len(s))
            event = np.concatenate([tick, gap, tock, gap])
            wave = _repeat(event, samples, len(event) / RATE, phase)
        case "horn":
            tone = sum(np.sin(2 * np.pi * 311 * pitch * k * t) / k for k in (1, 2, 3, 4, 5))
            wave = tone * np.clip(4 * np.sin(2 * np.pi * 0.7 * tempo * t + 3 * phase) + 3, 0, 1)
        case "dog":
            s, _ = _decay(0.22, 1)
            angle = 2 * np.pi * pitch * (520 * s - 700 * s**2)
            bark = (np.sin(angle) + 0.7 * np.sin(2 * angle) + 0.6 * np.sin(3 * angle)) * np.sin(
                np.pi * s / s[-1]
            ) ** 0.5
            bark = bark + 0.5 * _lowpass(rng.standard_normal(len(s)), 5) * np.sin(np.pi * s / s[-1])
            wave = _repeat(np.concatenate([bark, np.zeros(1600), bark]), samples, 1.1 / tempo, phase)
        case _:
            raise ValueError(f"nothing is known to sound like {kind!r}")
    return (wave / max(np.abs(wave).max(), 1e-6)).astype(np.float32)
