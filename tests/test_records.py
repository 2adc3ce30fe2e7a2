"""The Answer record: its lines survive anything that a file name, a crash or a newer version can do to them."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cg_cli import records
from cg_cli.records import Answer, Failure, from_line, record_key, to_line, video_identity

ANSWER: dict[str, Any] = {
    "schema": "cg.answer/1",
    "ok": True,
    "key": "0" * 32,
    "id": None,
    "video": "a.mp4",
    "question": "Who barks?",
    "answer": "A dog.",
    "finish": "stop",
    "model": {
        "id": "nano",
        "revision": None,
        "family": "qwen2_5_omni",
        "device": "cpu",
        "device_name": "cpu",
        "dtype": "float32",
        "quantize": "none",
    },
    "pruner": {"name": "random", "preset": "paper", "keep": 0.45, "predictor": None, "options": {"seed": 1}},
    "media": {
        "duration_s": 8.0,
        "frames": 16,
        "fps": 2.0,
        "width": 224,
        "height": 224,
        "source_width": 640,
        "source_height": 480,
        "audio": "used",
        "audio_s": 8.0,
        "complete": True,
    },
    "tokens": {
        "video": 512,
        "video_kept": 120,
        "audio": 200,
        "audio_kept": 200,
        "text": 31,
        "keep": 0.4494,
        "question": 9,
        "answer": 4,
        "counted": "input",
    },
    "flops": {"vision": 1, "audio": 2, "predictor": 0, "prefill": 10**13, "prefill_full": 10**14, "decode": 5},
    "latency_s": {
        "media": 0.1,
        "encode": 0.2,
        "prune": 0.01,
        "prefill": 0.3,
        "decode": 0.4,
        "total": 1.01,
        "first_token": 0.05,
    },
    "memory": {"peak_bytes": 1, "kv_bytes": 2},
    "prefix_reused": True,
    "answered_together": 1,
    "warnings": ["audio resampled"],
}
FAILURE: dict[str, Any] = {
    "schema": "cg.answer/1",
    "ok": False,
    "key": "1" * 32,
    "id": "q7",
    "video": "b.mp4",
    "question": "Where?",
    "error": {"stage": "media", "type": "not_found", "message": "b.mp4: no such file"},
    "attempts": 2,
}
WITH_DEFAULT = {
    "schema",
    "ok",
    "id",
    "latency_s.first_token",
    "prefix_reused",
    "answered_together",
    "attempts",
    "warnings",
    "tokens.counted",
    "model.quantize",
}
KEY_INPUTS: dict[str, Any] = {
    "video": "10:20:aa",
    "question": "Who?",
    "model": "nano",
    "revision": "r1",
    "pruner": "random",
    "keep": 0.45,
    "options": {"seed": 1},
    "predictor": None,
    "fps": 2.0,
    "max_frames": 128,
    "max_pixels": 100_352,
    "audio": True,
    "max_new_tokens": 64,
    "temperature": 0.0,
    "seed": 0,
    "prompt_version": "1",
    "min_frames": 0,
    "video_pixels": 0,
}


def changed(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A deep copy of ``record`` with the value at the dotted ``path`` replaced."""
    result = copy.deepcopy(record)
    *parents, last = path.split(".")
    inner = result
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return result


def leaves(record: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths of every key of ``record``, inner ones included."""
    found = []
    for name, value in record.items():
        found.append(prefix + name)
        if isinstance(value, dict) and name != "options":
            found += leaves(value, f"{prefix}{name}.")
    return found


@pytest.mark.parametrize("record", [ANSWER, FAILURE], ids=["answer", "failure"])
def test_a_line_holds_the_contract_keys_in_order(record: dict[str, Any]):
    line = to_line(from_line(json.dumps(record)))
    assert json.loads(line) == record
    assert list(json.loads(line)) == list(record)


def test_types_by_ok():
    assert isinstance(from_line(json.dumps(ANSWER)), Answer)
    assert isinstance(from_line(json.dumps(FAILURE)), Failure)


def test_keys_of_a_newer_version_survive():
    newer = changed(changed(ANSWER, "tokens.merged", 3), "new", {"a": [1, None]})
    assert json.loads(to_line(from_line(json.dumps(newer)))) == newer


@pytest.mark.parametrize(
    "text",
    [
        "line\u2028and\u2029paragraph",
        "next\u0085line, tab\t, newline\n, return\r, \x0b\x0c\x1c\x1d\x1e",
        "\x1b[31mred\x9b31m\x7f",
        os.fsdecode(b"caf\xe9 \xff.mp4"),
        '日本語 émoji 🎬 \\ud800 "quoted"',
    ],
)
def test_any_text_makes_one_line_of_utf8_and_comes_back(text: str):
    record = Failure(key="k", video=text, question=text, error={"stage": "media", "type": "x", "message": text})
    line = to_line(record)
    assert len(line.splitlines()) == 1 and line.isprintable()
    back = from_line(line.encode("utf-8"))
    assert back == record
    assert os.fsencode(back.video) == os.fsencode(text)


def test_readable_text_is_not_escaped():
    assert "日本語 🎬" in to_line(Failure.model_validate(changed(FAILURE, "video", "日本語 🎬")))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("path", ["media.fps", "tokens.keep", "latency_s.total", "pruner.options", "extra"])
def test_nan_and_infinity_are_never_written(path: str, value: float):
    with pytest.raises(ValueError):
        to_line(Answer.model_validate(changed(ANSWER, path, {"a": [value]} if path == "pruner.options" else value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("answer", ""),
        ("finish", "tired"),
        ("schema", "cg.answer/2"),
        ("ok", False),
        ("pruner.keep", 0.0),
        ("tokens.video", -1),
        ("tokens.audio", 1.5),
        ("media.audio", "maybe"),
        ("video", 3),
    ],
)
def test_values_outside_the_contract_are_refused(path: str, value: Any):
    with pytest.raises(ValidationError):
        Answer.model_validate(changed(ANSWER, path, value))


@pytest.mark.parametrize("path", sorted(set(leaves(ANSWER)) - WITH_DEFAULT))
def test_a_key_without_default_may_not_be_missing(path: str):
    *parents, last = path.split(".")
    record = copy.deepcopy(ANSWER)
    inner = record
    for name in parents:
        inner = inner[name]
    del inner[last]
    with pytest.raises(ValidationError, match=last):
        Answer.model_validate(record)


def test_records_are_frozen():
    record = from_line(json.dumps(ANSWER))
    with pytest.raises(ValidationError):
        record.answer = "no"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"nonsense", "Expecting value"),
        (b'{"schema": "other/1"}', "not a cg.answer/1 record"),
        (b"[1]", "not a cg.answer/1 record"),
        (b'"\xff"', "decode"),
        (json.dumps(changed(ANSWER, "tokens.video", "many")).encode(), "tokens.video: "),
        (json.dumps(changed(ANSWER, "ok", "perhaps")).encode(), "ok: "),
    ],
)
def test_a_line_without_a_record_says_in_one_line_what_is_wrong(line: bytes, problem: str):
    with pytest.raises(ValueError, match=problem) as caught:
        from_line(line)
    assert "\n" not in str(caught.value)


def test_schema_names_every_key_of_both_shapes():
    schema = records.json_schema()
    json.dumps(schema, allow_nan=False)
    definitions = schema["$defs"]

    def keys(name: str) -> set[str]:
        definition = definitions[name]
        found = set()
        for key, value in definition["properties"].items():
            found.add(key)
            if "$ref" in value:
                found |= {f"{key}.{inner}" for inner in keys(value["$ref"].rsplit("/", 1)[1])}
        assert set(definition["required"]) == set(definition["properties"])  # a writer leaves no key out
        return found

    assert keys("Answer") == set(leaves(ANSWER))
    assert keys("Failure") == set(leaves(FAILURE))
    assert {option["$ref"].rsplit("/", 1)[1] for option in schema["oneOf"]} == {"Answer", "Failure"}
    assert definitions["Answer"]["properties"]["ok"]["const"] is True
    assert definitions["Failure"]["properties"]["ok"]["const"] is False


@pytest.mark.parametrize("name", KEY_INPUTS)
def test_each_input_changes_the_key(name: str):
    others = {
        "options": {"seed": 2},
        "predictor": "p",
        "revision": None,
        "audio": False,
        "keep": 0.4500001,
        "temperature": 0.1,
    }
    value = KEY_INPUTS[name]
    other = others[name] if name in others else value + 1 if isinstance(value, (int, float)) else value + "x"
    assert record_key(**KEY_INPUTS) != record_key(**{**KEY_INPUTS, name: other})


def test_text_cannot_move_from_one_input_to_the_next():
    a = record_key(**{**KEY_INPUTS, "video": "ab", "question": "c"})
    assert a != record_key(**{**KEY_INPUTS, "video": "a", "question": "bc"})


def test_the_key_does_not_depend_on_process_order_or_number_type():
    code = f"from cg_cli.records import record_key; print(record_key(**{KEY_INPUTS!r}))"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
        assert done.stdout.strip() == record_key(**KEY_INPUTS), done.stderr
    assert len(record_key(**KEY_INPUTS)) == 32
    options = {"b": 1, "a": {"d": 2, "c": 3}}
    turned = {"a": {"c": 3, "d": 2}, "b": 1}
    assert record_key(**{**KEY_INPUTS, "options": options}) == record_key(**{**KEY_INPUTS, "options": turned})
    assert record_key(**{**KEY_INPUTS, "keep": 1}) == record_key(**{**KEY_INPUTS, "keep": 1.0})
    assert record_key(**{**KEY_INPUTS, "question": os.fsdecode(b"\xff")})


def test_a_files_identity_is_its_content_and_time_not_its_name(tmp_path: Path):
    def write(name: str, content: bytes, time_ns: int = 10**18) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))
        return video_identity(path)

    size = 3 * records.MIB
    base = write("a.mp4", bytes(size))
    assert write("renamed.mp4", bytes(size)) == base
    assert write("later.mp4", bytes(size), 10**18 + 10**9) != base
    assert write("longer.mp4", bytes(size + 1)) != base
    assert write("head.mp4", b"\1" + bytes(size - 1)) != base
    assert write("tail.mp4", bytes(size - 1) + b"\1") != base
    assert write("empty.mp4", b"") != write("one.mp4", b"\0")


def test_what_cannot_be_read_is_identified_by_its_path(tmp_path: Path):
    missing, other = tmp_path / "missing.mp4", tmp_path / "other.mp4"
    os.mkfifo(tmp_path / "pipe")
    seen = [video_identity(path) for path in (missing, other, tmp_path, tmp_path / "pipe")]
    assert len(set(seen)) == 4
    missing.write_bytes(b"x")
    assert video_identity(missing) != seen[0]
