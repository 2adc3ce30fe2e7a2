"""Output never destroys input: by any path, link or spelling, and over nobody else's file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers import SAMPLES

pytestmark = pytest.mark.slow


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """A folder with a clip under several names, a manifest, and files that cg did not write."""
    shutil.copy(SAMPLES / "drum.mp4", tmp_path / "clip.mp4")
    (tmp_path / "soft.mp4").symlink_to("clip.mp4")
    os.link(tmp_path / "clip.mp4", tmp_path / "hard.mp4")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up.mp4").symlink_to("../clip.mp4")
    (tmp_path / "list.jsonl").write_text('{"video": "clip.mp4", "question": "What is happening?"}\n')
    (tmp_path / "questions.txt").write_text("What is happening?\n")
    (tmp_path / "diary.txt").write_text("Dear diary\n")
    (tmp_path / "diary.jsonl").write_text('{"day": 1}\n')
    (tmp_path / "art.png").write_bytes(b"\x89PNG\r\n\x1a\n somebody's picture")
    (tmp_path / "page.html").write_text("<h1>somebody's page</h1>")
    (tmp_path / "data.json").write_text("{}")
    (tmp_path / "data.npz").write_bytes(b"PK")
    (tmp_path / "o.run.json").write_text('{"somebody": "else"}')
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "report.html").write_text("somebody's report")
    (tmp_path / "weights.safetensors").write_bytes(b"somebody's weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(folder: Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


ASK = ["ask", "clip.mp4", "What is happening?", "--model", "nano"]
BATCH = ["batch", "clip.mp4", "-q", "What is happening?", "--model", "nano"]
MANIFEST = ["batch", "list.jsonl", "--model", "nano"]
TRAIN = ["train-predictor", *["clip.mp4"] * 1, "--model", "nano"]


@pytest.mark.parametrize(
    "arguments",
    [
        *([*ASK, "--show", name] for name in ("clip.mp4", "soft.mp4", "hard.mp4", "./sub/../clip.mp4", "sub/up.mp4")),
        *([*ASK, "--show", name] for name in ("art.png", "page.html", "data.json", "data.npz", "gone/kept.png", "sub")),
        *(
            [*BATCH, "-o", name, "--overwrite"]
            for name in ("clip.mp4", "soft.mp4", "diary.txt", "diary.jsonl", "o.csv")
        ),
        *([*BATCH, "-o", name] for name in ("diary.txt", "o.parquet", "o.jsonl", "sub", "gone/o.jsonl")),
        *([*MANIFEST, "-o", name, "--overwrite"] for name in ("list.jsonl", "./list.jsonl", "clip.mp4")),
        [*BATCH, "--questions", "questions.txt", "-o", "questions.txt", "--overwrite"],
        ["profile", "clip.mp4", "--model", "nano", "--quick", "-o", "pages"],
        ["profile", "clip.mp4", "--model", "nano", "--quick", "-o", "diary.txt"],
        ["train-predictor", ".", "--model", "nano", "-o", "clip.mp4"],
        ["train-predictor", ".", "--model", "nano", "-o", "weights.safetensors"],
    ],
    ids=" ".join,
)
def test_nothing_that_is_there_is_written_over(cg, work, monkeypatch, arguments):
    from cg_cli.predictors import training
    from cg_cli.settings import models

    monkeypatch.setattr(training, "MIN_CLIPS", 1)
    monkeypatch.setattr(models, "load", lambda *a, **k: pytest.fail("nothing slow begins before"))
    before = state(work)
    code, out, err = cg(*arguments)
    assert code == 2 and out == "" and err.count("\n") == 1 and "--overwrite" not in err
    assert state(work) == before


@pytest.mark.parametrize("suffix", [".png", ".mp4", ".npz", ".json", ".html"])
def test_what_cg_wrote_is_written_over(cg, work, suffix):
    path = work / f"kept{suffix}"
    for keep in ("0.45", "0.3"):
        code, _, err = cg(*ASK, "--show", str(path), "--keep", keep, "-q")
        assert code == 0 and err == ""
    assert path.stat().st_size > 100


def test_an_archive_is_started_again_only_when_told(cg, work):
    out = work / "answers.jsonl"
    assert cg(*BATCH, "-o", str(out), "--quiet")[0] == 0
    first = out.read_text()
    assert cg(*BATCH, "-o", str(out), "--quiet")[0] == 0 and out.read_text() == first
    assert cg(*BATCH, "-o", str(out), "--quiet", "--overwrite")[0] == 0
    assert out.read_text() != first and out.read_text().count("\n") == 1


def test_a_profile_writes_no_pages_through_a_link(work, cg):
    (work / "elsewhere").mkdir()
    (work / "prof").mkdir()
    (work / "prof" / "pages").symlink_to(work / "elsewhere")
    code, _, err = cg("profile", "clip.mp4", "--model", "nano", "--quick", "-o", "prof")
    assert code == 2 and "pages in it is a link" in err and not list((work / "elsewhere").iterdir())
