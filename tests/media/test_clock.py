"""Files whose clock is not that of one plain recording: cut without encoding, appended to each other, sparse."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile
from helpers.media_files import beeps, cut_without_encoding, number_of, steady, write
from media.test_audio import starts

from cg_cli.media import SAMPLE_RATE, DecodeOptions
from cg_cli.media.transcode import transcode

FAST_VP9 = {"deadline": "realtime", "cpu-used": "8"}


@pytest.fixture(scope="module")
def whole(folder):
    """8 s, a keyframe every 2 s, B-frames."""
    return write(
        folder / "whole.mp4", times=steady(8), sound=beeps(8, 48_000), gop=50, codec_options={"bf": "2"}
    )  # fmt: skip


def numbers(clip) -> list[int]:
    return [number_of(frame) for frame in clip.frames]


@pytest.mark.parametrize("start_s", [3.3, 2.04, 5.9])
@pytest.mark.parametrize(
    ("name", "options"), [("cut.mp4", {}), ("cut.mov", {}), ("cut.mkv", {"avoid_negative_ts": "disabled"})]
)
def test_a_film_cut_between_keyframes_is_shown_from_the_cut(worker, whole, folder, start_s, name, options):
    path = cut_without_encoding(whole, folder / f"{start_s}_{name}", start_s, **options)
    clip, probe = worker.decode(path, DecodeOptions(fps=5.0)), worker.probe(path)
    assert clip.complete and clip.warnings == () and clip.duration_s == pytest.approx(8 - start_s, abs=0.06)
    assert probe.duration_s == pytest.approx(clip.duration_s, abs=0.06)
    centres = (np.arange(len(clip.frames)) + 0.5) * clip.seconds_per_frame
    assert numbers(clip) == pytest.approx((start_s + centres) * 25 - 0.5, abs=1.1)
    # The sound is in step with the picture.
    assert starts(clip.audio) == pytest.approx(np.arange(np.ceil(start_s), 8) - start_s, abs=0.05)


def test_a_cut_film_is_sought_through(worker, folder):
    source = write(folder / "many_keys.mp4", times=steady(40, fps=10), gop=5, codec_options={"bf": "2"})
    path = cut_without_encoding(source, folder / "many_keys_cut.mp4", 10.3)
    clip = worker.decode(path, DecodeOptions(max_frames=10))
    assert clip.complete and clip.warnings == () and clip.duration_s == pytest.approx(29.7, abs=0.15)
    assert numbers(clip) == pytest.approx(103 + (np.arange(10) + 0.5) * 29.7 - 0.5, abs=1.1)


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [
        ("ts", dict(codec_options={"bf": "2"})),
        ("mkv", {}),
        ("webm", dict(codec="libvpx-vp9", codec_options=FAST_VP9, sound_codec="libopus")),
    ],
)  # fmt: skip
def test_films_appended_to_each_other_are_one_film(worker, folder, suffix, settings):
    parts = [
        write(folder / f"part{seconds}.{suffix}", times=steady(seconds), sound=beeps(seconds, 48_000), **settings)
        for seconds in (4, 1, 3)
    ]
    path = folder / f"appended.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = worker.decode(path, DecodeOptions(fps=5.0))
    assert clip.complete and clip.duration_s == pytest.approx(8, abs=0.15)
    assert worker.probe(path).duration_s == pytest.approx(clip.duration_s, abs=0.05)
    assert len(clip.warnings) == 1 and "3 recordings" in clip.warnings[0]
    times = (np.arange(40) + 0.5) / 5
    expected = 25 * np.select([times < 4, times < 5], [times, times - 4], times - 5) - 0.5
    close = np.abs(np.subtract(numbers(clip), expected)) <= 3  # at a joint, the frame of either part
    assert close.sum() >= 38
    assert clip.audio_s == pytest.approx(8, abs=0.15)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mov", "libx264"), ("flv", "libx264"), ("wmv", "wmv2")]
)
def test_what_no_demuxer_reads_of_appended_files_is_told(worker, folder, suffix, codec):
    part = write(folder / f"single.{suffix}", times=steady(4), codec=codec)
    path = folder / f"appended_{suffix}.{suffix}"
    path.write_bytes(part.read_bytes() + part.read_bytes())
    assert worker.decode(part).complete
    clip = worker.decode(path)
    assert not clip.complete and clip.duration_s == pytest.approx(4, abs=0.15)
    assert clip.warnings == (
        f"another file follows in it, whose {part.stat().st_size:,} bytes are not read: give each its own name",
    )


def test_appended_sound_is_read_or_told(worker, folder):
    sound = beeps(3, 16_000)
    for suffix in ("wav", "mp3"):
        soundfile.write(folder / f"single.{suffix}", sound, 16_000)
        part = (folder / f"single.{suffix}").read_bytes()
        (folder / f"appended.{suffix}").write_bytes(part + part)
        clip = worker.decode(folder / f"appended.{suffix}")
        if suffix == "mp3":
            assert clip.complete and clip.duration_s == pytest.approx(6, abs=0.2) and clip.warnings == ()
        else:
            assert not clip.complete and f"{len(part):,} bytes are not read" in clip.warnings[0]


def test_sound_of_appended_films_is_in_its_place(worker, folder, tmp_path):
    first = write(folder / "first.ts", times=steady(8), sound=beeps(8, 48_000), codec_options={"bf": "2"})
    second = write(folder / "second.ts", times=steady(6), sound=beeps(6, 48_000))
    path = folder / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    clip = worker.decode(path)
    assert starts(clip.audio) == pytest.approx(range(14), abs=0.05) and clip.complete
    transcode(str(path), tmp_path / "painted.mp4", lambda frame, time: frame)
    painted = worker.decode(tmp_path / "painted.mp4")
    assert painted.duration_s == pytest.approx(14, abs=0.1)
    assert np.abs(np.subtract(numbers(painted), numbers(clip))).max() <= 1


@pytest.mark.parametrize(("suffix", "codec"), [("ogg", "libopus"), ("oga", "flac")])
def test_chained_ogg_is_one_recording(worker, folder, suffix, codec):
    part = write(folder / f"link_{codec}.{suffix}", sound=beeps(2, 48_000), sound_codec=codec)
    path = folder / f"chain_{codec}.{suffix}"
    path.write_bytes(part.read_bytes() * 5)
    clip = worker.decode(path)
    assert clip.complete and clip.audio_s == pytest.approx(10, abs=0.1)
    assert len(clip.warnings) == 1 and "5 recordings" in clip.warnings[0]
    loud = np.abs(clip.audio[: 10 * SAMPLE_RATE]).reshape(10, -1).max(1)  # every second has its beep
    assert (loud > 0.05).all()


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_slideshow_with_b_frames_is_whole(worker, folder, suffix):
    times = [index * 7.0 for index in range(12)]
    path = write(folder / f"slides.{suffix}", times=times, codec_options={"bf": "3", "b_strategy": "0"})
    clip = worker.decode(path, DecodeOptions(max_frames=24))
    assert clip.complete and clip.warnings == ()
    centres = (np.arange(24) + 0.5) * clip.seconds_per_frame
    assert numbers(clip) == [int(time // 7) for time in centres]


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.m4a", "aac", 48_000), ("a.mp3", "libmp3lame", 44_100), ("a.ogg", "libopus", 48_000), ("a.mka", "aac", 48_000)],
)
def test_priming_and_padding_of_sound_are_not_sound(worker, folder, name, codec, rate):
    seconds = 3.217
    path = write(folder / f"primed_{name}", sound=beeps(seconds, rate), sound_codec=codec, sound_rate=rate)
    clip = worker.decode(path)
    assert clip.audio_s == pytest.approx(seconds, abs=0.03) and starts(clip.audio) == pytest.approx(range(4), abs=0.01)


def boxes(data: bytearray, start: int, end: int, kind: bytes) -> list[tuple[int, int]]:
    """(offset, length) of the boxes of a kind among those from ``start`` to ``end``."""
    spans = []
    while start < end:
        length = int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] == kind:
            spans.append((start, length))
        start += length
    return spans


def with_edits(source, target, edits: list[list[tuple[float, float]]]):
    """An mp4 of ours (its index at the end) with other edit lists: of each track (seconds, from media time, -1 for
    nothing)."""
    data = bytearray(source.read_bytes())
    (moov,) = boxes(data, 0, len(data), b"moov")
    tracks = boxes(data, moov[0] + 8, sum(moov), b"trak")
    for (track, length), edit in reversed(list(zip(tracks, edits))):
        ((edts, old),) = boxes(data, track + 8, track + length, b"edts")
        ((mdia, size),) = boxes(data, track + 8, track + length, b"mdia")
        ((mdhd, _),) = boxes(data, mdia + 8, mdia + size, b"mdhd")
        scale = int.from_bytes(data[mdhd + 20 : mdhd + 24], "big")
        entries = b"".join(
            struct.pack(">IiI", round(seconds * 1000), round(start * scale) if start >= 0 else -1, 1 << 16)
            for seconds, start in edit
        )
        elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edit)) + entries
        data[edts : edts + old] = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
        for box in (moov[0], track):
            grown = int.from_bytes(data[box : box + 4], "big") + 8 + len(elst) - old
            data[box : box + 4] = grown.to_bytes(4, "big")
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(
    ("name", "edits", "seconds", "expected"),
    [
        ("two", [[(2, 1.08), (1, 5.08)], [(2, 1), (1, 5)]], 3, [31, 43, 56, 68, 131, 143]),
        ("swapped", [[(1, 5.08), (2, 1.08)], [(1, 5), (2, 1)]], 3, [131, 143, 31, 43, 56, 68]),
        ("trimmed", [[(3, 0.08)], [(3, 0)]], 3, [6, 18, 31, 43, 56, 68]),
        ("late_sound", [[(8, 0.08)], [(1, -1), (7, 0)]], 8, [6 + round(12.5 * index) for index in range(16)]),
    ],
)
def test_edit_lists_are_followed(worker, whole, folder, name, edits, seconds, expected):
    clip = worker.decode(with_edits(whole, folder / f"edits_{name}.mp4", edits))
    assert clip.complete and clip.warnings == () and clip.duration_s == pytest.approx(seconds, abs=0.05)
    assert numbers(clip) == pytest.approx(expected, abs=1)
    first = 1 if name == "late_sound" else 0
    assert starts(clip.audio) == pytest.approx(np.arange(first, seconds), abs=0.05)


def test_a_part_without_sound_keeps_the_others_in_step(worker, folder):
    loud = write(folder / "loud.ts", times=steady(3), sound=beeps(3, 48_000))
    mute = write(folder / "mute.ts", times=steady(3))
    far = write(folder / "far.ts", times=steady(3, start_s=900), sound=beeps(3, 48_000), sound_start_s=900)
    path = folder / "mixed.ts"
    path.write_bytes(loud.read_bytes() + mute.read_bytes() + far.read_bytes())
    clip = worker.decode(path)
    assert clip.complete and clip.duration_s == pytest.approx(9, abs=0.1)
    assert starts(clip.audio) == pytest.approx([0, 1, 2, 6, 7, 8], abs=0.06)
    assert numbers(clip) == pytest.approx([6, 18, 31, 43, 56, 68] * 3, abs=2)


def test_a_sparse_transport_stream_is_no_joined_one(worker, folder):
    times = [1 + index * 12.0 for index in range(12)]
    slides = write(folder / "slides.ts", times=times, sound=beeps(140, 48_000), sound_start_s=1.0)
    clip = worker.decode(slides, DecodeOptions(max_frames=36))
    assert clip.complete and clip.warnings == () and clip.duration_s == pytest.approx(140, abs=13)
    centres = (np.arange(36) + 0.5) * clip.seconds_per_frame
    assert numbers(clip) == pytest.approx([min(11, time // 12) for time in centres], abs=0)


def test_a_pause_of_the_sound_alone_is_a_pause(worker, folder):
    times = steady(40, fps=5, start_s=1)
    path = write(folder / "pause.ts", times=times, sound=beeps(40, 48_000), sound_start_s=1.0, gap=(8.0, 30.0))
    clip = worker.decode(path)
    assert clip.duration_s == pytest.approx(40, abs=0.3)
    assert starts(clip.audio) == pytest.approx([*range(8), *range(30, 40)], abs=0.06)
    assert len(clip.warnings) == 1 and "missing" in clip.warnings[0]
