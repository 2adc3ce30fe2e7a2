"""The archive: whatever a kill leaves, the next run goes on with it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from helpers.made import answer, failed, lines

from cg_cli.batch.archive import Archive, Stream, open_sink
from cg_cli.errors import CgError, UsageError
from cg_cli.records import to_line


def opened(path, videos=("a.mp4", "b.mp4"), **more) -> Archive:
    return Archive(path, videos, **more)


def write(path, *records, end="\n"):
    path.write_text("\n".join(map(to_line, records)) + end, encoding="utf-8")


def test_answers_are_claimed_once_each(tmp_path):
    out = tmp_path / "o.jsonl"
    write(out, answer("a.mp4", key="k"), answer("b.mp4", key="k"), answer("old name.mp4", key="k"))
    history = opened(out, ("a.mp4", "c.mp4")).history
    assert history.claim("other", "a.mp4") is None
    assert history.claim("k", "a.mp4") == "answered"
    assert (
        history.claim("k", "a.mp4") == "answered" and history.claim("k", "c.mp4") == "answered"
    )  # files that went by another name
    assert history.claim("k", "c.mp4") is None
    history = opened(out, ("a.mp4", "b.mp4", "old name.mp4")).history
    assert (
        history.claim("k", "b.mp4") == "answered" and history.claim("k", "b.mp4") is None
    )  # what is left is the other two's


def test_a_line_torn_anywhere_is_cut_off_and_a_whole_one_ended(tmp_path):
    out = tmp_path / "o.jsonl"
    whole, last = to_line(answer("a.mp4")) + "\n", to_line(answer("b.mp4"))
    for size in [*range(0, len(last), 97), len(last) - 1, len(last)]:
        out.write_text(whole + last[:size], encoding="utf-8")
        archive = opened(out)
        assert archive.torn == (0 if size == len(last) else size)
        archive.append([answer("c.mp4")])
        archive.close()
        assert [r["video"] for r in lines(out)] == ["a.mp4", *(["b.mp4"] if size == len(last) else []), "c.mp4"]


def test_zeros_after_a_power_failure_are_torn_too(tmp_path):
    out = tmp_path / "o.jsonl"
    write(out, answer(), end="\n\0\0\0\0")
    opened(out).close()
    assert len(lines(out)) == 1


@pytest.mark.parametrize(
    "content",
    ['{"video": "a.mp4"}\n', "a.mp4\nb.mp4\n", "no newline", '{"video": "x", "question": "q"}', "[]\n", "\n5\n", "5"],
)
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    out = tmp_path / "o.jsonl"
    out.write_text(content)
    with pytest.raises(UsageError, match="o.jsonl"):
        opened(out)
    assert out.read_text() == content


def test_overwrite_starts_again_but_not_while_another_writes(tmp_path):
    out = tmp_path / "o.jsonl"
    out.write_text("something else")
    archive = opened(out, overwrite=True)
    assert out.read_text() == ""
    archive.append([answer()])
    code = (
        "import sys; from pathlib import Path; from cg_cli.batch.archive import Archive; "
        "Archive(Path(sys.argv[1]), (), overwrite=True)"
    )
    second = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
    assert "another cg batch is writing" in second.stderr and len(lines(out)) == 1
    archive.close()
    assert subprocess.run([sys.executable, "-c", code, str(out)]).returncode == 0


def test_failures_are_tried_again_and_replaced_when_the_run_ends(tmp_path):
    out = tmp_path / "o.jsonl"
    write(out, failed("a.mp4", attempts=2), answer("b.mp4"), failed("c.mp4"), failed("d.mp4", kind="poison"))
    out.chmod(0o640)
    archive = opened(out)
    assert [archive.history.claim(f"key of {v} q?", v) for v in ("a.mp4", "b.mp4", "c.mp4", "d.mp4")] == [
        None,
        "answered",
        None,
        "failed",
    ]
    assert archive.history.attempts(("a.mp4", "q?", None)) == 2 and archive.history.attempts(("b.mp4", "q?", None)) == 0
    archive.append([answer("a.mp4"), failed("e.mp4")])
    assert len(lines(out)) == 6  # nothing is taken away before the end
    archive.append([failed("c.mp4", attempts=2)])
    archive.close()
    assert [(r["video"], r["ok"]) for r in lines(out)] == [
        ("b.mp4", True), ("d.mp4", False), ("a.mp4", True), ("e.mp4", False), ("c.mp4", False)]  # fmt: skip
    assert stat.S_IMODE(out.stat().st_mode) == 0o640 and os.listdir(tmp_path) == ["o.jsonl"]


def test_what_a_killed_run_left_behind_is_replaced_by_the_next(tmp_path):
    out = tmp_path / "o.jsonl"
    write(out, failed("a.mp4"), answer("b.mp4"), failed("a.mp4", attempts=2))
    archive = opened(out)
    assert archive.history.attempts(("a.mp4", "q?", None)) == 2
    archive.close()
    assert [(r["video"], r.get("attempts")) for r in lines(out)] == [("b.mp4", None), ("a.mp4", 2)]


def test_without_retry_failures_are_settled(tmp_path):
    out = tmp_path / "o.jsonl"
    write(out, failed("a.mp4"))
    assert opened(out, retry=False).history.claim("key of a.mp4 q?", "a.mp4") == "failed"


def test_what_lies_in_the_file_itself_is_tried_again_on_demand_alone(tmp_path):
    out = tmp_path / "o.jsonl"
    kinds = ("not_media", "empty", "no_streams", "encrypted", "unreadable", "timeout", "no_access", "internal")
    write(out, *(failed(f"{kind}.mp4", kind=kind) for kind in kinds))

    def states(retry):
        history = opened(out, [f"{kind}.mp4" for kind in kinds], retry=retry).history
        return [history.claim(f"key of {kind}.mp4 q?", f"{kind}.mp4") for kind in kinds]

    assert states(None) == ["set aside"] * 5 + [None] * 3
    assert states(True) == [None] * 8
    assert states(False) == ["set aside"] * 5 + ["failed"] * 3


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    write(tmp_path / "real" / "o.jsonl", failed("a.mp4"))
    link = tmp_path / "o.jsonl"
    link.symlink_to(tmp_path / "real" / "o.jsonl")
    archive = opened(link)
    archive.append([answer("a.mp4")])
    archive.close()
    assert link.is_symlink() and [r["ok"] for r in lines(tmp_path / "real" / "o.jsonl")] == [True]


def test_a_full_disk_leaves_whole_lines(tmp_path):
    out = tmp_path / "o.jsonl"
    code = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; "
        "from helpers.made import answer; "
        "from cg_cli.batch.archive import Archive; archive = Archive(Path(sys.argv[1]), ()); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\nwhile True: archive.append([answer()] * 2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(out), str(Path(__file__).parents[1])], capture_output=True, text=True
    )
    assert "File too large" in done.stderr and "run the same command again" in done.stderr
    assert out.read_bytes().endswith(b"\n") and len(lines(out)) > 0 and len(lines(out)) % 2 == 0
    opened(out).close()


def test_a_new_file_that_got_nothing_is_not_left_behind(tmp_path):
    opened(tmp_path / "new.jsonl").close()
    (tmp_path / "old.jsonl").touch()
    opened(tmp_path / "old.jsonl").close()
    assert os.listdir(tmp_path) == ["old.jsonl"]


def test_places_that_are_no_files(tmp_path):
    sink = open_sink("/dev/full", (), overwrite=False, retry=True)
    assert isinstance(sink, Stream)
    with pytest.raises(CgError, match="/dev/full: No space left"):
        sink.append([answer()])
    with pytest.raises(UsageError, match="no such folder"):
        open_sink(str(tmp_path / "gone" / "o.jsonl"), (), overwrite=False, retry=True)
    with pytest.raises(UsageError, match="is a folder"):
        open_sink(str(tmp_path), (), overwrite=False, retry=True)


def removed(out: Path) -> None:
    out.unlink()


def replaced(out: Path) -> None:
    out.unlink()
    out.write_text("a page of my own\n")


def renamed_over(out: Path) -> None:
    other = out.with_suffix(".new")
    other.write_bytes(out.read_bytes())
    other.replace(out)


def truncated(out: Path) -> None:
    os.truncate(out, 10)


def added_to(out: Path) -> None:
    with out.open("a") as file:
        file.write("a note of my own\n")


def folder_removed(out: Path) -> None:
    shutil.rmtree(out.parent)


CHANGES = {
    removed: ("was removed", ["a.mp4", "b.mp4"]),
    replaced: ("was replaced", ["a.mp4", "b.mp4"]),
    renamed_over: ("was replaced", ["a.mp4", "b.mp4"]),
    truncated: ("was changed", ["b.mp4"]),
    added_to: ("was changed", ["b.mp4"]),
    folder_removed: ("was removed", ["a.mp4", "b.mp4"]),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_another_program_does_to_the_file_is_noticed_and_no_record_lost(tmp_path, change, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = tmp_path / "folder" / "o.jsonl"
    out.parent.mkdir()
    archive = opened(out)
    archive.append([answer("a.mp4")])
    change(out)
    found = out.read_bytes() if out.exists() else None
    what, videos = CHANGES[change]
    with pytest.raises(CgError, match=what) as stopped:
        archive.append([answer("b.mp4")])
    archive.close()
    (saved,) = tmp_path.rglob("o-saved-*.jsonl")
    assert str(saved) in str(stopped.value) and [r["video"] for r in lines(saved)] == videos
    assert (out.read_bytes() if out.exists() else None) == found  # theirs is left as it is


@pytest.mark.parametrize("change", [removed, replaced, folder_removed], ids=lambda change: change.__name__)
def test_it_is_noticed_at_the_end_and_before_an_old_answer_is_read(tmp_path, change, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for use in (Archive.close, lambda archive: archive.answer("k")):
        out = tmp_path / "folder" / "o.jsonl"
        out.parent.mkdir(exist_ok=True)
        out.unlink(missing_ok=True)
        archive = opened(out)
        archive.append([answer("a.mp4", key="k")])
        change(out)
        with pytest.raises(CgError, match="saved-"):
            use(archive)
