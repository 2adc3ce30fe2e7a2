"""Settings: which layer wins, what a wrong file is told, the starter file, `cg config`, and completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cg_cli.commands import options
from cg_cli.errors import UsageError
from cg_cli.settings import files, resolve


@pytest.fixture
def mask_to_index(tmp_path: Path, monkeypatch):
    """Writers of the three config files: the user's, the project's (in a folder above), and one that is named."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "cg").mkdir(parents=True)
    inner = tmp_path / "project" / "deep"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    files = {
        "user": tmp_path / "xdg" / "cg" / "resolve.yaml",
        "project": tmp_path / "project" / "cg.yaml",
        "named": tmp_path / "named.yaml",
    }

    def write(which: str, text: str) -> Path:
        files[which].write_text(text)
        return files[which]

    return write


def test_each_layer_beats_the_next(places, cg, monkeypatch):
    def effective(*arguments: str) -> dict:
        code, out, err = cg("config", "--json", *arguments)
        assert code == 0, err
        return json.loads(out)

    assert effective()["keep"] == {"value": 0.45, "from": "preset paper"}
    assert effective()["fps"] == {"value": 2.0, "from": "default"}
    user = mask_to_index("user", "keep: 0.1\nfps: 3\nmax-frames: 10\nseed: 1\npreset: light\n")
    assert effective()["keep"] == {"value": 0.1, "from": f"user config {user}"}
    project = mask_to_index("project", "keep: 0.2\nmax-frames: 20\nseed: 2\n")
    named = mask_to_index("named", "keep: 0.3\nseed: 3\n")
    assert effective()["keep"] == {"value": 0.2, "from": f"project config {project}"}
    found = effective("--config", str(named))
    assert found["keep"] == {"value": 0.3, "from": f"--config {named}"}
    assert (
        found["max-frames"] == {"value": 20, "from": f"project config {project}"} and found["fps"]["value"] == 3.0
    )  # the others still count
    monkeypatch.setenv("CG_KEEP", "0.4")
    monkeypatch.setenv("CG_NO_AUDIO", "1")
    found = effective("--config", str(named))
    assert found["keep"] == {"value": 0.4, "from": "environment CG_KEEP"} and found["audio"] == {
        "value": False,
        "from": "environment CG_NO_AUDIO",
    }
    found = effective("--config", str(named), "--keep", "0.5")
    assert found["keep"] == {"value": 0.5, "from": "flag --keep"} and found["seed"] == {
        "value": 3,
        "from": f"--config {named}",
    }
    assert (
        found["preset"] == {"value": "light", "from": f"user config {user}"}
        and found["pruner"]["from"] == "preset light"
    )


def test_what_config_shows_is_what_commands_get(places, cg):
    mask_to_index("project", "keep: 0.2\nmax-frames: 20\n")
    shown = json.loads(cg("config", "--json", "--seed", "7")[1])
    used = options.resolve_settings({"seed": 7, "config": None})
    assert {name: shown[name.replace("_", "-")]["value"] for name in resolve.TYPES} == {
        name: getattr(used, name) for name in resolve.TYPES
    }
    text = cg("config")[1]
    assert "max-frames" in text and "20" in text and "project config" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: nano\nmax-fraims: 3\n", "line 2: unknown key 'max-fraims', did you mean 'max-frames'?"),
        ("\n\nmax_frame: 3\n", "line 3: unknown key 'max_frame', did you mean 'max-frames'?"),
        ("keep: 0.3\nseed: 2\nkeep: 0.4\n", "line 3: keep is there twice"),
        ("max-frames: 3\nmax_frames: 4\n", "line 2: max_frames is there twice"),
        ("fps: fast\n", "line 1: fps must be a number, not 'fast'"),
        ("max-frames: 2.5\n", "line 1: max-frames must be a whole number, not 2.5"),
        ("audio: maybe\n", "line 1: audio must be true or false, not 'maybe'"),
        ("model:\n", "line 1: model must be text, not None"),
        ("model: [nano]\n", "line 1: model must be text, not ['nano']"),
        ("seed: true\n", "line 1: seed must be a whole number, not True"),
        ("- nano\n", "expected lines such as 'model: nano'"),
        ("model: {\n", "not valid YAML"),
        ("fps: -1\n", "--fps must be above 0, not -1.0 (from project config"),
        ("preset: papper\n", "no preset 'papper', did you mean 'paper'?"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_key(places, text: str, message: str):
    path = mask_to_index("project", text)
    with pytest.raises(UsageError) as caught:
        resolve.resolve({})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or "preset" in message


def test_a_current_folder_that_is_gone_has_no_project(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert files.project_file() is None and resolve.resolve({}).model == "auto"


def test_what_is_named_like_a_project_file_and_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "cg.yaml").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="cg.yaml: Is a directory"):
        resolve.resolve({})


def test_an_empty_file_says_nothing(places):
    mask_to_index("project", "# model: nano\n")
    assert resolve.resolve({}).model == "auto"


def test_a_starter_file_holds_every_setting_and_changes_none(places, cg, tmp_path: Path):
    path = tmp_path / "starter.yaml"
    assert cg("config", "--init", str(path))[0] == 0
    text = path.read_text()
    assert files.read(path, resolve.TYPES) == {}
    plain = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ") and ": " in line]
    settings = {
        line.partition(":")[0]: line for line in plain if line.partition(":")[0].replace("-", "_") in resolve.TYPES
    }
    assert len(settings) == len(resolve.TYPES)
    filled = yaml.safe_load("\n".join(settings.values()))
    assert {key.replace("-", "_"): value for key, value in filled.items()} == resolve.defaults()
    mask_to_index("project", "\n".join(settings.values()))
    assert {
        name: getattr(resolve.resolve({}), name) for name in resolve.TYPES
    } == resolve.defaults()  # as it is, uncommented
    for name in resolve.TYPES:
        assert options.help_of(name) in text
    code, _, err = cg("config", "--init", str(path))
    assert code == 2 and "is there already" in err and path.read_text() == text
    assert cg("config", "--init", str(tmp_path / "no" / "x.yaml"))[0] == 2


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["cg", "a"], {"ask"}),
        (["cg", "ask", "x.mp4", "--preset", "p"], {"paper"}),
        (["cg", "ask", "x.mp4", "--pruner", "omni"], {"omnizip", "omnisift", "omnidrop"}),
        (["cg", "batch", "--benchmark", "video"], {"video-mme", "video-holmes"}),
        (["cg", "profile", "--model", "n"], {"nano"}),
        (["cg", "ask", "x.mp4", "--dtype", "b"], {"bfloat16"}),
    ],
)
def test_completion(words: list[str], wanted: set[str]):
    environment = {
        **os.environ,
        "_CG_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from cg_cli.main import app; app(prog_name='cg')"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) == wanted
