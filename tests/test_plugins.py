"""One installed package brings a pruner, a backbone and a benchmark, and all three are used together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import SAMPLES, tiny

pytestmark = pytest.mark.slow

PACKAGE = {
    "acme/__init__.py": "",
    "acme/pruner.py": """
from dataclasses import dataclass

import torch
from cg_cli import ModalityPruner


@dataclass(frozen=True)
class First(ModalityPruner):
    "Keep the first tokens."

    version = 3

    def pick_video(self, stream, rows, count):
        return torch.arange(count)


@dataclass(frozen=True)
class Broken(ModalityPruner):
    "Raise, as code of somebody's own may."

    def pick_video(self, stream, rows, count):
        raise KeyError("saliency")
""",
    "acme/family.py": """
from cg_cli.backbones.family import Family

FAMILY = Family(name="acme", model_types=("acme_omni",), backbone="acme.model:Acme")
""",
    "acme/model.py": """
from cg_cli.backbones.qwen2_5_omni.model import Qwen25Omni


class Acme(Qwen25Omni):
    family = "acme"
    prompt_version = "acme-chat/1"
""",
    "acme/benchmark.py": """
from cg_cli.evals.benchmarks.base import Benchmark, Row


def rows(data):
    for entry in data:
        yield Row(entry["id"], entry["video"], entry["question"], ("A. yes", "B. no"), "A", "sound")


BENCHMARK = Benchmark(
    name="acme-qa",
    source="acme.example",
    annotations=("qa.json",),
    videos=("{video}",),
    rows=rows,
    prompt="{question} {choices}",
    prompt_source="acme",
)
""",
    "acme-2.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme\nVersion: 2.0\n",
    "acme-2.0.dist-info/entry_points.txt": (
        "[cg_cli.pruners]\nacme-first = acme.pruner:First\nacme-broken = acme.pruner:Broken\n"
        "[cg_cli.backbones]\nacme = acme.family:FAMILY\n"
        "[cg_cli.benchmarks]\nacme-qa = acme.benchmark:BENCHMARK\n"
    ),
}


@pytest.fixture
def acme(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs cg where the package acme is installed."""
    for name, text in PACKAGE.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(text)
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "cg_cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_a_package_brings_a_pruner_a_backbone_and_a_benchmark(tmp_path: Path, acme):
    model = tiny.build(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "acme_omni"}))
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(SAMPLES / "drum.mp4", data / "one.mp4")
    (data / "qa.json").write_text(json.dumps([{"id": "q1", "video": "one", "question": "Is it loud?"}]))
    done = acme(
        *("batch", "--benchmark", "acme-qa", "--data", str(data), "--model", str(model), "--max-new-tokens", "3"),
        *("--pruner", "acme-first", "--keep", "0.3", "-o", "out.jsonl"),
    )
    assert done.returncode == 0, done.stderr
    (record,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert record["ok"] and record["model"]["family"] == "acme" and record["rules"]["prompt"] == "acme-chat/1"
    assert record["pruner"]["name"] == "acme-first"
    assert record["pruner"]["implementation"].startswith("acme.pruner:First") and record["pruner"]["version"] == 3
    assert (
        record["benchmark"]["name"] == "acme-qa"
        and record["category"] == "sound"
        and record["correct"] in (True, False)
    )
    assert abs(record["tokens"]["keep"] - 0.3) < 0.01


def test_a_pruner_that_raises_costs_its_own_items_and_cells_alone(tmp_path: Path, acme):
    clips = [str(SAMPLES / "drum.mp4")]
    batch = ("batch", *clips, "--question", "What?", "--model", "nano", "--pruner", "acme-broken", "-o", "out.jsonl")
    for _ in range(2):  # the second run tries both again: nothing is poison
        done = acme(*batch)
        assert done.returncode == 3, done.stderr
        records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert {r["error"]["type"] for r in records} == {"internal"}
        assert all("acme-broken" in r["error"]["message"] and "saliency" in r["error"]["message"] for r in records)

    profile = ("profile", *clips, "--model", "nano", "--pruner", "acme-broken,random", "--keep", "0.5", "--repeat", "1")
    done = acme(*profile, "-o", "out", "--quiet")
    assert done.returncode == 3 and "acme-broken 0.5" in done.stderr and "saliency" in done.stderr, done.stderr
    result = json.loads(done.stdout)
    assert [cell["pruner"] for cell in result["cells"]] == ["none", "random"] and result["compared_clips"] == 1

    measurements = tmp_path / "out" / "measurements.jsonl"
    lines = measurements.read_text().splitlines()
    measurements.write_text("\n".join(["[1, {", *lines]) + "\n")  # an editor's slip
    done = acme(*profile, "-o", "out")
    assert json.loads(done.stdout.splitlines()[-1])["cells"][1]["tokens"] == result["cells"][1]["tokens"]
    assert "damaged lines are measured again, 1 of them" in done.stderr
