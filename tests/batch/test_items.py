"""Inputs: what a user names, and what becomes of every line of it."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest

from cg_cli.batch.items import collect, read_questions
from cg_cli.errors import NothingToDo, UsageError
from cg_cli.questions import Question


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "sub/b.MKV", "sub/deep/c.mp3", "sub/notes.md", "sub/._a.mp4", ".hidden/d.mp4", "x [1].mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def videos(*inputs, questions=("q?",), **more):
    found = collect(list(inputs), list(questions), **more)
    return [item.video for item in found.items], found.faults


def test_folders_are_searched_for_media_and_nothing_else(here):
    assert videos(".") == (["a.mp4", "x [1].mp4", "sub/b.MKV", "sub/deep/c.mp3"], [])
    assert videos("sub", "a.mp4", "./a.mp4", str(here / "a.mp4"))[0] == [
        "sub/b.MKV",
        "sub/deep/c.mp3",
        "a.mp4",
    ]  # each once


MEDIA = (
    "gif", "apng", "m1v", "m2v", "m4v", "h264", "264", "h265", "hevc", "265", "rm", "rmvb", "dv", "mxf", "y4m", "ivf",
    "av1", "obu", "mjpeg", "mjpg", "wtv", "amv", "bik", "roq", "mp2", "ac3", "au",
)  # fmt: skip
OTHER = ("jpg", "jpeg", "png", "webp", "avif", "m3u8", "mpd", "m4s", "srt", "txt", "json")


def test_folders_are_searched_for_what_can_be_decoded_and_not_for_stills_and_playlists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"x.{suffix}" for suffix in MEDIA]
    for name in [*names, *(f"x.{suffix}" for suffix in OTHER)]:
        (tmp_path / name).write_bytes(b"")
    assert videos(".") == (sorted(names), [])


@pytest.mark.parametrize("suffix, codec, pixels", [
    ("gif", "gif", "rgb8"), ("apng", "apng", "rgb24"), ("m2v", "mpeg2video", "yuv420p"), ("rm", "rv20", "yuv420p"),
    ("h264", "libx264", "yuv420p"), ("264", "libx264", "yuv420p"), ("mjpeg", "mjpeg", "yuvj420p"),
    ("ivf", "libvpx", "yuv420p"), ("wtv", "mpeg2video", "yuv420p"), ("y4m", "wrapped_avframe", "yuv420p"),
])  # fmt: skip
def test_suffixes_of_a_folder_are_those_that_pyav_reads(tmp_path, suffix, codec, pixels):
    import av
    import numpy as np

    with av.open(str(tmp_path / f"x.{suffix}"), "w", format="h264" if suffix == "264" else None) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
        for i in range(4):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), i * 20, np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    (item,) = collect([str(tmp_path)], ["q?"]).items
    with av.open(item.video) as file:
        assert len(list(file.decode(video=0))) == 4


def test_links_are_followed_and_every_file_comes_once(here, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "d.mp4").write_bytes(b"")
    (other / "back").symlink_to(here / "sub")
    (here / "linked").symlink_to(other)
    (here / "sub" / "loop").symlink_to("..")
    (here / "sub" / "self").symlink_to("self")
    (here / "a link.mp4").symlink_to("a.mp4")
    (here / "elsewhere.mp4").symlink_to(other / "d.mp4")
    (here / "broken.mp4").symlink_to("gone.mp4")
    own = ["a.mp4", "x [1].mp4", "sub/b.MKV", "sub/deep/c.mp3"]
    assert videos(".") == ([*own, "broken.mp4", "elsewhere.mp4"], [])
    (here / "elsewhere.mp4").unlink()
    assert videos(".") == ([*own, "broken.mp4", "linked/d.mp4"], [])
    behind = ["b.MKV", "deep/c.mp3", "loop/a.mp4", "loop/x [1].mp4", "loop/broken.mp4"]
    assert videos("linked") == (["linked/d.mp4", *(f"linked/back/{path}" for path in behind)], [])
    assert videos("a*.mp4") == (["a.mp4"], [])
    assert videos("a link.mp4", "a.mp4")[0] == ["a link.mp4", "a.mp4"]  # as somebody named them


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("named", ["NFC", "NFD"])
def test_names_are_found_in_either_unicode_form(here, on_disk, named):
    stored, written = (unicodedata.normalize(form, "Übung/café.mp4") for form in (on_disk, named))
    (here / stored).parent.mkdir()
    (here / stored).write_bytes(b"")
    (here / "list.jsonl").write_text(json.dumps({"video": written}), encoding="utf-8")
    (here / "list.csv").write_text(f"video\n{written}\n", encoding="utf-8")
    (here / "list.txt").write_text(written, encoding="utf-8")
    (here / "sub" / "list.txt").write_text(f"../{written}", encoding="utf-8")
    for name in (written, "list.jsonl", "list.csv", "list.txt", written.replace(".mp4", "*"), written[:-9]):
        assert videos(name) == ([stored], []), name
    assert videos("sub/list.txt") == ([f"sub/../{stored}"], [])
    assert videos(written, stored)[0] == [stored]
    assert videos("Ünot//there/é.mp4") == (["Ünot//there/é.mp4"], [])


def test_globs_and_names_that_look_like_globs(here):
    assert videos("**/*.m*")[0] == ["a.mp4", "sub/deep/c.mp3", "sub/notes.md", "x [1].mp4"]  # as the pattern says
    assert videos("x [1].mp4") == (["x [1].mp4"], [])
    assert videos("*.webm", "a.mp4") == (["a.mp4"], ["*.webm: no such file matches"])


def test_a_file_that_is_not_there_is_an_item_and_will_say_so(here):
    assert videos("gone.mp4") == (["gone.mp4"], [])


def test_a_manifest_brings_questions_ids_and_anything_else(here):
    rows = [
        {
            "video": "b.MKV",
            "question": "one?",
            "id": 7,
            "answer": "yes",
            "choices": ["yes", "no"],
            "level": {"hard": 1},
        },
        {"video": "../a.mp4", "questions": ["two?", "three?"], "id": "x"},
        {"video": "b.MKV", "question": "four?"},
        {"video": "b.MKV", "question": "one?", "id": 7},
        {"video": "deep/c.mp3"},
    ]
    (here / "sub" / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    first, second, third = collect(["sub/list.jsonl"], ["default?"]).items
    assert first.video == "sub/b.MKV" and [q.text for q in first.questions] == ["one?", "four?"]
    assert first.questions[0].id == 7
    assert first.questions[0].more == {"expected": "yes", "choices": ["yes", "no"], "level": {"hard": 1}}
    assert second.video == "sub/../a.mp4" and [(q.text, q.id) for q in second.questions] == [
        ("two?", "x"),
        ("three?", "x"),
    ]
    assert third.questions == (Question("default?"),)


def test_the_same_question_under_two_ids_is_asked_twice(here):
    rows = [{"video": "a.mp4", "question": "one?", "id": i} for i in (1, 2, 2)]
    (here / "list.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (item,) = collect(["list.jsonl"], []).items
    assert [q.id for q in item.questions] == [1, 2]


def test_a_bad_line_costs_only_itself(here):
    lines = [
        '{"video": "a.mp4", "question": "q?"}',
        "{torn",
        '["a.mp4"]',
        '{"video": 3}',
        '{"video": "a.mp4", "question": 5}',
        '{"video": "a.mp4", "question": "n?", "score": NaN}',
        '{"video": "a.mp4", "question": "a\u2028?"}',
    ]
    (here / "list.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = collect(["list.jsonl"], [])
    assert [q.text for q in found.items[0].questions] == ["q?", "a\u2028?"]
    assert [fault.split(" ")[0] for fault in found.faults] == [f"list.jsonl:{n}:" for n in (2, 3, 4, 5, 6)]


def test_tables_and_lists(here):
    (here / "t.csv").write_text('\ufeffvideo,question,level\na.mp4,"what, then?",hard\nsub/b.MKV,,\n', encoding="utf-8")
    first, second = collect(["t.csv"], ["d?"]).items
    assert first.questions == (Question("what, then?", None, {"level": "hard"}),) and second.questions == (
        Question("d?"),
    )
    (here / "sub" / "l.txt").write_text("../a.mp4\r\n\ndeep\n", encoding="utf-8")
    assert videos("sub/l.txt")[0] == ["sub/../a.mp4", "sub/deep/c.mp3"]
    (here / "bad.csv").write_text("clip\na.mp4\n", encoding="utf-8")
    with pytest.raises(UsageError, match="'video'"):
        collect(["bad.csv"], ["q?"])
    with pytest.raises(UsageError, match="gone.jsonl: No such file"):
        collect(["gone.jsonl"], ["q?"])


def test_lists_on_stdin(here):
    odd = "new\nline.mp4"
    assert videos("-", stdin=io.BytesIO(b"a.mp4\n\nsub/b.MKV\n"))[0] == ["a.mp4", "sub/b.MKV"]
    assert videos("-", stdin=io.BytesIO(f"a.mp4\0{odd}\0".encode()), null=True)[0] == ["a.mp4", odd]
    assert videos("-", stdin=io.BytesIO(b"\xff.mp4\n"))[0] == ["\udcff.mp4"]
    rows = collect(["-"], [], stdin=io.BytesIO(b'{"video": "a.mp4", "question": "q?"}\n'))
    assert rows.items[0].questions[0].text == "q?"


def test_nothing_to_do_and_nothing_to_ask(here):
    (here / "empty").mkdir()
    with pytest.raises(NothingToDo, match="empty"):
        collect(["empty"], ["q?"])
    with pytest.raises(UsageError, match="nothing to ask of a.mp4"):
        collect(["a.mp4"], [])


def test_questions_from_a_file(here):
    (here / "q.txt").write_text("one?\n\n two? \n", encoding="utf-8")
    assert read_questions(here / "q.txt") == ["one?", "two?"]
    (here / "q.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no question"):
        read_questions(here / "q.txt")
