"""Batches on a local Ray of two actors; skipped where Ray is not installed (``pip install 'cg-cli[ray]'``)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from helpers.made import folder_of, lines, told
from helpers.processes import wait_until

pytestmark = pytest.mark.slow

pytest.importorskip("ray")

QUESTIONS = ["What is happening?", "What do you hear?"]
# Ray is started once a process, so every run has a process of its own; the command line takes one actor a node.
SCRIPT = """
import json, sys
from dataclasses import asdict
from cg_cli.settings.resolve import resolve_settings
from cg_cli.console.reporter import Reporter
from cg_cli.console.batch import BatchProgress
from cg_cli.batch.run import Plan, run
from cg_cli.batch.items import collect
from cg_cli.batch.pool import IN_FLIGHT
from cg_cli.batch.ray_engine import RayEngine

out, clips, pruner, questions = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
settings = resolve_settings({"model": "nano", "pruner": pruner})
plan = Plan(settings, collect([clips], questions), out)
report = run(plan, RayEngine(settings, None, IN_FLIGHT, actors=2), BatchProgress(Reporter(quiet=True)))
print(json.dumps({"status": report.status, **asdict(report.totals)}))
"""


def start(work, pruner="contextguard") -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, "ray.jsonl", "clips", pruner, *QUESTIONS]
    return subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True)


def end(process: subprocess.Popen) -> dict:
    return json.loads(process.communicate(timeout=300)[0].splitlines()[-1])


def actors() -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout.splitlines()
    return [int(line.split()[0]) for line in listed if "ray::Relay" in line and "ps -eo" not in line]


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder_of(tmp_path / "clips", 12)
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"junk")
    return tmp_path


def test_ray_ends_with_the_same_records_through_a_killed_actor(work):
    command = [sys.executable, "-m", "cg_cli", "batch", "clips", "-o", "local.jsonl", "--model", "nano", "--quiet"]
    assert subprocess.run([*command, *(w for q in QUESTIONS for w in ("-q", q))], cwd=work).returncode == 3
    process, out = start(work), work / "ray.jsonl"
    wait_until(lambda: process.poll() is not None or (out.exists() and out.stat().st_size), timeout_s=300)
    assert process.poll() is None
    os.kill(actors()[0], signal.SIGKILL)
    totals = end(process)
    assert totals["status"] == "finished" and totals["failed"] == 2
    assert sorted(map(told, lines(out)), key=str) == sorted(map(told, lines(work / "local.jsonl")), key=str)
    totals = end(start(work))  # resumes
    assert totals["before"] == 24 and totals["answered"] == 0 and len(lines(out)) == 26


def test_a_clip_that_kills_its_worker_is_poison_and_no_other_is_lost(work, plugin, silent, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(plugin))
    silent.rename(work / "clips" / "a.mp4")
    totals = end(start(work, "killer"))
    done = lines(work / "ray.jsonl")
    assert totals["status"] == "finished" and len(done) == 28
    assert {r["error"]["type"] for r in done if not r["ok"]} == {"poison", "not_media"}
    assert [r["attempts"] for r in done if r["video"].endswith("/a.mp4")] == [2, 2]
    totals = end(start(work, "killer"))
    assert totals["failed_before"] == 2 and totals["answered"] == 0


def test_settings_that_cannot_be_carried_out_are_refused_before_any_work(work):
    (work / "model").mkdir()
    (work / "model" / "config.json").write_text("{}")  # which only a worker reads
    command = [sys.executable, "-m", "cg_cli", "batch", "clips", "-q", "?", "-o", "o.jsonl", "--engine", "ray"]
    done = subprocess.run([*command, "--model", "model"], cwd=work, capture_output=True, text=True)
    assert done.returncode == 2 and "cg: error: model type (none) is not supported" in done.stderr
    done = subprocess.run([*command, "--model", "nano", "--gpus", "3"], cwd=work, capture_output=True, text=True)
    assert done.returncode == 2 and "--gpus 3: there are no CUDA devices in the Ray cluster" in done.stderr
