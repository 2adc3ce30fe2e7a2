"""Frames that nobody looks at are not decoded, and those that are looked at are the same, bit for bit."""

from __future__ import annotations

import random
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from helpers.media_files import cut_without_encoding, film, steady
from hypothesis import given, settings
from hypothesis import strategies as st

from cg_cli.media import frames as frames_module
from cg_cli.media import skipping
from cg_cli.media.decode_errors import DecodeErrors
from cg_cli.media.demux import decode_packet, scan_file
from cg_cli.media.frames import sample_frames, zero_order_hold
from cg_cli.media.sizes import slot_centres
from cg_cli.media.skipping import PROGRESSIVE, Skipping, can_skip, is_hidden

properties = settings(derandomize=True, deadline=None, max_examples=300)
X265 = "log-level=none:pools=1:frame-threads=1:rc-lookahead=20"


def x264(params: str = "", **more) -> dict:
    return more | {"x264-params": params}


def x265(params: str = "", **more) -> dict:
    return dict(codec="libx265") | more | {"x265-params": f"{X265}:{params}", "preset": "superfast"}


def mpeg2(**more) -> dict:
    return dict(codec="mpeg2video", fine=False, bf="2") | more


UNEVEN = list(np.cumsum([0.02 + 0.2 * (i % 7 == 0) + 0.013 * (i % 3) for i in range(100)]))
FILMS = {
    "no_b.mp4": x264(bf="0"),
    **{
        f"b{count}_{pyramid}.{suffix}": x264(f"bframes={count}:b-pyramid={pyramid}:b-adapt=0")
        for count, suffix in ((3, "mp4"), (16, "mkv"))
        for pyramid in ("none", "strict", "normal")
    },
    "defaults.mp4": x264(),
    "defaults.ts": x264(),
    "defaults.avi": x264(fine=False),
    "raw.h264": x264(),
    "open_gop.ts": x264("open-gop=1:keyint=20:bframes=5:b-adapt=0"),
    "open_gop.mkv": x264("open-gop=1:keyint=20:bframes=5:b-adapt=0"),
    "uneven.mp4": x264("bframes=5:b-adapt=0", times=UNEVEN),
    "uneven.mkv": x264("bframes=5:b-adapt=0", times=UNEVEN),
    "odd_rate.mkv": x264(times=steady(4, fps=24000 / 1001, start_s=3.217)),
    "late.ts": x264(times=steady(4, fps=50, start_s=77.531)),
    "interlaced.ts": x264("tff=1:bframes=3:b-adapt=0"),
    "intra_refresh.mp4": x264("intra-refresh=1:bframes=3"),
    "h265.mp4": x265(),
    "h265.mkv": x265("bframes=8:b-adapt=0:b-pyramid=1"),
    "h265_open_gop.ts": x265("open-gop=1:keyint=20:min-keyint=20:bframes=4:b-adapt=0"),
    "h265_layers.mp4": x265("temporal-layers=3:b-pyramid=1:bframes=4:b-adapt=0"),
    "mpeg2.ts": mpeg2(),
    "mpeg2.mkv": mpeg2(),
    "mpeg2.mpg": mpeg2(bf="4"),
    "mpeg2_interlaced.ts": mpeg2(flags="+ildct+ilme"),
}
ALL_DECODED = {"no_b.mp4", "defaults.avi", "raw.h264", "interlaced.ts", "h265_layers.mp4"}


def slots(count: int):
    """The sampling times of ``count`` frames, for a timeline."""
    return lambda timeline: slot_centres(timeline.duration, count)


def sampled(path, times, codecs, monkeypatch):
    """What ``sample_frames`` gives with skipping for ``codecs``, the errors, and how many packets became frames."""
    monkeypatch.setattr(skipping, "CODECS", frozenset(codecs))
    decoded = 0

    def counted(*arguments):
        nonlocal decoded
        result = decode_packet(*arguments)
        decoded += len(result)
        return result

    monkeypatch.setattr(frames_module, "decode_packet", counted)
    errors = DecodeErrors()
    timeline = scan_file(str(path), "it", errors).video
    wanted = times(timeline) if callable(times) else times
    shown = [
        (item.time, item.repeats, item.frame.to_ndarray().tobytes())
        for item in sample_frames(str(path), "it", timeline, wanted, errors)
    ]
    return shown, errors, decoded


def counts_decoded(path, times, monkeypatch) -> tuple[int, int]:
    """Frames decoded without and with skipping, after checking that what is shown is the same."""
    codecs = skipping.CODECS
    expected, expected_errors, everything = sampled(path, times, (), monkeypatch)
    shown, errors, decoded = sampled(path, times, codecs, monkeypatch)
    assert [item[:2] for item in shown] == [item[:2] for item in expected]
    assert shown == expected and errors == expected_errors
    return everything, decoded


@pytest.mark.parametrize("name", FILMS)
def test_the_frames_shown_are_the_same(folder, monkeypatch, name):
    path = film(folder / f"skipped_{name}", **FILMS[name])
    draw = random.Random(name)
    for count in (1, 3, 8, 12, 30, 120):
        everything, decoded = counts_decoded(path, slots(count), monkeypatch)
        assert decoded == everything if name in ALL_DECODED else decoded <= everything
        if count == 8 and name not in ALL_DECODED:
            assert decoded < 0.8 * everything
        times = sorted(Fraction(draw.uniform(-0.2, 5)) for _ in range(count))
        counts_decoded(path, times, monkeypatch)


def any_film(draw: random.Random) -> tuple[str, dict]:
    """A suffix, and what ``film`` takes: any structure of frames, keyframes and times."""
    frames, fps, start_s = draw.randint(2, 120), draw.choice([8, 24000 / 1001, 25, 30, 60]), draw.uniform(0, 3)
    times = [time + draw.choice([0, 0.01]) for time in steady(frames / fps, fps, start_s)]
    params = {
        "bframes": draw.randint(0, 16),
        "b-adapt": draw.randint(0, 2),
        "b-pyramid": draw.randint(0, 1),
        "open-gop": draw.randint(0, 1),
        "ref": draw.randint(1, 6),
        "keyint": draw.choice([2, 12, 50, 250]),
        "min-keyint": 1,
        "weightp": draw.randint(0, 1),
    }
    encode = draw.choice([x264, x264, x265])
    text = ":".join(f"{name}={value}" for name, value in params.items())
    return draw.choice(["mp4", "mkv", "ts"]), encode(text, times=times)


@pytest.mark.parametrize("seed", range(12))
def test_the_frames_shown_of_any_film_are_the_same(folder, monkeypatch, seed):
    draw = random.Random(seed)
    suffix, options = any_film(draw)
    path = film(folder / f"skipped_any_{seed}.{suffix}", **options)
    for count in (1, 2, draw.randint(3, 20), 200):
        counts_decoded(path, slots(count), monkeypatch)


def test_a_film_with_many_keyframes_is_sought_through_the_same(folder, monkeypatch):
    path = film(folder / "skipped_sought.mp4", **x264("bframes=7:b-adapt=0", gop=16, times=steady(8)))
    everything, decoded = counts_decoded(path, slots(5), monkeypatch)
    assert decoded < everything < 100


@pytest.mark.parametrize("start_s", [0.9, 2.04])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_film_cut_between_keyframes_is_shown_the_same(folder, monkeypatch, suffix, start_s):
    whole = film(folder / f"skipped_whole_{suffix}.mp4", **x264("open-gop=1:bframes=5:b-adapt=0"))
    options = {"avoid_negative_ts": "disabled"} if suffix == "mkv" else {}
    path = cut_without_encoding(whole, folder / f"skipped_cut_{start_s}.{suffix}", start_s, **options)
    for count in (2, 6, 30):
        counts_decoded(path, slots(count), monkeypatch)


def ruined(path, number: int):
    """A copy of a film whose packet ``number``, in storage order, is overwritten; its display time in seconds."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        data[packet.pos + 8 : packet.pos + packet.size] = b"\xff" * (packet.size - 8)
        time = packet.pts * packet.time_base
    copy = path.with_name(f"ruined_{number}_{path.name}")
    copy.write_bytes(data)
    return copy, time


@pytest.fixture(scope="module")
def leafy(folder):
    """P-frames at every fourth place, and between them B-frames to which no other refers."""
    return film(folder / "leafy.mp4", **x264("bframes=3:b-adapt=0:b-pyramid=none:scenecut=0", gop=50))


def test_behind_a_damaged_packet_every_frame_is_decoded(leafy, monkeypatch):
    codecs = skipping.CODECS
    path, time = ruined(leafy, 41)  # stored: a keyframe, then again and again a P-frame and three B-frames
    times = [time + Fraction(index, 4) for index in range(-5, 9)]
    expected, expected_errors, everything = sampled(path, times, (), monkeypatch)
    shown, errors, decoded = sampled(path, times, codecs, monkeypatch)
    assert not errors.complete and not expected_errors.complete
    # What conceals the damage may be another frame; before it, and from the next keyframe on, nothing is.
    whole = [item for item in expected if item[0] < time - Fraction(1, 4) or item[0] >= 2]
    assert len(whole) >= 10 and [item for item in shown if item[0] < time - Fraction(1, 4) or item[0] >= 2] == whole
    assert [item[:2] for item in shown] == [item[:2] for item in expected]
    assert everything - decoded == pytest.approx(25, abs=6)  # B-frames before the damage only


def test_damage_to_a_frame_that_is_not_looked_at_changes_nothing(leafy, monkeypatch):
    codecs = skipping.CODECS
    path, time = ruined(leafy, 42)
    times = [time - Fraction(1, 2), time + Fraction(1, 2)]
    shown, errors, _ = sampled(path, times, codecs, monkeypatch)
    assert errors.complete and shown == sampled(leafy, times, (), monkeypatch)[0]
    assert not sampled(path, sorted([*times, time]), codecs, monkeypatch)[1].complete


def test_a_file_that_is_cut_off_is_decoded_in_full(leafy, monkeypatch):
    codecs = skipping.CODECS
    path = leafy.with_name("cut_off.ts")
    film(path, **x264("bframes=3:b-adapt=0"))
    path.write_bytes(path.read_bytes()[:-1001])
    everything, decoded = counts_decoded(path, [Fraction(1), Fraction(3)], monkeypatch)
    assert decoded == everything and not sampled(path, [Fraction(1)], codecs, monkeypatch)[1].complete


@pytest.mark.parametrize(
    ("codec", "field_order", "extradata", "expected"),
    [
        ("h264", PROGRESSIVE, b"", True),
        ("h264", 0, b"", False),
        ("h264", 2, b"", False),
        ("hevc", 0, b"\x00\x00\x01\x42\x01\x01", True),
        ("hevc", 0, b"\x00\x00\x01\x42\x01\x01\x00\x00\x01\x42\x01\x03", False),
        ("hevc", 0, b"", False),
        ("mpeg2video", 2, b"", True),
        ("mpeg4", PROGRESSIVE, b"", False),
        ("vp9", PROGRESSIVE, b"", False),
    ],
)
def test_which_streams_are_skipped_in(codec, field_order, extradata, expected):
    assert can_skip(codec, field_order, extradata) is expected


ticks = st.integers(0, 60)


@properties
@given(st.sets(ticks, min_size=1), st.lists(ticks, min_size=1).map(sorted), st.data())
def test_a_hidden_frame_is_never_one_on_display(times, wanted, data):
    known = data.draw(st.sets(st.sampled_from(sorted(times))))
    for time in times:
        on_display = {max(shown for shown in times if shown <= look) for look in wanted if look >= min(times)}
        if is_hidden(time, known, wanted):
            assert time not in on_display
        elif known == times and time <= wanted[-1]:
            assert time in on_display


@st.composite
def streams(draw):
    """Packets in storage order, some of them without a frame, and by how much they are reordered."""
    times = sorted(draw(st.sets(st.integers(0, 400), min_size=1, max_size=60)))
    reach = draw(st.integers(1, 9))
    # Shuffled in runs, behind a first packet that stays in place as a keyframe does.
    stored = times[:1]
    for begin in range(1, len(times), reach):
        stored += draw(st.permutations(times[begin : begin + reach]))
    odd = draw(st.sets(st.integers(1, 59), max_size=4))
    kinds = {number: draw(st.sampled_from(["empty", "discard", "untimed", "keyframe"])) for number in odd}
    packets = [
        SimpleNamespace(
            pts=None if kinds.get(number) == "untimed" else time,
            time=time,
            size=0 if kinds.get(number) == "empty" else 1,
            is_keyframe=number == 0 or kinds.get(number) == "keyframe",
            is_discard=kinds.get(number) == "discard",
        )
        for number, time in enumerate(stored)
    ]
    return packets, max(sum(earlier > time for earlier in stored[:i]) for i, time in enumerate(stored))


def decoder(packets, depth, skipping=None):
    """(time, time) of the frames of ``packets`` in display order, as a decoder gives them that holds back ``depth``."""
    held: list[SimpleNamespace] = []
    for packet in skipping.read_ahead(packets) if skipping else packets:
        if packet.size and not (skipping and skipping.skips(packet, depth)):
            held.append(packet)
        while len(held) > depth:
            yield from come_out(held, skipping)
    while held:
        yield from come_out(held, skipping)


def come_out(held, skipping):
    first = min(held, key=lambda packet: packet.time)
    held.remove(first)
    if not first.is_discard:
        if skipping:
            skipping.came_out(first.pts)
        yield first.time, first.time


@properties
@given(streams(), st.lists(st.integers(-10, 500), min_size=1, max_size=20).map(sorted), st.integers(100, 500))
def test_what_is_shown_of_any_stream_is_the_same(stream, wanted, end):
    packets, depth = stream

    def shown(skipping=None):
        frames = ((time, item) for time, item in decoder(packets, depth, skipping) if time < end)
        return list(zero_order_hold(frames, wanted))

    assert shown(Skipping(wanted, end)) == shown()


@pytest.mark.parametrize(("displayed", "expected"), [([0], True), ([0, 10], True), ([], False), ([0, None], False),
                                                      ([0, None, 10], False), ([10, 0], False)])  # fmt: skip
def test_nothing_is_skipped_before_a_frame_came_out_nor_after_one_out_of_order(displayed, expected):
    source = [SimpleNamespace(pts=time, size=1, is_keyframe=False, is_discard=False) for time in range(100)]
    skips = Skipping([90], 100)
    packet = next(skips.read_ahead(source))
    for time in displayed:
        skips.came_out(time)
    assert skips.skips(packet, 0) is expected


def test_packets_are_read_ahead_only_as_far_as_needed():
    source = iter([SimpleNamespace(pts=time, size=1, is_keyframe=False, is_discard=False) for time in range(100)])
    given_out = Skipping([90], 100).read_ahead(source)
    assert [next(given_out).pts for _ in range(40)] == list(range(40))
    assert next(source).pts == 40 + skipping.AHEAD
