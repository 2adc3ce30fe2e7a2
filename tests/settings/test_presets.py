"""Presets: the bundled ones are sound, and a wrong one is explained in one line."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cg_cli.errors import UsageError
from cg_cli.media import DecodeOptions
from cg_cli.media.sizes import fit_size, frame_count, linspace
from cg_cli.pruning import registry
from cg_cli.settings import presets
from cg_cli.settings.resolve import decode_options, resolve_settings

KEEPS = {
    "full": 1.0,
    "light": 0.65,
    "paper": 0.45,
    "strong": 0.25,
    "extreme": 0.10,
    "online": 0.45,
    "qwen-omni": 0.45,
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
        ("papr", "no preset 'papr', did you mean 'paper'.*extreme, full, light, online, paper, qwen-omni, strong"),
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
    for written, text in (("off", "off"), ("8", "8"), ('"8"', "8"), ("exact", "exact")):
        assert presets.parse(GOOD + f"media: {{look-once: {written}}}\n", "x").media == {"look_once": text}
    with pytest.raises(UsageError, match="look-once must be text, not 8.5"):
        presets.parse(GOOD + "media: {look-once: 8.5}\n", "x")
    path.write_text(GOOD + "media: {min-frames: 200}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="--frames all: give uniform, pairs, change or linspace"):
        resolve_settings({"frames": "all"}, config_files=False)
    with pytest.raises(UsageError, match="min-frames must be between 0 and --max-frames 128, not 200"):
        resolve_settings({"preset": str(path)})


# (seconds, frames of the file a second): few frames, halves of a frame of 0.1 s, and around the cap.
LENGTHS = [
    (0.5, 24), (1, 25), (1.6, 25), (1.65, 20), (1.75, 24), (3.3, Fraction(30000, 1001)), (10, 25), (10, 6), (76.6, 10),
    (76.7, 30), (76.8, 25), (77, 24), (90, 8), (300, Fraction(24000, 1001)), (3600, 25),
]  # fmt: skip
SHAPES = [(1920, 1080), (1440, 1080), (1080, 1920), (3840, 2160), (320, 240), (96, 64)]


def reading(preset: str) -> DecodeOptions:
    """How a family of 28 x 28 patches and grids of two frames reads a file with ``preset``."""
    family = SimpleNamespace(side_multiple=28, frame_multiple=2, audio_on_clock=True, stereo_gain=0.5)
    return decode_options(resolve_settings({"preset": preset}, config_files=False), family)


def smart_resize(width: int, height: int, max_pixels: float) -> tuple[int, int]:
    """(width, height) by the rule of the Qwen families, for frames that are not enlarged."""
    fitted = round(width / 28) * 28, round(height / 28) * 28
    if fitted[0] * fitted[1] <= max_pixels:
        return fitted
    shrink = math.sqrt(width * height / max_pixels)
    return math.floor(width / shrink / 28) * 28, math.floor(height / shrink / 28) * 28


@pytest.mark.parametrize(("seconds", "fps"), LENGTHS)
def test_video_salmonn2_reads_the_frames_that_its_authors_do(seconds: float, fps: Fraction):
    options, total = reading("video-salmonn2"), round(seconds * fps)
    wanted = min(max(round(seconds / 0.1), 16), 768)
    step = Fraction(total - 1, max(1, wanted - 1))
    exact = sorted({math.floor(number * step) for number in range(wanted)})
    numbers = linspace(total, frame_count(Fraction(str(seconds)), options))
    assert numbers == np.unique(np.linspace(0, total - 1, wanted, dtype=int)).tolist() and len(numbers) == len(exact)
    # In floating point a product may fall just below a whole number.
    assert all(one in (other, other - 1) for one, other in zip(numbers, exact))
    count = len(numbers)
    pixels = 61250 if count == 768 else 0.95 * 768 / count * 61250
    for width, height in SHAPES:
        size = fit_size(width, height, options.frame_pixels(count), options.side_multiple)
        assert size == smart_resize(width, height, pixels), (width, height)


def test_the_frames_of_video_salmonn2_follow_the_options():
    settings = resolve_settings({"preset": "video-salmonn2", "max_frames": 100, "max_pixels": 50_000})
    family = SimpleNamespace(side_multiple=28, frame_multiple=2, audio_on_clock=False, stereo_gain=1.0)
    options = decode_options(settings, family)
    assert (frame_count(Fraction(77), options), options.frame_pixels(100)) == (100, 50_000)
    assert options.frame_pixels(50) == pytest.approx(95_000) and options.frame_pixels(101) == 50_000
    assert (options.audio_on_clock, options.stereo_gain) == (False, 1.0)


@pytest.mark.parametrize(("seconds", "fps"), LENGTHS)
def test_qwen_omni_reads_as_many_frames_of_the_size_that_qwens_code_does(seconds: float, fps: Fraction):
    options, total = reading("qwen-omni"), round(seconds * fps)
    theirs = math.floor(min(max(2 * seconds, 4), 768, total) / 2) * 2
    count = frame_count(Fraction(str(seconds)), options)
    assert count % 2 == 0 and theirs <= count <= theirs + 2
    pixels = min(768 * 784, 128_000 * 784 * 0.9 / count * 2)
    for width, height in SHAPES:
        size = fit_size(width, height, options.frame_pixels(count), options.side_multiple)
        assert size == smart_resize(width, height, pixels), (width, height)


def test_a_preset_may_say_how_the_model_is_run(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(GOOD + "positions: inference\nrepetition-penalty: 1.05\nadapter: someone/lora\n")
    settings = resolve_settings({"preset": str(path)}, config_files=False)
    assert (settings.positions, settings.repetition_penalty, settings.adapter) == ("inference", 1.05, "someone/lora")
    over = resolve_settings({"preset": str(path), "positions": "auto"}, config_files=False)
    assert (over.positions, over.repetition_penalty) == ("auto", 1.05)
    for line, message in [
        ("positions: nowhere", "--positions nowhere: give auto, training or inference"),
        ("repetition-penalty: 0", "--repetition-penalty must be above 0, not 0 "),
        ("repetition-penalty: much", "repetition-penalty must be a number, not 'much'"),
        ("repetition_penalty: 1.1", "unknown key 'repetition_penalty', did you mean 'repetition-penalty'"),
        ("adapter: 3", "adapter must be text, not 3"),
    ]:
        path.write_text(f"{GOOD}{line}\n")
        with pytest.raises(UsageError, match=message):
            resolve_settings({"preset": str(path)}, config_files=False)
