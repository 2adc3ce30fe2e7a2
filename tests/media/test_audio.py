from __future__ import annotations

import numpy as np
import pytest
from helpers.media_files import beeps, steady, write

from cg_cli.media import SAMPLE_RATE, DecodeOptions

pytestmark = pytest.mark.slow


def starts(audio: np.ndarray) -> np.ndarray:
    """Seconds at which a beep begins after at least 0.3 s of silence."""
    loud = np.flatnonzero(np.abs(audio) > 0.2)
    return loud[np.diff(loud, prepend=-SAMPLE_RATE) > 0.3 * SAMPLE_RATE] / SAMPLE_RATE


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("a.wav", "pcm_s16le", 44_100, "stereo"),
        ("native.wav", "pcm_f32le", 16_000, "mono"),
        ("eight.wav", "pcm_u8", 8_000, "mono"),
        ("a.flac", "flac", 48_000, "mono"),
        ("a.mp3", "libmp3lame", 44_100, "stereo"),
        ("a.m4a", "aac", 48_000, "5.1"),
        ("a.ogg", "libopus", 48_000, "stereo"),
        ("a.aac", "aac", 32_000, "mono"),
    ],
)
def test_a_sound_file_is_whole_and_in_time(worker, folder, name, codec, rate, layout):
    path = write(
        folder / f"sound_{name}", sound=beeps(5, rate), sound_codec=codec, sound_rate=rate, sound_layout=layout
    )
    clip = worker.decode(path)
    assert clip.frames is None and clip.frame_times is None and clip.source_width == 0
    assert clip.audio_status == "used" and clip.audio.dtype == np.float32 and clip.complete
    delay = 0.12 if codec == "aac" else 0.03  # raw AAC does not state its encoder's delay
    assert clip.audio_s == clip.duration_s == pytest.approx(5, abs=delay)
    assert starts(clip.audio) == pytest.approx(np.arange(5), abs=delay)


def test_five_minutes_and_a_second_are_not_cut(worker, folder):
    path = write(
        folder / "301.mka",
        sound=beeps(301, 16_000),
        sound_codec="pcm_s16le",
        sound_rate=16_000,
        container_format="matroska",
    )
    clip = worker.decode(path)
    assert clip.audio_s == pytest.approx(301, abs=0.1) and len(starts(clip.audio)) == 301


@pytest.mark.parametrize("extension", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("offset", [1.5, 0.25])
def test_late_sound_is_moved_to_its_place(worker, folder, extension, offset):
    path = write(
        folder / f"late_{offset}.{extension}",
        times=steady(4),
        sound=beeps(2, 48_000),
        sound_start_s=offset,
        codec_options={"bf": "0"},
    )
    clip = worker.decode(path)
    assert starts(clip.audio) == pytest.approx([offset, offset + 1], abs=0.05)
    assert not np.abs(clip.audio[: int((offset - 0.05) * SAMPLE_RATE)]).max() > 0.01
    assert clip.duration_s == pytest.approx(4, abs=0.05) and clip.warnings == ()


def test_sound_before_the_picture_is_left_out_aloud(worker, folder):
    path = write(folder / "early.mkv", times=steady(4, start_s=2), sound=beeps(6, 48_000))
    clip = worker.decode(path)
    assert starts(clip.audio) == pytest.approx([0, 1, 2, 3], abs=0.05)
    assert clip.audio_s == pytest.approx(4, abs=0.1)
    assert len(clip.warnings) == 1 and "2.00 s" in clip.warnings[0]


def test_sound_longer_and_shorter_than_the_film(worker, folder):
    longer = worker.decode(write(folder / "longer.mp4", times=steady(2), sound=beeps(5, 48_000)))
    assert longer.duration_s == longer.audio_s == pytest.approx(5, abs=0.05)
    assert longer.seconds_per_frame * len(longer.frames) == pytest.approx(2, abs=0.01)
    shorter = worker.decode(write(folder / "shorter.mp4", times=steady(5), sound=beeps(2, 48_000)))
    assert shorter.duration_s == pytest.approx(5, abs=0.01) and shorter.audio_s == pytest.approx(2, abs=0.05)


def test_a_hole_in_the_sound_becomes_silence(worker, folder):
    path = write(
        folder / "hole.mkv",
        times=steady(6),
        sound=beeps(6, 16_000),
        sound_codec="pcm_s16le",
        sound_rate=16_000,
        gap=(1.5, 3.7),
    )
    clip = worker.decode(path)
    assert starts(clip.audio) == pytest.approx([0, 1, 4, 5], abs=0.01)
    assert clip.audio_s == pytest.approx(6, abs=0.01)
    assert len(clip.warnings) == 1 and "2.2 s" in clip.warnings[0]


def test_sound_can_be_left_out(worker, talkie):
    clip = worker.decode(talkie, DecodeOptions(audio=False))
    assert clip.audio is None and clip.audio_status == "off" and clip.audio_s == 0 and clip.frames is not None


def test_levels_survive(worker, folder):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000).astype(np.float32)
    clip = worker.decode(write(folder / "tone.wav", sound=tone, sound_codec="pcm_f32le", sound_rate=16_000))
    assert clip.audio == pytest.approx(tone, abs=1e-6)
    stereo = write(
        folder / "tone48.wav",
        sound=np.repeat(tone, 3),
        sound_codec="pcm_s16le",
        sound_rate=48_000,
        sound_layout="stereo",
    )
    assert np.abs(worker.decode(stereo).audio).max() == pytest.approx(0.5, abs=0.1)
