"""The sample clips are at hand wherever the package is installed."""

from __future__ import annotations

import shutil

from helpers import SAMPLES

from cg_cli import samples


def test_they_are_listed_with_questions(cg):
    code, out, err = cg("samples")
    assert (code, err) == (0, "")
    names = [line.rpartition("/")[2] for line in out.splitlines() if not line.startswith(" ")]
    assert names == sorted(path.name for path in SAMPLES.glob("*.mp4"))
    assert "    Which colour has the drum?" in out.splitlines()


def test_they_are_copied_once_and_over_nothing(cg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cg("samples", "new/samples")
    copies = sorted((tmp_path / "new" / "samples").iterdir())
    assert code == 0 and sorted(out.splitlines()) == [f"new/samples/{path.name}" for path in copies]
    assert {path.name for path in copies} == {path.name for path in SAMPLES.iterdir()}
    assert all(path.read_bytes() == (SAMPLES / path.name).read_bytes() for path in copies)
    assert cg("samples", "new/samples")[0] == 0  # those that are there are left alone
    (tmp_path / "new" / "samples" / "dog.mp4").write_bytes(b"mine")
    code, _, err = cg("samples", "new/samples")
    assert code == 2 and "dog.mp4 exists, and is no sample" in err
    (tmp_path / "file").write_text("")
    assert cg("samples", "file")[0] == 2


def test_a_wheel_has_them_beside_the_package(tmp_path, monkeypatch):
    shutil.copytree(SAMPLES, tmp_path / "sample_files")
    monkeypatch.setattr(samples, "FOLDERS", (tmp_path / "sample_files", tmp_path / "nowhere"))
    assert {sample.path.parent for sample in samples.samples()} == {tmp_path / "sample_files"}
