from __future__ import annotations

import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import pytest
from helpers.media_files import beeps, image, steady, write, write_sound

from cg_cli.errors import ItemError
from cg_cli.media import decode


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header promises width x height pixels and holds one row's worth of zeros."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(width * 3))) + chunk(b"IEND", b"")


def huge_film(path: Path, width: int, height: int) -> Path:
    """An uncompressed AVI whose header promises width x height pixels."""
    write(path, times=[0.0, 0.04], size=(80, 48), codec="rawvideo")
    data = path.read_bytes()
    old, new = struct.pack("<II", 80, 48), struct.pack("<II", width, height)
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def subtitles(path: Path) -> Path:
    path.write_text(
        "1\n00:00:00,000 --> 00:00:02,000\nnothing to see\n\n2\n00:00:03,000 --> 00:00:04,000\nstill nothing\n"
    )
    return path


def headless(path: Path) -> Path:
    data = write(path, times=steady(2), sound=beeps(2, 48_000)).read_bytes()
    path.write_bytes(data[: len(data) // 2])  # the index is at the end
    return path


def encrypted(path: Path, **options: str) -> Path:
    """Common encryption, as of streaming services."""
    scheme = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    return write(path, times=steady(2), sound=beeps(2, 48_000), container_options=scheme | options)


def scrambled(path: Path) -> Path:
    """A transport stream with the payload of its packets scrambled, as of pay TV; its tables stay clear."""
    data = bytearray(write(path, times=steady(2)).read_bytes())
    for start in range(0, len(data), 188):
        if 0x100 <= int.from_bytes(data[start + 1 : start + 3], "big") & 0x1FFF < 0x1FFF:
            data[start + 3] |= 0x80
    return written(path, bytes(data))


def part_of_stream(path: Path, first: bool) -> Path:
    """The init segment of a fragmented file, or all its media segments without it."""
    if path.suffix == ".webm":
        fast = {"deadline": "realtime", "cpu-used": "8"}
        data, mark = write(path, times=steady(2), codec="libvpx-vp9", codec_options=fast).read_bytes(), b"\x1fC\xb6u"
        split = data.index(mark)
    else:
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        data = write(path, times=steady(2), container_format="mp4", container_options=options).read_bytes()
        split = data.index(b"moof") - 4
    return written(path, data[:split] if first else data[split:])


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


CASES = {
    "missing": (lambda d: d / "no such file.mp4", "not_found"),
    "missing_newline": (lambda d: d / "a\nb.mp4", "not_found"),
    "null_byte": (lambda d: "a\0b.mp4", "not_found"),
    "dangling_link": (lambda d: link(d / "link.mp4", "nowhere"), "not_found"),
    "file_as_folder": (lambda d: written(d / "plain", b"x") / "a.mp4", "not_found"),
    "dash": (lambda d: "-", "not_found"),
    "empty_name": (lambda d: "", "not_found"),
    "http": (lambda d: "http://127.0.0.1:9/a.mp4", "not_found"),
    "rtsp": (lambda d: "rtsp://127.0.0.1:9/a", "not_found"),
    "concat": (lambda d: "concat:/etc/hostname|/etc/hostname", "not_found"),
    "file_url": (lambda d: "file:///etc/hostname", "not_found"),
    "pipe": (lambda d: "pipe:0", "not_found"),
    "lavfi": (lambda d: "lavfi:testsrc", "not_found"),
    "folder": (lambda d: d, "is_directory"),
    "fifo": (lambda d: fifo(d / "pipe.mp4"), "not_a_file"),
    "link_to_fifo": (lambda d: link(d / "pipe_link.mp4", str(fifo(d / "pipe2.mp4"))), "not_a_file"),
    "device": (lambda d: "/dev/zero", "not_a_file"),
    "tty_device": (lambda d: link(d / "null.mp4", "/dev/null"), "not_a_file"),
    "empty": (lambda d: written(d / "empty.mp4", b""), "empty"),
    "text": (lambda d: written(d / "notes.mp4", b"this is no film\n" * 200), "not_media"),
    "text_txt": (lambda d: written(d / "notes.txt", b"this is no film\n" * 200), "not_media"),
    "html": (lambda d: written(d / "page.mp4", b"<!doctype html><html><body>404</body></html>"), "not_media"),
    "zeros": (lambda d: written(d / "zeros.mp4", bytes(100_000)), "not_media"),
    "subtitles": (lambda d: subtitles(d / "words.srt"), "not_media"),
    "playlist": (
        lambda d: written(d / "list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nreal.ts\n#EXT-X-ENDLIST\n"),
        "not_media",
    ),
    "playlist_mp4": (
        lambda d: written(d / "list.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n"),
        "not_media",
    ),
    "concat_list": (lambda d: written(d / "list.ffconcat", b"ffconcat version 1.0\nfile real.ts\n"), "not_media"),
    "sdp": (
        lambda d: written(
            d / "a.sdp", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        ),
        "not_media",
    ),
    "dash_manifest": (
        lambda d: written(d / "a.mpd", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>'),
        "not_media",
    ),
    "no_index": (lambda d: headless(d / "headless.mp4"), "unreadable"),
    "only_ftyp": (lambda d: written(d / "ftyp.mp4", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"), "unreadable"),
    "half_mkv_header": (lambda d: written(d / "half.mkv", b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x1fB\x86"), "unreadable"),
    "cenc": (lambda d: encrypted(d / "cenc.mp4"), "encrypted"),
    "cenc_fragments": (
        lambda d: encrypted(d / "cenc_fragments.mp4", movflags="frag_keyframe+empty_moov"),
        "encrypted",
    ),
    "scrambled": (lambda d: scrambled(d / "scrambled.ts"), "encrypted"),
    "segment": (lambda d: part_of_stream(d / "segment.m4s", False), "unreadable"),
    "segment_webm": (lambda d: part_of_stream(d / "segment.webm", False), "unreadable"),
    "init": (lambda d: part_of_stream(d / "init.mp4", True), "unreadable"),
    "init_webm": (lambda d: part_of_stream(d / "init.webm", True), "unreadable"),
    "huge_png": (lambda d: written(d / "huge.png", huge_png(60_000, 60_000)), "too_large"),
    "large_png": (lambda d: written(d / "large.png", huge_png(20_000, 20_000)), "too_large"),
    "huge_film": (lambda d: huge_film(d / "huge.avi", 60_000, 60_000), "too_large"),
}


@pytest.fixture(scope="module")
def cellar(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("cellar")
    write(place / "real.ts", times=steady(2))
    return place


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_line(worker, cellar, name):
    make, kind = CASES[name]
    path = make(cellar)
    for task in (worker.decode, worker.probe):
        with pytest.raises(ItemError) as caught:
            task(path)
        line = str(caught.value)
        assert (caught.value.kind, caught.value.stage) == (kind, "media"), line
        assert line.isprintable() and 20 < len(line) < 400 and repr(str(path)) in line and "Traceback" not in line


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda d: encrypted(d / "says_cenc.mp4"), "is encrypted"),
        (lambda d: part_of_stream(d / "says_segment.mp4", False), "cat init.mp4 segment"),
        (lambda d: part_of_stream(d / "says_segment.webm", False), "without its beginning"),
        (lambda d: part_of_stream(d / "says_init.mp4", True), "without its segments"),
        (lambda d: part_of_stream(d / "says_init.webm", True), "only the beginning of a stream"),
    ],
)
def test_the_line_says_what_the_file_is(worker, cellar, make, says):
    with pytest.raises(ItemError, match=says):
        worker.decode(make(cellar))


@pytest.mark.parametrize(
    "name",
    [
        "with space.mp4",
        "new\nline.mp4",
        "tab\t'quote\".mp4",
        "ünï-日本.mp4",
        "-leading.mp4",
        "100%d.mp4",
        "http:.mp4",
        "a|b.mp4",
        b"\xff\xfe.mp4",
    ],
)
def test_any_file_name_works(worker, cellar, talkie, name, monkeypatch):
    monkeypatch.chdir(cellar)
    given = os.fsdecode(name)
    Path(given).write_bytes(talkie.read_bytes())
    clip = worker.decode(given)
    assert clip.path == given and clip.complete and len(clip.frames) == 12


def test_a_link_to_a_film_works(worker, cellar, talkie):
    assert worker.decode(link(cellar / "to_film.mp4", str(talkie))).complete


def test_cover_art_is_no_film(worker, cellar):
    picture = image(cellar / "cover.png").read_bytes()
    path = cellar / "song.mp3"
    with av.open(str(path), "w") as output:
        audio = output.add_stream("libmp3lame", rate=48_000, layout="mono")
        cover = output.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet(picture)
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 1)
        output.start_encoding()
        output.mux(packet)
        write_sound(output, audio, beeps(3, 48_000), 0.0, 48_000, "mono")
    clip, probe = worker.decode(path), worker.probe(path)
    assert clip.frames is None and clip.audio_s == pytest.approx(3, abs=0.1) and clip.complete
    assert any(stream.cover for stream in probe.streams) and not probe.has_video and probe.has_audio


def test_the_function_works_without_a_worker_at_hand(talkie):
    clip = decode(talkie)
    assert len(clip.frames) == 12 and clip.audio_status == "used"
