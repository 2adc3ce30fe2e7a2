"""Settings: which layer wins, what a wrong file is told, the starter file, `cg config`, and completion."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cg_cli.commands import parameters
from cg_cli.errors import UsageError
from cg_cli.settings import files, resolve
from cg_cli.settings.table import SETTINGS


@pytest.fixture
def places(tmp_path: Path, monkeypatch):
    """Writers of the three config files: the user's, the project's (in a folder above), and one that is named."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "cg").mkdir(parents=True)
    inner = tmp_path / "project" / "deep"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    files = {
        "user": tmp_path / "xdg" / "cg" / "config.yaml",
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
    user = places("user", "keep: 0.1\nfps: 3\nmax-frames: 10\nseed: 1\npreset: light\n")
    assert effective()["keep"] == {"value": 0.1, "from": f"user config {user}"}
    project = places("project", "keep: 0.2\nmax-frames: 20\nseed: 2\n")
    named = places("named", "keep: 0.3\nseed: 3\n")
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
    places("project", "keep: 0.2\nmax-frames: 20\n")
    shown = json.loads(cg("config", "--json", "--seed", "7")[1])
    used = resolve.resolve_settings({"seed": 7})
    assert {name: shown[name.replace("_", "-")]["value"] for name in SETTINGS} == {
        name: getattr(used, name) for name in SETTINGS
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
        ("fps: -1\n", "--fps must be above 0 and at most 1000, not -1.0 (from project config"),
        ("preset: papper\n", "no preset 'papper', did you mean 'paper'?"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_key(places, text: str, message: str):
    path = places("project", text)
    with pytest.raises(UsageError) as caught:
        resolve.resolve_settings({})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or "preset" in message


@pytest.mark.parametrize(("written", "text"), [("off", "off"), ("8", "8"), ("exact", "exact"), ('"off"', "off")])
def test_looking_once_needs_no_quotes(places, written: str, text: str):
    places("project", f"look-once: {written}\n")
    assert resolve.resolve_settings({}).look_once == text


def test_a_current_folder_that_is_gone_has_no_project(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert files.project_file() is None and resolve.resolve_settings({}).model == "auto"


def test_what_is_named_like_a_project_file_and_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "cg.yaml").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="cg.yaml: Is a directory"):
        resolve.resolve_settings({})


def test_an_empty_file_says_nothing(places):
    places("project", "# model: nano\n")
    assert resolve.resolve_settings({}).model == "auto"


def test_a_starter_file_holds_every_setting_and_changes_none(places, cg, tmp_path: Path):
    path = tmp_path / "starter.yaml"
    assert cg("config", "--init", str(path))[0] == 0
    text = path.read_text()
    assert files.read(path, SETTINGS) == {}
    plain = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ") and ": " in line]
    settings = {line.partition(":")[0]: line for line in plain if line.partition(":")[0].replace("-", "_") in SETTINGS}
    assert len(settings) == len(SETTINGS)
    filled = yaml.safe_load("\n".join(settings.values()))
    assert {key.replace("-", "_"): value for key, value in filled.items()} == resolve.defaults()
    places("project", "\n".join(settings.values()))
    assert {
        name: getattr(resolve.resolve_settings({}), name) for name in SETTINGS
    } == resolve.defaults()  # as it is, uncommented
    for name in SETTINGS:
        assert parameters.help_text(SETTINGS[name]) in text
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


@pytest.mark.parametrize(
    ("file", "environment", "flags", "expected"),
    [
        ("keep: 0.45", {}, {"preset": "strong"}, ("contextguard", 0.25)),
        ("keep: 0.45", {}, {"preset": "full"}, ("none", 1.0)),
        ("keep: 0.45\npruner: random", {}, {"preset": "strong"}, ("contextguard", 0.25)),
        ("keep: 0.45", {}, {"preset": "strong", "keep": 0.6}, ("contextguard", 0.6)),
        ("preset: strong", {}, {"keep": 0.6}, ("contextguard", 0.6)),
        ("preset: strong\nkeep: 0.3", {}, {}, ("contextguard", 0.3)),
        ("preset: strong", {"keep": 0.5}, {}, ("contextguard", 0.5)),
        ("keep: 0.3", {"preset": "strong"}, {}, ("contextguard", 0.25)),
        ("", {"keep": 0.5}, {"preset": "strong"}, ("contextguard", 0.25)),
        ("", {"preset": "strong"}, {"preset": "light"}, ("contextguard", 0.65)),
        ("", {"preset": "strong"}, {"pruner": "random"}, ("random", 0.25)),
        ("keep: 0.3", {}, {"pruner": "none"}, ("none", 1.0)),
        ("preset: full", {}, {"preset": "online"}, ("contextguard-online", 0.45)),
    ],
)
def test_a_preset_counts_as_said_where_it_is_named(places, file, environment, flags, expected):
    places("project", file or "# nothing\n")
    levels = [resolve.Level.of(environment, "environment"), resolve.Level.of(flags, "flag")]
    settings = resolve.resolve_with_sources(levels).settings
    assert (settings.pruner, settings.keep) == expected


def test_a_preset_on_the_command_line_beats_the_environment_and_is_beaten_by_a_flag(places, cg, monkeypatch):
    monkeypatch.setenv("CG_KEEP", "0.5")
    shown = json.loads(cg("config", "--json", "--preset", "strong")[1])
    assert shown["keep"] == {"value": 0.25, "from": "preset strong"}
    shown = json.loads(cg("config", "--json", "--preset", "strong", "--keep", "0.3")[1])
    assert shown["keep"] == {"value": 0.3, "from": "flag --keep"}


def test_the_options_of_one_preset_s_pruner_are_no_other_s(places, tmp_path: Path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nkeep: 0.5\npruner: divprune\noptions: {window: 2}\n")
    assert resolve.resolve_settings({"preset": str(mine)}).pruner_options == {"window": 2}
    assert resolve.resolve_settings({"preset": str(mine), "pruner": "random"}).pruner_options == {}
    assert resolve.resolve_settings({"preset": str(mine), "pruner": "divprune"}).pruner_options == {"window": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "flaot32"], "--dtype"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--device", "toaster"], "toaster"),
        (["--model", "nanno"], "did you mean 'nano'"),
        (["--temperature", "nan"], "--temperature"),
        (["--decode-timeout", "inf"], "--decode-timeout"),
        (["--preset", "papper"], "did you mean 'paper'"),
    ],
)
def test_config_shows_no_invalid_value_as_valid(cg, arguments, message):
    code, out, err = cg("config", *arguments)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1


def test_every_setting_has_one_declaration_that_everything_is_made_from():
    names = {entry.name for entry in dataclasses.fields(resolve.Settings)} - {"pruner_options", "certificate"}
    assert set(SETTINGS) == names == set(resolve.defaults())
    for setting in SETTINGS.values():
        setting.check(resolve.defaults()[setting.name])
        assert setting.help and setting.panel
        assert setting.flag is None or setting.flag.startswith("--")
    assert len({setting.flag for setting in SETTINGS.values() if setting.flag}) == sum(
        s.flag is not None for s in SETTINGS.values()
    )


@pytest.mark.parametrize(
    "command", ["ask", "batch", "profile", "calibrate", "fetch-predictor", "train-predictor", "config", "doctor"]
)
def test_help_loses_no_word_to_markup(cg, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    code, out, _ = cg(command, "--help")
    assert code == 0
    flat = "".join(character for character in out if character not in "│╭╮╰╯─ \n")
    scope = {"fetch-predictor": "fetch", "train-predictor": "train"}.get(command, command)
    for setting in SETTINGS.values():
        if setting.flag and (scope == "config" or scope in setting.commands):
            assert parameters.help_text(setting).replace(" ", "") in flat
    if command == "fetch-predictor":
        assert "OWNER/NAME[@REVISION]" in out
    if command == "ask":
        assert "cg-cli[quantize]" in out


def test_merging_of_a_preset_is_that_of_its_pruner_alone(places, tmp_path: Path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nkeep: 0.5\npruner: divprune\nmerge: nearest\n")
    assert resolve.resolve_settings({"preset": str(mine)}).merge == "nearest"
    assert resolve.resolve_settings({"preset": str(mine), "pruner": "random"}).merge == "auto"
    assert resolve.resolve_settings({"preset": str(mine), "merge": "none"}).merge == "none"
    places("project", "merge: nearest\n")  # said by a person, so it holds for any pruner
    assert resolve.resolve_settings({"pruner": "random"}).merge == "nearest"
