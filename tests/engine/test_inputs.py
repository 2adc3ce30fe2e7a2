"""The key of a record: everything that can change an answer is in it, and nothing else."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cg_cli.engine.inputs import AnswerInputs, conditions, describe_changes, video_content

INPUTS = AnswerInputs(
    video="a" * 64,
    question="Who?",
    prompt="qwen-chat/1",
    model="nano",
    weights="local-0123456789ab",
    dtype="float32",
    quantize="none",
    pruner="cg_cli.pruning.methods.contextguard:ContextGuard",
    pruner_version=1,
    pruner_options={"detail": True, "seed": 1},
    keep=0.45,
    predictor="b" * 64,
    media={"fps": 2.0, "max_frames": 128, "audio": True},
    media_version=1,
    merge_version=1,
    decode_version=1,
    sampling={"max_new_tokens": 64, "temperature": 0.0, "seed": 0},
)
OTHER: dict[str, Any] = {
    "pruner_options": {"detail": False, "seed": 1},
    "media": {"fps": 2.0, "max_frames": 128, "audio": False},
    "sampling": {"max_new_tokens": 64, "temperature": 0.0, "seed": 1},
    "predictor": None,
    "positions": "inference",
}


def test_the_key_of_these_inputs_is_pinned():
    # If this fails, every archive there is will be answered anew. Change it only if that is meant.
    assert INPUTS.key == "5dc0977c4a78398b54d4b3d76d85dfe1"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AnswerInputs)])
def test_each_input_changes_the_key(name):
    value = getattr(INPUTS, name)
    other = OTHER[name] if name in OTHER else value + 1 if isinstance(value, int | float) else value + "x"
    assert replace(INPUTS, **{name: other}).key != INPUTS.key


@pytest.mark.parametrize("name", ["pruner_options", "media", "sampling"])
def test_each_entry_of_an_input_changes_the_key(name):
    entries = getattr(INPUTS, name)
    keys = {replace(INPUTS, **{name: {**entries, entry: "another"}}).key for entry in (*entries, "one more")}
    assert len(keys) == len(entries) + 1 and INPUTS.key not in keys


def test_no_penalty_and_the_usual_positions_leave_old_keys_as_they_are():
    of = lambda penalty, positions: replace(
        INPUTS, sampling={**INPUTS.sampling, "repetition_penalty": penalty}, positions=positions
    )
    assert of(1.0, None).key == of(1, "training").key == INPUTS.key
    assert len({INPUTS.key, of(1.05, None).key, of(1.1, None).key, of(1.0, "inference").key}) == 4


def test_evenly_spaced_frames_leave_old_keys_as_they_are():
    of = lambda frames: replace(INPUTS, media={**INPUTS.media, "frames": frames})
    assert of("uniform").key == INPUTS.key
    assert len({INPUTS.key, of("pairs").key, of("change").key}) == 3
    assert describe_changes(conditions(of("uniform")), conditions(of("pairs"))) == "frames uniform, now pairs"


def test_text_cannot_move_from_one_input_to_the_next():
    assert replace(INPUTS, video="ab", question="c").key != replace(INPUTS, video="a", question="bc").key


def test_the_key_is_one_in_every_process_order_and_spelling_of_a_number():
    code = f"from cg_cli.engine.inputs import AnswerInputs; print({INPUTS!r}.key)"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
        assert done.stdout.strip() == INPUTS.key, done.stderr
    assert len(INPUTS.key) == 32
    turned = dict(reversed(INPUTS.media.items()))
    assert replace(INPUTS, media=turned).key == INPUTS.key
    assert replace(INPUTS, keep=1).key == replace(INPUTS, keep=1.0).key
    assert replace(INPUTS, question=os.fsdecode(b"\xff")).key


def test_a_number_that_is_none_has_no_key():
    with pytest.raises(ValueError):
        _ = replace(INPUTS, keep=float("nan")).key


def test_a_file_is_its_content_wherever_it_is_and_however_old(tmp_path: Path):
    size = 3 << 20
    first = tmp_path / "a.mp4"
    first.write_bytes(bytes(size))
    content = video_content(first)
    os.utime(first, (1e9, 1e9))
    assert video_content(first) == content  # touched
    shutil.copy(first, tmp_path / "copy.mp4")
    assert video_content(tmp_path / "copy.mp4") == content
    (tmp_path / "folder").mkdir()
    first.rename(tmp_path / "folder" / "b.mp4")
    assert video_content(tmp_path / "folder" / "b.mp4") == content
    (tmp_path / "link.mp4").symlink_to(tmp_path / "copy.mp4")
    assert video_content(tmp_path / "link.mp4") == content


@pytest.mark.parametrize("place", [0, 1 << 20, (3 << 20) // 2, (3 << 20) - 1])
def test_a_byte_changed_anywhere_is_another_video_even_at_the_same_size_and_time(tmp_path: Path, place: int):
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(3 << 20))
    os.utime(path, (1e9, 1e9))
    before = video_content(path)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\1")
    os.utime(path, (1e9, 1e9))
    assert video_content(path) != before


def test_what_cannot_be_read_is_identified_by_its_path(tmp_path: Path):
    missing, other = tmp_path / "missing.mp4", tmp_path / "other.mp4"
    os.mkfifo(tmp_path / "pipe")
    contents = [video_content(path) for path in (missing, other, tmp_path, tmp_path / "pipe")]
    assert len(set(contents)) == 4
    missing.write_bytes(b"x")
    assert video_content(missing) != contents[0]


def test_what_differs_is_told_in_words():
    before = conditions(INPUTS)
    after = conditions(replace(INPUTS, keep=0.25, predictor="c" * 64, sampling={**INPUTS.sampling, "seed": 2}))
    assert describe_changes(before, before) == ""
    assert describe_changes(before, after) == (
        "keep 0.45, now 0.25; predictor bbbbbbbb..., now cccccccc...; seed 0, now 2"
    )
    assert "do not say" in describe_changes(None, after)
