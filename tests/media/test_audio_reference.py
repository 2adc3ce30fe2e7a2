"""Decoded audio against an independent reader: libsndfile, through soundfile."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from cg_cli.media import SAMPLE_RATE

SECONDS = 2
# libswresample's default filter is a Kaiser window with beta = 9 over 32 taps at the lower of the two rates. Kaiser's
# formula beta = 0.1102 (A - 8.7) gives its attenuation in dB, and its transition band, as a share of the rate, is
# (A - 8) / (2.285 * 2 pi * taps); the cutoff is 0.97 of half the rate.
BETA, TAPS, CUTOFF = 9, 32, 0.97
ATTENUATION_DB = BETA / 0.1102 + 8.7
RIPPLE = 10 ** (-ATTENUATION_DB / 20)  # 3e-5, of the amplitude
PASS_BAND = CUTOFF / 2 - (ATTENUATION_DB - 8) / (2.285 * 2 * np.pi * TAPS) / 2  # 0.39 of the lower rate


def tones(rate: int, channels: int) -> np.ndarray:
    """[S, channels] float64, each channel its own tones at whole hertz inside the pass band of ``rate`` -> 16 kHz."""
    time = np.arange(SECONDS * rate) / rate
    top = PASS_BAND * min(rate, SAMPLE_RATE)
    shares = np.array([0.03, 0.2, 0.5, 0.97])[:, None] + 0.007 * np.arange(channels)
    hertz = np.round(shares * top)[:, None, :]
    return 0.2 * np.sin(2 * np.pi * hertz * time[:, None] + np.arange(4)[:, None, None]).sum(0)


def resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """``samples`` [S] at SAMPLE_RATE by an ideal filter: exact for tones that are periodic in S, below both bands."""
    spectrum = np.fft.rfft(samples)
    count = len(samples) * SAMPLE_RATE // rate
    spectrum = np.pad(spectrum, (0, max(0, count // 2 + 1 - len(spectrum))))[: count // 2 + 1]
    return np.fft.irfft(spectrum, count) * (count / len(samples))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", s) for s in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")]
    + [("flac", s) for s in ("PCM_S8", "PCM_16", "PCM_24")],
)
def test_audio_at_16_khz_is_what_libsndfile_reads(worker, tmp_path, suffix, subtype, channels):
    path = tmp_path / f"reference.{suffix}"
    soundfile.write(path, tones(SAMPLE_RATE, channels), SAMPLE_RATE, subtype)
    reference, rate = soundfile.read(path, dtype="float64", always_2d=True)
    clip = worker.decode(path)
    assert rate == SAMPLE_RATE and clip.complete and clip.duration_s == SECONDS
    # A sample of up to 24 bits is a float32, and one channel is copied. More bits, and a mean, are rounded once each.
    exact = channels == 1 and subtype not in ("PCM_32", "DOUBLE")
    bound = 0 if exact else 2 * np.finfo(np.float32).eps
    assert np.abs(clip.audio - reference.mean(1)).max() <= bound


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampled_audio_is_that_of_an_ideal_filter(worker, tmp_path, rate, subtype, channels):
    path = tmp_path / "reference.wav"
    soundfile.write(path, tones(rate, channels), rate, subtype)
    reference = resampled(soundfile.read(path, dtype="float64", always_2d=True)[0].mean(1), rate)
    audio = worker.decode(path).audio
    assert len(audio) == len(reference) == SECONDS * SAMPLE_RATE
    inside = slice(2 * TAPS, -2 * TAPS)  # nothing precedes the first sample, while the reference is periodic
    amplitude = 4 * 0.2
    quantization = 2**-16 if subtype == "PCM_16" else 0  # half a step, of which the two filters keep different parts
    assert np.abs(audio - reference)[inside].max() <= amplitude * RIPPLE + quantization
