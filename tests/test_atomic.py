"""Files are replaced whole, under names that nobody guesses, and no link that lies in the way is followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from cg_cli.errors import UsageError
from cg_cli.predictors import files
from cg_cli.profiling.sweep import _Lines
from cg_cli.pruning.predictor import DirectionPredictor, PredictorMetadata
from cg_cli.util.atomic import atomic_path, write_atomic
from cg_cli.util.checkpoints import save_checkpoint


@pytest.fixture
def victim(tmp_path) -> Path:
    path = tmp_path / "victim"
    path.write_text("precious")
    path.chmod(0o666)
    return path


def save_predictor(path: Path) -> None:
    torch.manual_seed(0)
    files.save(DirectionPredictor(PredictorMetadata("m", "r", "f", 8, hidden=4, queries=2, components=4)), path)


WRITERS = {
    "text": lambda path: write_atomic(path, "new"),
    "checkpoint": lambda path: save_checkpoint({"x": 1}, path),
    "predictor": save_predictor,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_link_in_the_way_is_replaced(tmp_path, victim, kind):
    target = tmp_path / "out.bin"
    target.symlink_to(victim)
    WRITERS[kind](target)
    assert victim.read_text() == "precious" and not target.is_symlink() and target.stat().st_size > 0
    assert not target.stat().st_mode & 0o022  # what the link led to says nothing about the new file's mode


def test_a_sheet_does_not_go_through_a_link(tmp_path, victim):
    from PIL import Image

    from cg_cli.viz import sheet

    original, sheet.draw = sheet.draw, lambda scene: Image.new("RGB", (8, 8))
    try:
        (tmp_path / "clip.png").symlink_to(victim)
        sheet.write(tmp_path / "clip.png", None)  # type: ignore[arg-type]
    finally:
        sheet.draw = original
    assert victim.read_text() == "precious" and (tmp_path / "clip.png").read_bytes()[1:4] == b"PNG"


def test_the_mode_of_a_file_stays_and_no_more_than_that(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    path.chmod(0o4640)
    write_atomic(path, "y")
    assert path.stat().st_mode & 0o7777 == 0o640


def test_the_temporary_name_is_another_each_time_and_goes(tmp_path):
    names = set()
    for _ in range(3):
        with pytest.raises(KeyError), atomic_path(tmp_path / "a") as temporary:
            names.add(temporary.name)
            raise KeyError
    assert len(names) == 3 and os.listdir(tmp_path) == []


def test_drawing_over_a_film_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from cg_cli.errors import CgError
    from cg_cli.viz import overlay

    monkeypatch.chdir(tmp_path)
    for name in ("multiprocessing", "signal", "av", "pickle"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'flag')!r}, 'w')")
    monkeypatch.setattr(overlay, "frame_overlay", lambda scene: None)
    with pytest.raises(CgError, match=r"cannot draw over .*missing\.mp4"):
        overlay.write(
            tmp_path / "out.mp4", SimpleNamespace(grids=1, video="missing.mp4", clip=SimpleNamespace(audio_track=1))
        )
    assert not (tmp_path / "flag").exists() and "PYTHONSAFEPATH" not in os.environ


def test_the_measurements_of_a_profile_are_no_link(tmp_path, victim):
    (tmp_path / "measured.jsonl").symlink_to(victim)
    with pytest.raises(UsageError, match="is a link"):
        _Lines(tmp_path / "measured.jsonl", "recipe", {})
    assert victim.read_text() == "precious"
