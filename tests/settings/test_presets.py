"""Presets: the bundled ones are sound, and a wrong one is explained in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cg_cli.errors import UsageError
from cg_cli.pruning import registry
from cg_cli.settings import presets
from cg_cli.settings.resolve import resolve_settings

KEEPS = {
    "full": 1.0,
    "light": 0.65,
    "paper": 0.45,
    "strong": 0.25,
    "extreme": 0.10,
    "online": 0.45,
    "video-salmonn2": 0.45,
}
GOOD = "name: mine\nkeep: 0.5\npruner: random\noptions: {seed: 3}\n"


def test_the_bundled_presets():
    assert presets.names() == sorted(KEEPS)
    assert {name: presets.load(name).keep for name in presets.names()} == KEEPS
    assert presets.DEFAULT in KEEPS


@pytest.mark.parametrize("name", KEEPS)
def test_each_can_be_made_and_describes_itself(name: str):
    preset = presets.load(name)
    assert preset.name == name
    assert preset.description and "\n" not in preset.description
    registry.make(preset.pruner, **preset.options)
    assert (preset.pruner == "none") == (preset.keep == 1.0)  # `none` refuses any other keep


def test_a_file_by_path(tmp_path: Path):
    path = tmp_path / "my preset.yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert presets.load(str(path)) == presets.Preset("mine", 0.5, "random", options={"seed": 3})


def test_whole_numbers_are_ratios_too():
    keep = presets.parse("name: a\nkeep: 1\npruner: none\n", "x").keep
    assert keep == 1.0 and isinstance(keep, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "prunner: evs\n", "unknown key 'prunner', did you mean 'pruner'"),
        (GOOD + "7: evs\n", "unknown key '7'"),
        (GOOD + "merge: all\n", "--merge all: give auto, none or nearest"),
        ("name: mine\npruner: random\n", "the key 'keep' is missing"),
        (GOOD.replace("0.5", "half"), "keep must be a number, not 'half'"),
        (GOOD.replace("0.5", "yes"), "keep must be a number, not True"),
        (GOOD.replace("mine", "3"), "name must be text, not 3"),
        (GOOD.replace("random", "null"), "pruner must be text, not None"),
        (GOOD.replace("{seed: 3}", "[seed]"), "options must be keys and values"),
        (GOOD.replace("{seed: 3}", "{3: 3}"), "an option's name must be text"),
        (GOOD.replace("{seed: 3}", "{seed: 2001-01-01}"), "option seed cannot be datetime.date"),
        (GOOD.replace("{seed: 3}", "{seed: [{a: .inf}]}"), "option seed cannot be"),
        (GOOD.replace("0.5", "0"), "keep must be above 0 and at most 1, not 0"),
        (GOOD.replace("0.5", "1.01"), "at most 1, not 1.01"),
        (GOOD.replace("0.5", "-0.1"), "above 0"),
        (GOOD.replace("0.5", ".nan"), "above 0 and at most 1, not nan"),
        (GOOD.replace("random", "randm"), "no pruner 'randm', did you mean 'random'"),
        ("name: mine\nkeep: [0.5\npruner: x\n", r"line \d: broken YAML"),
        ("name: mine\nkeep: 0.5\n\tpruner: x\n", "line 3: broken YAML"),
        ("name: \x07\n", "broken YAML"),
        ("", "expected keys and values"),
        ("- a\n", "expected keys and values"),
        ("name: !!python/object/apply:os.getcwd []\n", "line 1: broken YAML"),
    ],
)
def test_a_wrong_preset_is_one_line_that_names_the_file(tmp_path: Path, text: str, message: str):
    path = tmp_path / "wrong.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        presets.load(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("papr", "no preset 'papr', did you mean 'paper'.*extreme, full, light, online, paper, strong"),
        ("../presets/paper", "no preset"),
        ("", "no preset"),
        ("nowhere/mine.yaml", "nowhere/mine.yaml: No such file.*extreme, full"),
    ],
)
def test_a_missing_preset_lists_what_there_is(name: str, message: str):
    with pytest.raises(UsageError, match=message):
        presets.load(name)


def test_a_file_that_is_not_text(tmp_path: Path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        presets.load(str(path))


def test_the_wheel_folder_comes_first_and_a_lost_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shipped = tmp_path / "preset_files"
    shipped.mkdir()
    (shipped / "mine.yaml").write_text(GOOD, encoding="utf-8")
    monkeypatch.setattr(presets, "FOLDERS", (shipped, presets.FOLDERS[1]))
    assert presets.names() == ["mine"]
    monkeypatch.setattr(presets, "FOLDERS", (tmp_path / "gone",))
    with pytest.raises(UsageError, match="reinstall"):
        presets.names()


def test_loading_imports_no_torch():
    code = (
        "import sys; from cg_cli.settings import presets; presets.load('paper');"
        "heavy = {'torch', 'numpy', 'pydantic'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_preset_can_say_how_the_video_is_read(tmp_path: Path):

    path = tmp_path / "mine.yaml"
    media = "media: {fps: 10, min-frames: 16, video-pixels: 1000000, frames: change}"
    path.write_text(f"{GOOD}{media}\n", encoding="utf-8")
    settings = resolve_settings({"preset": str(path), "fps": 5.0})
    assert settings.frames == "change" and resolve_settings({}, config_files=False).frames == "uniform"
    assert (settings.fps, settings.min_frames, settings.video_pixels, settings.max_frames) == (5.0, 16, 1_000_000, 128)
    for wrong, message in (
        ("{fsp: 3}", "unknown key 'fsp' in media, did you mean 'fps'"),
        ("{min-frames: 1.5}", "min-frames must be a whole number, not 1.5"),
        ("{fps: fast}", "fps must be a number, not 'fast'"),
        ("{frames: 3}", "frames must be text, not 3"),
        ("[fps]", "media must be keys and values"),
    ):
        with pytest.raises(UsageError, match=message):
            presets.parse(GOOD + f"media: {wrong}\n", "x")
    path.write_text(GOOD + "media: {min-frames: 200}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="--frames all: give uniform, pairs or change"):
        resolve_settings({"frames": "all"}, config_files=False)
    with pytest.raises(UsageError, match="min-frames must be between 0 and --max-frames 128, not 200"):
        resolve_settings({"preset": str(path)})


@pytest.mark.parametrize(("seconds", "frames", "tokens"), [(0.5, 16, 28_000), (10, 100, 28_000), (3600, 768, 28_000)])
def test_the_frame_policy_of_video_salmonn2_is_a_constant_budget(seconds: float, frames: int, tokens: int):
    from fractions import Fraction

    from cg_cli.media.clip import DecodeOptions
    from cg_cli.media.sizes import fit_size, frame_count

    s = resolve_settings({"preset": "video-salmonn2"})
    options = DecodeOptions(s.fps, s.max_frames, s.max_pixels, min_frames=s.min_frames, video_pixels=s.video_pixels)
    count = frame_count(Fraction(seconds), options)
    width, height = fit_size(3840, 2160, options.frame_pixels(count), 28)
    assert count == frames and count / 2 * width * height / 784 == pytest.approx(tokens, rel=0.12)
