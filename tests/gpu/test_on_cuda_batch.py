"""Two processes of ``cg batch`` on one card: neither takes the other's memory, and answers are those of one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers import SAMPLES

QUESTIONS = ("What do you see?", "What do you hear?")
TIMEOUT_S = 240


def start(device, out, *more):
    ask = [part for question in QUESTIONS for part in ("-q", question)]
    where = ["--gpus", "1"] if device == "cuda" else ["--device", "cpu"]
    command = [sys.executable, "-m", "cg_cli", "batch", str(SAMPLES), *ask, "--model", "nano", "--dtype", "float32"]
    return subprocess.Popen(
        [*command, *where, "-o", str(out), *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def answers(processes, folder, name):
    """By clip and question, of all files there."""
    for process in processes:
        said, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, said
    lines = [line for path in folder.glob(f"{name}*.jsonl") for line in path.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    assert all(record["ok"] for record in records)
    return {(record["video"], record["question"]): record["answer"] for record in records}


# Not on the CPU: two shards of a folder are tested elsewhere, and this takes a quarter of a minute.
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)
def test_two_processes_share_a_card(device, tmp_path):
    pytest.importorskip("av")
    one = answers([start(device, tmp_path / "one.jsonl")], tmp_path, "one")
    halves = [start(device, tmp_path / "two.jsonl", "--shard", f"{number}/2") for number in (0, 1)]
    two = answers(halves, tmp_path, "two")
    assert two == one and len(one) == len(QUESTIONS) * len(list(SAMPLES.glob("*.mp4")))
