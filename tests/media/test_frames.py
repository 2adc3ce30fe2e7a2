from __future__ import annotations

import random
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.media_files import image, number_of, steady, write

from cg_cli.media import DecodeOptions
from cg_cli.media.frames import seeking_is_faster, zero_order_hold


def every_frame(path, rate: int | None = None) -> list[tuple[Fraction, int]]:
    """(time from the first frame, number painted on it) of every frame, by decoding everything."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        frames = [(frame.pts, number_of(frame.to_ndarray(format="rgb24"))) for frame in container.decode(stream)]
        if rate:
            return [(Fraction(index, rate), number) for index, (_, number) in enumerate(frames)]
        first = min(pts for pts, _ in frames)
        return sorted(((pts - first) * stream.time_base, number) for pts, number in frames)


def expected(frames: list[tuple[Fraction, int]], seconds_per_frame: float, count: int) -> list[tuple[float, int]]:
    """The frame on show at the middle of each slot, found by looking at all of them."""
    slot = Fraction(seconds_per_frame).limit_denominator(10**6)
    wanted = [slot * (2 * index + 1) / 2 for index in range(count)]
    chosen = [max((f for f in frames if f[0] <= time), default=frames[0]) for time in wanted]
    return [(float(time), number) for time, number in chosen]


FILMS = {
    "steady.mp4": dict(times=steady(6)),
    "b_frames.mp4": dict(times=steady(6), codec_options={"bf": "3"}, gop=30),
    "steady.mkv": dict(times=steady(5, fps=30)),
    "broadcast.ts": dict(times=steady(5, start_s=77.5), codec_options={"bf": "2"}),
    "late.mkv": dict(times=steady(4, start_s=3.2)),
    "mpeg4.avi": dict(times=steady(4), codec="mpeg4"),
    "raw.h264": dict(times=steady(4), codec_options={"bf": "2"}),
    "fragmented.mp4": dict(times=steady(4), container_options={"movflags": "frag_keyframe+empty_moov"}),
    "slideshow.mp4": dict(times=[0.0, 0.1, 0.15, 0.9, 2.0, 2.05, 3.9, 4.0, 7.0, 7.04]),
    "slideshow.mkv": dict(times=[0.0, 0.1, 0.15, 0.9, 2.0, 2.05, 3.9, 4.0, 7.0, 7.04]),
    "long.mp4": dict(times=steady(60, fps=8), gop=4),
    "long.mkv": dict(times=steady(60, fps=8), gop=4),
    "long.ts": dict(times=steady(60, fps=8), gop=4, codec_options={"bf": "2"}),
}


@pytest.mark.parametrize("name", FILMS)
def test_frames_are_those_on_show_at_the_middle_of_each_slot(worker, folder, name):
    path = write(folder / f"film_{name}", **FILMS[name])
    clip = worker.decode(path, DecodeOptions(max_frames=20))
    frames = every_frame(path, rate=25 if name == "raw.h264" else None)
    wanted = expected(frames, clip.seconds_per_frame, len(clip.frames))
    assert [number_of(frame) for frame in clip.frames] == [number for _, number in wanted]
    assert clip.frame_times == pytest.approx([time for time, _ in wanted])
    assert clip.complete and clip.warnings == () and clip.audio_status == "absent"
    last_gap = frames[-1][0] - frames[-2][0]
    assert 0 < clip.duration_s - frames[-1][0] <= last_gap + 0.01  # how long the last frame lasts is the muxer's choice
    assert clip.seconds_per_frame * len(clip.frames) == pytest.approx(clip.duration_s)


def test_the_long_films_are_sought_through_and_the_short_ones_are_not():
    assert seeking_is_faster(20, 120) and not seeking_is_faster(12, 13)


def test_zero_order_hold_agrees_with_looking_at_everything():
    draw = random.Random(3)
    for _ in range(300):
        times = sorted(draw.sample(range(100), draw.randint(1, 20)))
        wanted = sorted(draw.choices(range(-5, 110), k=draw.randint(1, 20)))
        served = [
            time for time, _, serves in zero_order_hold([(t, None) for t in times], wanted) for _ in range(serves)
        ]
        assert served == [max((t for t in times if t <= w), default=times[0]) for w in wanted]


def test_zero_order_hold_stops_reading_behind_the_last_wanted_time():
    source = iter((time, time) for time in range(1000))
    assert list(zero_order_hold(source, [3.5, 5.5])) == [(3, 3, 1), (5, 5, 1)]
    assert next(source) == (7, 7)


def test_max_frames_spreads_fewer_frames_over_the_whole_film(worker, talkie):
    clip = worker.decode(talkie, DecodeOptions(max_frames=4))
    assert len(clip.frames) == 4 and clip.seconds_per_frame == pytest.approx(1.5)
    assert [number_of(frame) for frame in clip.frames] == [18, 56, 93, 131]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_frames_are_upright(worker, folder, rotation):
    size = (112, 56)
    path = write(folder / f"turned_{rotation}.mp4", times=steady(1), size=size, rotation=rotation)
    clip = worker.decode(path, DecodeOptions(side_multiple=28))
    with av.open(str(path)) as container:
        stored = list(container.decode(video=0))[6].to_ndarray(format="rgb24")  # on show at 0.25 s
    # Counterclockwise by definition: the stored right edge becomes the top at 90 degrees.
    turned = {90: stored.transpose(1, 0, 2)[::-1], 180: stored[::-1, ::-1], 270: stored.transpose(1, 0, 2)[:, ::-1]}[
        rotation
    ]
    assert clip.frames.shape[1:] == turned.shape
    assert (clip.source_width, clip.source_height) == turned.shape[1::-1]
    assert abs(clip.frames[0].astype(int) - turned).mean() < 20
    probe = worker.probe(path)
    assert (probe.width, probe.height, probe.rotation) == (clip.source_width, clip.source_height, rotation)


def test_wide_pixels_are_shown_wide(worker, folder):
    path = write(folder / "wide_pixels.mp4", times=steady(1), size=(96, 96), pixel_aspect=Fraction(2))
    clip = worker.decode(path)
    assert (clip.source_width, clip.source_height) == (192, 96)
    assert clip.frames.shape[2] > 1.5 * clip.frames.shape[1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_film_of_few_frames_fills_frame_multiple(worker, folder, count):
    path = write(folder / f"few_{count}.mp4", times=steady(count / 25))
    clip = worker.decode(path, DecodeOptions(frame_multiple=4))
    assert len(clip.frames) == len(clip.frame_times) == 4
    assert {number_of(frame) for frame in clip.frames} == set(range(count))


@pytest.mark.parametrize("pix_fmt", ["gray", "gray16le", "yuv420p10le", "yuv444p", "yuva420p", "bgra", "gbrp16le"])
def test_every_pixel_format_becomes_rgb(worker, folder, pix_fmt):
    path = write(folder / f"{pix_fmt}.mkv", times=steady(1), codec="ffv1", pix_fmt=pix_fmt)
    clip = worker.decode(path)
    assert clip.frames.dtype == np.uint8 and [number_of(frame) for frame in clip.frames] == [6, 18]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.png", "png", "rgb24"), ("b.png", "png", "gray"), ("d.png", "png", "rgba"), ("e.jpg", "mjpeg", "yuvj420p")],
)
def test_a_picture_is_a_film_of_one_frame(worker, folder, name, codec, pix_fmt):
    clip = worker.decode(image(folder / name, number=21, codec=codec, pix_fmt=pix_fmt))
    assert len(clip.frames) == 2 and number_of(clip.frames[1]) == 21
    assert clip.seconds_per_frame > 0 and clip.complete


def test_a_gif_is_a_film(worker, folder):
    path = write(folder / "a.gif", times=steady(2, fps=10), codec="gif", pix_fmt="rgb8")
    clip = worker.decode(path)
    assert clip.duration_s == pytest.approx(2, abs=0.15) and len(clip.frames) == 4
    numbers = [number_of(frame) for frame in clip.frames]
    assert numbers == sorted(set(numbers))
