from __future__ import annotations

import random

import av
import numpy as np
import pytest
from helpers.media_files import beeps, number_of, steady, write

from cg_cli.errors import ItemError
from cg_cli.media.integrity import is_truncated

pytestmark = pytest.mark.slow

SECONDS = 6
KINDS = {
    "faststart.mp4": dict(container_options={"movflags": "faststart"}),
    "fragmented.mp4": dict(container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "film.mkv": {},
    "film.ts": {},
    "film.avi": dict(codec="mpeg4", sound_codec="libmp3lame"),
    "sound.wav": dict(times=None, sound_codec="pcm_s16le"),
    "sound.mp3": dict(times=None, sound_codec="libmp3lame"),
    "sound.ogg": dict(times=None, sound_codec="libopus"),
    "sound.flac": dict(times=None, sound_codec="flac", noise=True),
}


@pytest.fixture(scope="module")
def healthy(folder):
    """Kind -> a whole file of that kind."""

    def make(name: str, noise: bool = False, **settings):
        sound = beeps(SECONDS, 48_000)
        if noise:  # flac leaves nothing of silence to cut
            sound = np.random.default_rng(0).uniform(-0.5, 0.5, len(sound)).astype(np.float32)
        return write(folder / f"healthy_{name}", **dict(times=steady(SECONDS), sound=sound, size=(160, 96)) | settings)

    return {name: make(name, **settings) for name, settings in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_file_is_complete(worker, healthy, name):
    clip = worker.decode(healthy[name])
    assert clip.complete and clip.warnings == () and clip.duration_s == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
@pytest.mark.parametrize("name", KINDS)
def test_a_cut_file_gives_what_is_left_and_says_so(worker, healthy, name, share):
    data = healthy[name].read_bytes()
    path = healthy[name].with_name(f"cut_{share}_{name}")
    path.write_bytes(data[: int(len(data) * share) | 1])  # an odd size: not between two packets of a transport stream
    clip = worker.decode(path)
    assert not clip.complete
    assert any("cut off" in line for line in clip.warnings)
    assert 0.1 * SECONDS < clip.duration_s < SECONDS - 0.1 and clip.audio_s > 0
    if clip.frames is not None:
        numbers = [number_of(frame) for frame in clip.frames]
        assert numbers == sorted(numbers) and clip.frame_times[-1] < clip.duration_s


@pytest.mark.parametrize("name", ["faststart.mp4", "film.mkv", "film.ts", "film.avi"])
def test_damage_in_the_middle_is_skipped_and_counted(worker, healthy, name):
    data = bytearray(healthy[name].read_bytes())
    middle, length = len(data) // 2, len(data) // 20
    data[middle : middle + length] = random.Random(1).randbytes(length)
    path = healthy[name].with_name(f"damaged_{name}")
    path.write_bytes(data)
    clip = worker.decode(path)
    assert not clip.complete and clip.warnings
    assert clip.duration_s == pytest.approx(SECONDS, abs=0.8)
    assert number_of(clip.frames[-1]) > 0.8 * SECONDS * 25  # what lies behind the damage was read
    assert clip.audio_status == "used" and clip.audio_s > 0.8 * SECONDS


@pytest.mark.parametrize("name", ["faststart.mp4", "film.mkv", "film.ts", "film.avi", "sound.ogg", "sound.mp3"])
def test_random_damage_never_gets_through_silently_broken(worker, healthy, name):
    """Whatever is flipped: a usable Clip or one line, from a worker that goes on."""
    data = healthy[name].read_bytes()
    path = healthy[name].with_name(f"flipped_{name}")
    draw = random.Random(11)
    for _ in range(6):
        broken = bytearray(data)
        for _ in range(40):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        path.write_bytes(broken)
        try:
            clip = worker.decode(path)
        except ItemError as error:
            assert error.stage == "media" and "\n" not in str(error)
            continue
        assert clip.frames is not None or clip.audio is not None
        assert clip.audio is None or np.isfinite(clip.audio).all()
        assert clip.duration_s > 0


def ruin_packets(path, **stream):
    """Overwrite every packet of one stream, chosen as for ``container.demux``, in place."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(**stream) if packet.size]
    for position, size in spans:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)


def test_sound_without_any_readable_packet_is_failed_not_used(worker, healthy, folder):
    whole = write(folder / "silent_track.mp4", times=steady(2), sound=beeps(2, 48_000))
    ruin_packets(whole, audio=0)
    clip = worker.decode(whole)
    assert clip.audio_status == "failed" and clip.audio is None and clip.frames is not None
    assert not clip.complete and any("sound" in line for line in clip.warnings)


def test_pictures_without_any_readable_packet_leave_the_sound(worker, folder):
    whole = write(folder / "no_picture.mp4", times=steady(2), sound=beeps(2, 48_000))
    ruin_packets(whole, video=0)
    clip = worker.decode(whole)
    assert clip.frames is None and clip.audio_status == "used"
    assert not clip.complete and any("picture" in line for line in clip.warnings)


@pytest.mark.parametrize(
    "name", ["faststart.mp4", "fragmented.mp4", "film.mkv", "film.ts", "film.avi", "sound.wav", "sound.ogg"]
)
def test_structure_shows_nearly_every_cut(healthy, tmp_path, name):
    formats = {"mp4": "mov,mp4", "mkv": "matroska,webm", "ts": "mpegts"}
    extension = name.split(".")[1]
    known = formats.get(extension, extension)
    data = healthy[name].read_bytes()

    def verdict(size: int) -> bool:
        path = tmp_path / "part"
        path.write_bytes(data[:size])
        with open(path, "rb", buffering=0) as file:
            return is_truncated(file, known)

    assert not verdict(len(data))
    sizes = random.Random(5).sample(range(len(data) // 10, len(data) - 1), 50)
    assert sum(verdict(size) for size in sizes) >= 48  # a cut exactly between two boxes or packets cannot be seen
