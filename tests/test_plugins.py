"""One installed package brings a pruner, a backbone and a benchmark, and all three are used together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import SAMPLES, tiny

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
        "[cg_cli.pruners]\nacme-first = acme.pruner:First\n"
        "[cg_cli.backbones]\nacme = acme.family:FAMILY\n"
        "[cg_cli.benchmarks]\nacme-qa = acme.benchmark:BENCHMARK\n"
    ),
}


def test_a_package_brings_a_pruner_a_backbone_and_a_benchmark(tmp_path: Path):
    site = tmp_path / "site"
    for name, text in PACKAGE.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    model = tiny.build(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "acme_omni"}))
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(SAMPLES / "drum.mp4", data / "one.mp4")
    (data / "qa.json").write_text(json.dumps([{"id": "q1", "video": "one", "question": "Is it loud?"}]))
    command = [
        *(sys.executable, "-m", "cg_cli", "batch", "--benchmark", "acme-qa", "--data", str(data)),
        *("--model", str(model), "--pruner", "acme-first", "--keep", "0.3", "--max-new-tokens", "3", "-o", "out.jsonl"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
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
