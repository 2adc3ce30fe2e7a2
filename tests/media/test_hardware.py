"""Without a GPU: what is asked of one is done on the CPU, and said; frames as a card gives them become the same."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc
from helpers.media_files import beeps, film, steady, write

from cg_cli.errors import ItemError, UsageError
from cg_cli.media import DecodeOptions, DecodeWorker, hardware
from cg_cli.media.clip import CPU, HARDWARE, NVDEC, ON_THE_CPU
from cg_cli.media.decoding import decode_clip
from cg_cli.media.frames import Resizer

pytestmark = pytest.mark.slow

X265 = {"x265-params": "log-level=none:pools=1:frame-threads=1", "preset": "superfast"}


@pytest.fixture(scope="module")
def no_gpu():
    """A decode worker that sees no GPU, also where there is one."""
    with pytest.MonkeyPatch.context() as patch, DecodeWorker() as worker:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield worker


def damaged(path):
    data = bytearray(path.read_bytes())
    middle, length = len(data) // 2, len(data) // 20
    data[middle : middle + length] = random.Random(1).randbytes(length)
    path.write_bytes(data)
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3 | 1])
    return path


def faststart(path, seconds=4):
    return write(path, times=steady(seconds), sound=beeps(seconds, 48_000), container_options={"movflags": "faststart"})


def same(one, other) -> bool:
    return all(
        (a is None and b is None) or np.array_equal(a, b)
        for a, b in [(one.frames, other.frames), (one.frame_times, other.frame_times), (one.audio, other.audio)]
    ) and (one.complete, one.duration_s, one.source_width) == (other.complete, other.duration_s, other.source_width)


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda folder: faststart(folder / "good.mp4"), "there is no NVIDIA GPU with a driver"),
        (lambda folder: damaged(faststart(folder / "holes.mp4")), "there is no NVIDIA GPU with a driver"),
        (lambda folder: cut(faststart(folder / "cut.mp4")), "the card does not tell what is damaged"),
        (lambda folder: film(folder / "old.mpg", "mpeg2video", fine=False), "the card's frames of mpeg2video"),
        (lambda folder: film(folder / "444.mp4", pix_fmt="yuv444p"), "h264 of the pixel format yuv444p"),
        (lambda folder: write(folder / "sound.mp3", sound=beeps(2, 48_000), sound_codec="libmp3lame"), ""),
    ],
    ids=["good", "damaged", "cut off", "codec", "pixel format", "no video"],
)
def test_without_a_gpu_the_cpu_decodes_and_one_line_says_so(no_gpu, tmp_path, make, reason):
    path = make(tmp_path)
    expected, clip = (no_gpu.decode(path, DecodeOptions(decoder=decoder)) for decoder in (CPU, NVDEC))
    assert same(clip, expected)
    told = [line for line in clip.warnings if line not in expected.warnings]
    assert len(clip.warnings) == len(expected.warnings) + len(told) and len(told) == bool(reason)
    assert all(line.startswith(ON_THE_CPU) and reason in line for line in told)


def as_from_a_card(frame: av.VideoFrame) -> av.VideoFrame:
    full = ColorRange.JPEG if frame.format.name == "yuvj420p" else None
    return frame.reformat(
        format=hardware.CARD_FORMATS[frame.format.name], src_color_range=full, dst_color_range=full, threads=1
    )


@pytest.mark.parametrize("size", [(336, 196), (112, 56), (28, 28)], ids=["as it is", "scaled", "averaged"])
@pytest.mark.parametrize("pixel_format", hardware.CARD_FORMATS)
@pytest.mark.parametrize("hdr, colorspace", [(False, 2), (False, 1), (False, 8), (True, 9), (True, 14)])
def test_frames_of_a_card_become_the_same_rgb(pixel_format, size, hdr, colorspace):
    samples = np.random.default_rng(0).integers(0, 256, (196, 336, 3), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(samples, format="rgb24").reformat(format=pixel_format)
    if pixel_format == "yuvj420p":
        frame.color_range = ColorRange.JPEG
    if hdr:
        frame.color_trc, frame.color_primaries = ColorTrc.SMPTE2084, ColorPrimaries.BT2020
    card = as_from_a_card(frame)
    frame.colorspace = card.colorspace = colorspace
    assert card.format.name in ("nv12", "p010le")
    again = hardware.NvdecVideo("h264", pixel_format).as_on_the_cpu(card)
    assert again.format.name == pixel_format
    assert np.array_equal(*(Resizer(None, shown).upright(shown, size) for shown in (frame, again)))


class Card:
    """A decoder of a card, by the CPU: NV12 or P010 frames; ``fault`` spoils those that come ``after`` some."""

    def __init__(self, context, fault=None, after=20):
        self._context, self._fault, self._count = context, fault, -after

    width = property(lambda self: self._context.width)
    height = property(lambda self: self._context.height)

    def decode(self, packet):
        frames = [as_from_a_card(frame) for frame in self._context.decode(packet)]
        self._count += len(frames)
        return self._fault(frames) if self._fault and self._count > 0 else frames


@pytest.fixture
def card(monkeypatch):
    """Puts a Card in place of the GPU; the function takes its arguments."""

    def put(*fault):
        monkeypatch.setattr(hardware, "_accelerator", lambda: None)
        monkeypatch.setattr(hardware, "_without_card", lambda: "")
        init = hardware.NvdecDecoder.__init__
        monkeypatch.setattr(
            hardware.NvdecDecoder, "__init__", lambda self, context, *more: init(self, Card(context, *fault), *more)
        )

    return put


def messages(path, options):
    emitted = []
    summary = decode_clip(str(path), path.name, options, lambda message, payload: emitted.append((message, payload)))
    return summary, emitted


@pytest.mark.parametrize(
    "make, options",
    [
        (lambda path: film(path, bf="3", size=(162, 98)), {}),
        (lambda path: film(path, gop=5), dict(max_frames=4)),
        (lambda path: film(path, rotation=90), {}),
        (lambda path: film(path, pix_fmt="yuvj420p", color_range=ColorRange.JPEG), {}),
        (lambda path: film(path, "libx265", **X265), {}),
        (lambda path: film(path, "libx265", pix_fmt="yuv420p10le", **X265), {}),
        (lambda path: film(path, "libvpx-vp9", deadline="realtime"), {}),
    ],
    ids=["h264", "sought", "turned", "full range", "hevc", "hevc 10 bit", "vp9"],
)
def test_through_a_card_the_messages_are_those_of_the_cpu(card, tmp_path, make, options):
    path = make(tmp_path / "film.mp4")
    wanted = DecodeOptions(fps=5, **options)
    expected, frames = messages(path, wanted)
    card()
    summary, through = messages(path, replace(wanted, decoder=NVDEC))
    assert summary == expected and not summary["warnings"]
    assert [message for message, _ in through] == [message for message, _ in frames]
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(through, frames, strict=True))


def error(frames):
    raise av.error.InvalidDataError(1, "no more")


def smaller(frames):
    return [frame.reformat(width=frame.width - 2) for frame in frames]


def planar(frames):
    return [frame.reformat(format="yuv420p") for frame in frames]


def full_range(frames):
    for frame in frames:
        frame.color_range = ColorRange.JPEG
    return frames


@pytest.mark.parametrize(
    "fault, reason",
    [(error, "could not decode"), (smaller, "size"), (planar, "yuv420p"), (full_range, "range")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_in_the_middle_is_a_failure_of_the_card(card, tmp_path, fault, reason):
    path = film(tmp_path / "film.mp4")
    card(fault)
    with pytest.raises(ItemError, match=reason) as caught:
        messages(path, DecodeOptions(decoder=NVDEC))
    assert caught.value.kind == HARDWARE


@pytest.mark.parametrize(
    "spoil, fault, reason",
    [(damaged, (), "damaged|could not decode"), (lambda path: path, (lambda frames: [], 0), "no frame")],
    ids=["damage", "no frame"],
)
def test_damage_and_a_film_without_frames_are_left_to_the_cpu(card, tmp_path, spoil, fault, reason):
    path = spoil(film(tmp_path / "film.mp4"))
    card(*fault)
    with pytest.raises(ItemError, match=reason) as caught:
        messages(path, DecodeOptions(decoder=NVDEC))
    assert caught.value.kind == HARDWARE


@pytest.mark.parametrize("kind, told", [(HARDWARE, "no luck"), ("crashed", "crashed"), ("timeout", None)])
def test_what_fails_on_the_card_is_decoded_again_on_the_cpu(no_gpu, tmp_path, monkeypatch, kind, told):
    path = faststart(tmp_path / "film.mp4")
    expected = no_gpu.decode(path)
    request = DecodeWorker._request

    def fail(self, asked, display_path, timeout_s, on_message):
        if asked["options"]["decoder"] == NVDEC:
            on_message({"size": (28, 28), "time": 0.0, "repeats": 1}, bytearray(28 * 28 * 3))
            raise ItemError("media", "no luck", kind)
        return request(self, asked, display_path, timeout_s, on_message)

    monkeypatch.setattr(DecodeWorker, "_request", fail)
    if told is None:
        with pytest.raises(ItemError, match="no luck"):
            no_gpu.decode(path, DecodeOptions(decoder=NVDEC))
        return
    clip = no_gpu.decode(path, DecodeOptions(decoder=NVDEC))
    (line,) = clip.warnings
    assert same(clip, expected) and line.startswith(ON_THE_CPU) and told in line


def test_an_unknown_decoder_is_refused():
    with pytest.raises(UsageError, match="cpu or nvdec"):
        DecodeOptions(decoder="gpu")


def test_the_memory_limit_makes_room_for_the_driver_alone():
    code = """
import resource, numpy as np
from cg_cli.media import hardware
limit, most = 1 << 30, resource.getrlimit(resource.RLIMIT_DATA)[1]
resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
with hardware._room_for_the_driver():
    driver = np.empty(3 << 29, np.uint8)
raised = resource.getrlimit(resource.RLIMIT_DATA)[0]
assert 3 << 29 <= raised - limit - hardware.DECODER_MEMORY < (3 << 29) + (1 << 26), raised
try:
    np.empty(2 << 30, np.uint8)
except MemoryError:
    print("held")
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).stdout == b"held\n"
