"""Config files and presets of anybody's: bounded, regular, one line for what is wrong, and a thousand mutants of
each."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest
from helpers.odd_files import odd_file

from cg_cli.errors import UsageError
from cg_cli.settings import files, presets
from cg_cli.settings.table import SETTINGS
from cg_cli.util.yaml import YamlError, parse_yaml

pytestmark = pytest.mark.slow

LETTERS = "bcdefghi"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{letter}: &{letter} [{','.join([f'*{chr(ord(letter) - 1)}'] * 9)}]\n" for letter in LETTERS
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{letter}: &{letter} {{<<: [{','.join([f'*{chr(ord(letter) - 1)}'] * 9)}]}}\n" for letter in LETTERS
)
BOMBS = {
    "aliases": (BOMB, "more than 10,000 keys and values"),
    "merges": (MERGES, "more than 10,000 keys and values"),
    "chain": ("a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 4000)), "nested more than 50"),
    "itself": ("a: &a [*a]\n", "an alias to what it is a part of"),
    "itself as a key": ("&a {*a : 1}\n", "an alias to what it is a part of"),
    "keys": ("".join(f"k{i}: 1\n" for i in range(80_000)), "more than 10,000 keys and values"),
    "brackets": ("[" * 10_000, "nested more than 50"),
    "braces": ("{a: " * 10_000, "nested more than 50"),
    "indents": ("".join(f"{' ' * i}a:\n" for i in range(900)), "nested more than 50"),
    "large": ("#" * ((1 << 20) + 1), "larger than 1 MiB"),
    "number": ("seed: " + "9" * 5000, "a number of more than 100 digits"),
    "hex": ("seed: 0x" + "f" * 5000, "a number of more than 100 digits"),
    "sexagesimal": ("seed: 1" + ":1" * 5000, "a number of more than 100 digits"),
    "date": ("seed: 2001-99-99", "not what its tag says"),
    "tag": ("seed: !!int ''", "not what its tag says"),
    "surrogate": ('model: "\\ud800"', "surrogate"),
    "long key": ("k" * 5000 + "x: 1\n", "broken YAML|not valid YAML|unknown key|expected"),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("what", ["config", "preset"])
def test_a_bomb_is_one_line_at_once(name, what, tmp_path):
    text, message = BOMBS[name]
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    started = time.perf_counter()
    with pytest.raises(UsageError, match=message) as caught:
        files.read(path, SETTINGS) if what == "config" else presets.load(str(path))
    assert time.perf_counter() - started < 5
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "socket"])
@pytest.mark.parametrize("what", ["config", "preset"])
def test_what_is_no_regular_file_is_not_waited_for(kind, what, tmp_path):
    path = tmp_path / "odd.yaml"
    if kind != "socket":
        odd_file(path, kind)
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(tmp_path)  # a socket's path is short
            listener.bind("odd.yaml")
    with pytest.raises(UsageError, match="odd.yaml: (not a regular file|Is a directory|No such device)"):
        files.read(path, SETTINGS) if what == "config" else presets.load(str(path))


def test_aliases_that_multiply_little_are_fine():
    data, _ = parse_yaml("a: &a [1, 2]\nb: [*a, *a]\nc: {<<: {d: *a}}\n")
    assert data == {"a": [1, 2], "b": [[1, 2], [1, 2]], "c": {"d": [1, 2]}}


PIECES = [
    b"&a ", b"*a", b"<<: ", b"!!int ", b"!!timestamp ", b"!!binary ", b"!!python/object/apply:os.system [id]",
    b"{", b"}", b"[",
    b"]", b": ", b"- ", b"? ", b"\n", b"\n  ", b"\t", b"'", b'"', b"|\n", b"0x", b"1:1:1", b".nan", b"1e999",
    b"2001-01-01",
    b"~", b"\x00", b"\xff", b"\xc2\x9b", b"\x1b[2J", b"\xe2\x80\xae", b"%TAG ! x\n", b"---\n", b"...", b"9" * 200,
    b"null",
    b"\\ud800", b"yes", b"keep", b"model",
]  # fmt: skip


def mutant(seed: bytes, chance: random.Random) -> bytes:
    """``seed`` with a few bytes changed, pieces put in, and parts cut, doubled or moved."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randint(1, 40))
        kind = chance.randrange(5)
        if kind == 0 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 1:
            data[at:at] = chance.choice(PIECES)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * chance.randint(1, 50)
        else:
            data[at:end] = chance.choice(PIECES)
    return bytes(data)


CONFIG = b"model: nano\nkeep: 0.3\nmax-frames: 64\naudio: true\nshow-dir: sheets\npreset: strong\n# more\nfps: 2.5\n"
PRESET = (
    b"name: mine\nkeep: 0.5\npruner: contextguard\ndescription: >\n  what it\n  does\n"
    b"options: {seed: 3, a: [1, {b: c}]}\nmedia: &m\n  max-frames: 12\n  fps: 1.5\n"
)


def test_a_thousand_configs_are_read_or_refused_in_one_line(tmp_path):
    chance, path, fine = random.Random(18), tmp_path / "mutant.yaml", 0
    for _ in range(1000):
        path.write_bytes(mutant(CONFIG, chance))
        try:
            values = files.read(path, SETTINGS)
        except UsageError as error:
            assert len(str(error).splitlines()) == 1 and str(path) in str(error), path.read_bytes()
            continue
        fine += 1
        assert all(type(value) is SETTINGS[name].kind for name, value in values.items())
    assert 50 < fine < 950


def test_a_thousand_presets_are_read_or_refused_in_one_line(tmp_path):
    chance, path, fine = random.Random(19), tmp_path / "mutant.yaml", 0
    for _ in range(1000):
        path.write_bytes(mutant(PRESET, chance))
        try:
            preset = presets.load(str(path))
        except UsageError as error:
            assert len(str(error).splitlines()) == 1 and str(path) in str(error), path.read_bytes()
            continue
        fine += 1
        assert (
            0 < preset.keep <= 1 and isinstance(preset.name, str) and json.dumps(dict(preset.options), allow_nan=False)
        )
    assert 50 < fine < 950


def test_a_thousand_texts_are_yaml_or_one_error(tmp_path):
    chance = random.Random(20)
    for _ in range(1000):
        try:
            parse_yaml(mutant(BOMB.encode() if chance.random() < 0.1 else PRESET, chance))
        except (YamlError, UnicodeDecodeError):
            continue


def test_a_setting_of_a_mutant_config_is_refused_by_name_or_counts(tmp_path: Path, monkeypatch):
    from cg_cli.settings.resolve import resolve_settings

    monkeypatch.chdir(tmp_path)
    chance = random.Random(21)
    for _ in range(200):
        (tmp_path / "named.yaml").write_bytes(mutant(CONFIG, chance))
        try:
            resolve_settings({}, tmp_path / "named.yaml")
        except UsageError as error:
            assert len(str(error).splitlines()) == 1


ODD_NAMES = [
    "a\0b.yaml", "x" * 5000, "x" * 5000 + ".yaml",
    "~nouser/x", "~nouser/x.yaml", "\udcff.yaml", "../" * 3000 + "a.yaml",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("key", ["model", "preset", "pruner", "predictor"])
def test_a_name_that_no_file_can_have_is_one_line(key, name):
    from cg_cli.predictors import lookup
    from cg_cli.settings.resolve import resolve_settings

    with pytest.raises(UsageError) as caught:
        if key == "predictor":
            lookup.locate_predictor(name, "nano", "", offline=True)
        resolve_settings({key: name}, config_files=False)
    assert len(str(caught.value).splitlines()) == 1
