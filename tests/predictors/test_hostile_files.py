"""Predictor files and their manifests of anybody's: a predictor, or one line, and memory only for what is there."""

from __future__ import annotations

import json
import random
import resource
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.odd_files import odd_file
from safetensors.torch import save_file

from cg_cli.errors import UsageError
from cg_cli.predictors import files, installed
from cg_cli.pruning.predictor import DIRECTION, WORDS, DirectionPredictor, PredictorMetadata, WordPredictor

METADATA = PredictorMetadata("m", "r", "f", 8, hidden=4, queries=2, components=3, validation={"cosine": 0.5})


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("made") / "a2v.safetensors"
    torch.manual_seed(0)
    files.save(DirectionPredictor(METADATA), path)
    return path.read_bytes()


def parts(data: bytes) -> tuple[dict, bytes]:
    """Header and tensors of a safetensors file."""
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(header: object, tensors: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        files.load(path)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 1000
    return str(caught.value)


HEADERS = {
    "length beyond the file": lambda data: struct.pack("<Q", 1 << 62) + data[8:],
    "length of 90 MB": lambda data: struct.pack("<Q", 90_000_000) + data[8:],
    "no length": lambda data: data[:5],
    "empty": lambda data: b"",
    "deep": lambda data: joined(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
    "a list": lambda data: joined([], b""),
    "huge shape": lambda data: joined({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, b"\0" * 4),
    "overflow": lambda data: joined(
        {"x": {"dtype": "F32", "shape": [1 << 40] * 3, "data_offsets": [0, 0]}}, b""
    ),
    "no bytes": lambda data: joined(
        {"x": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}}, b""
    ),
    "overlap": lambda data: joined({n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}, b"\0" * 4),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_an_absurd_header_is_one_line(weights, tmp_path, name):
    path = tmp_path / "a.safetensors"
    path.write_bytes(HEADERS[name](weights))
    refused(path)


CARDS = {
    "width": [0, -1, 2**31, 10**30, 1.5, "8", None, [8], True],
    "hidden": [0, -4, 10**9, 10**400, "x"],
    "queries": [0, -2, 10**12, {}],
    "components": [-1, 10**18, "3"],
    "window_s": [0, -1, "1", None, float("nan"), float("inf"), 10**400, True, []],
    "clips": ["x", -1, None, 1.5],
    "windows": [[], {}],
    "validation": [None, 3, "x", {"cosine": "x"}, {"cosine": [1]}, [1]],
    "backbone": [3, None, "a\nb", "\x1b[2J"],
    "unknown": [1],
    "kind": ["words", "other", None, 3, []],
    "words": [-1, "x", 2**31],
    "verdict": ["two\nlines", "\x1b[2J", None, 3],
}


@pytest.mark.parametrize("key", CARDS)
def test_a_card_that_lies_is_one_line_and_allocates_nothing(weights, tmp_path, key):
    path = tmp_path / "a.safetensors"
    header, tensors = parts(weights)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for value in CARDS[key]:
        card = json.loads(header["__metadata__"]["card"]) | {key: value}
        changed = header | {"__metadata__": header["__metadata__"] | {"card": json.dumps(card)}}
        path.write_bytes(joined(changed, tensors))
        assert "is damaged" in refused(path), value
    for card_text in ("[" * 100_000, "{", "[]", "3", "null", '{"width": 1e999}', "1" * 5000):
        changed = header | {"__metadata__": header["__metadata__"] | {"card": card_text}}
        path.write_bytes(joined(changed, tensors))
        assert "is damaged" in refused(path), card_text[:20]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_a_card_that_lies_about_its_words_is_one_line_and_allocates_nothing(tmp_path):
    path = tmp_path / "a.safetensors"
    files.save(WordPredictor(replace(METADATA, kind=WORDS, words=5)), path)
    header, tensors = parts(path.read_bytes())
    assert files.load(path).metadata.words == 5
    for change in ({"words": 0}, {"words": 6}, {"words": 2**31}, {"words": "5"}, {"kind": DIRECTION}):
        card = json.loads(header["__metadata__"]["card"]) | change
        changed = header | {"__metadata__": header["__metadata__"] | {"card": json.dumps(card)}}
        path.write_bytes(joined(changed, tensors))
        assert "is damaged" in refused(path), change


@pytest.mark.parametrize("written", ["cg.a2v-words/2", "cg.a2v/7", "cg.a2v-scenes/1"])
def test_a_kind_of_a_later_version_is_refused_in_a_line_that_says_what_to_do(weights, tmp_path, written):
    path = tmp_path / "a.safetensors"
    header, tensors = parts(weights)
    path.write_bytes(joined(header | {"__metadata__": header["__metadata__"] | {"format": written}}, tensors))
    message = refused(path)
    assert written in message and "update cg" in message and "cg train-predictor" in message
    assert not files.is_predictor(path)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.int64, torch.float8_e4m3fn, torch.float64])
def test_weights_of_an_odd_kind_are_a_predictor_or_one_line(weights, tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    state = {key: value.to(dtype) for key, value in DirectionPredictor(METADATA).state_dict().items()}
    header, _ = parts(weights)
    save_file(state, path, header["__metadata__"])
    try:
        files.load(path)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "large"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "a.safetensors"
    if kind != "large":
        odd_file(path, kind)
    else:
        with path.open("wb") as file:
            file.truncate(3 << 30)
    refused(path)


def test_a_thousand_mutants_are_a_predictor_or_one_line(weights, tmp_path):
    chance, path, fine = random.Random(18), tmp_path / "a.safetensors", 0
    size = struct.unpack("<Q", weights[:8])[0]
    for _ in range(1000):
        data = bytearray(weights)
        for _ in range(chance.randint(1, 4)):
            # half of it in the header, whose length stays true half of the time
            at = chance.randrange(8 + size if chance.random() < 0.5 else len(data)) % max(len(data), 1)
            end = at + chance.randint(1, 12)
            kind = chance.randrange(5)
            if kind == 0:
                data[at] = chance.randrange(256)
            elif kind == 1:
                data[at] = chance.choice(b'0123456789{}[]",:-e.\\')
            elif kind == 2:
                del data[at:end]
            elif kind == 3:
                data[at:at] = data[at:end] * chance.randint(1, 9)
            else:
                data[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
        if chance.random() < 0.5 and len(data) > 8:
            data[:8] = struct.pack("<Q", max(0, size + len(data) - len(weights)))
        path.write_bytes(data)
        try:
            predictor = files.load(path)
        except UsageError as error:
            assert len(str(error).splitlines()) == 1, bytes(data)
            continue
        fine += 1
        audio = torch.zeros(3, predictor.metadata.width)
        predictor(audio, torch.tensor([0, 0, 1]), 2)
    assert fine > 20


MANIFEST = {
    "schema": installed.SCHEMA, "name": "a2v", "source": "/x", "ref": None, "revision": None, "sha256": "0" * 64,
    "size": 5, "installed": "2026-01-01T00:00:00+00:00", "card": {"backbone": "m", "revision": "r", "width": 8},
}  # fmt: skip


def test_a_thousand_manifests_are_read_or_one_line(tmp_path):
    """Of what is installed; ``cg fetch-predictor`` lists what it reads."""
    from cg_cli.predictors import fetch

    chance = random.Random(19)
    path = installed.folder("a2v") / installed.MANIFEST
    path.parent.mkdir(parents=True)
    text = json.dumps(MANIFEST)
    values = [None, 3, -1, "", "x", [], {}, [[]], True, 1e300, "\x1b", "../../x", "\ud800"]
    for _ in range(1000):
        if chance.random() < 0.5:
            data = json.loads(text)
            target = data["card"] if chance.random() < 0.3 else data
            target[chance.choice(list(target))] = chance.choice(values)
            path.write_text(json.dumps(data))
        else:
            at = chance.randrange(len(text))
            piece = chance.choice(['"', "{", "}", "[" * 5000, "9" * 5000, "\x00", ",", "nul", "\\ud800", "é"])
            path.write_text(text[:at] + piece + text[at + chance.randint(0, 9) :], encoding="utf-8")
        try:
            rows = fetch.listing()
        except UsageError as error:
            assert len(str(error).splitlines()) == 1
            continue
        for row in rows:
            assert Path(row["path"]).is_relative_to(installed.root()) or row["name"] == "nano"
            assert isinstance(row["name"], str) and isinstance(row["backbone"], str) and isinstance(row["size"], int)
