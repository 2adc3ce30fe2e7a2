"""The Answer record: its lines survive anything that a file name, a crash or a newer version can do to them."""

from __future__ import annotations

import copy
import json
import math
import os
from typing import Any

import pytest
from pydantic import ValidationError

from cg_cli import records
from cg_cli.records import Answer, Failure, from_line, to_line

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
        "adapter": "someone/lora",
        "generation_config": {"do_sample": True, "temperature": 0.7},
    },
    "pruner": {
        "name": "random",
        "preset": "paper",
        "keep": 0.45,
        "predictor": None,
        "options": {"seed": 1},
        "requested_keep": 0.45,
        "version": 1,
        "implementation": "cg_cli.pruning.methods.random:Random",
        "predictor_sha256": None,
    },
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
        "content": "0" * 64,
        "options": {"fps": 2.0},
        "audio_track": 1,
        "grids": 8,
        "grids_encoded": 6,
        "grid_starts": [0.0, 4.5],
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
    "flops": {
        "vision": 1,
        "vision_full": 4,
        "audio": 2,
        "audio_full": 3,
        "predictor": 0,
        "prefill": 10**13,
        "prefill_full": 10**14,
        "decode": 5,
    },
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
    "sampling": {"max_new_tokens": 256, "temperature": 0.0, "seed": 0, "repetition_penalty": 1.05},
    "rules": {"prompt": "qwen-chat/1", "media": 1, "merge": 1, "decode": 1, "positions": "training"},
    "cg": "0.1.0",
    "created": "2026-11-27T12:00:00+00:00",
    "prefix_reused": True,
    "answered_together": 1,
    "check": {"answer": "A dog barks.", "agrees": False},
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
    "cg": "0.1.0",
    "created": None,
    "attempts": 2,
}
WITH_DEFAULT = {
    "check",
    "check.agrees",
    "media.audio_track",
    "media.grids",
    "media.grids_encoded",
    "media.grid_starts",
    "flops.vision_full",
    "flops.audio_full",
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
    "model.adapter",
    "model.generation_config",
    "sampling.repetition_penalty",
    "rules.positions",
    "pruner.requested_keep",
    "pruner.version",
    "pruner.implementation",
    "pruner.predictor_sha256",
    "media.content",
    "media.options",
    "sampling",
    "rules",
    "cg",
    "created",
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
        if isinstance(value, dict) and name not in ("options", "generation_config"):
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
            for part in (value, *value.get("anyOf", ())):
                if "$ref" in part:
                    found |= {f"{key}.{inner}" for inner in keys(part["$ref"].rsplit("/", 1)[1])}
        assert set(definition["required"]) == set(definition["properties"])  # a writer leaves no key out
        return found

    assert keys("Answer") == set(leaves(ANSWER))
    assert keys("Failure") == set(leaves(FAILURE))
    assert {option["$ref"].rsplit("/", 1)[1] for option in schema["oneOf"]} == {"Answer", "Failure"}
    assert definitions["Answer"]["properties"]["ok"]["const"] is True
    assert definitions["Failure"]["properties"]["ok"]["const"] is False
