"""The check that is run on a GPU, in small on the CPU: every section says something, and the budget is kept."""

from __future__ import annotations

import json
import math
import sys
import time

import pytest

from cg_cli.profiling import decoding, gpu, gpu_folder, gpu_model
from cg_cli.settings import models

SECTIONS = ("roofline", "nano load", "nano prefill", "nano decode", "nano towers", "nano folder")


@pytest.fixture
def check(monkeypatch, capsys, tmp_path):
    """Runs it with nano; what is printed, and the document of its last line."""
    monkeypatch.setattr(gpu_model, "KEEPS", (0.45,))
    monkeypatch.setattr(gpu_model, "IN_FLIGHT", (1, 3))
    monkeypatch.setattr(gpu_model, "TOKENS", 4)

    def run(*arguments: str) -> tuple[str, dict]:
        small = ["--model", "nano", "--device", "cpu", "--seconds", "2", "--clips", "2", "--repeat", "1"]
        monkeypatch.setattr(sys, "argv", ["x", *small, "--out", str(tmp_path / "out"), *arguments])
        gpu.main()
        out = capsys.readouterr().out
        assert (tmp_path / "out" / "gpu.txt").read_text() in out
        document = json.loads(out.splitlines()[-1])
        assert document == json.loads((tmp_path / "out" / "gpu.json").read_text())
        return out, document

    return run


def numbers(value) -> list[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.slow
def test_every_section_has_its_figures(check):
    pytest.importorskip("av")
    out, document = check("--budget", "300")
    sections = document["sections"]
    assert tuple(sections) == SECTIONS and not document["left_out"]
    for name in SECTIONS:
        assert f"\n{name}: " in out and numbers(sections[name])
        assert all(math.isfinite(number) and number > 0 for number in numbers(sections[name])), name
    cells = sections["nano prefill"]["cells"]
    assert [(cell["pruner"], cell["keep"]) for cell in cells] == [
        ("none", 1.0),
        *((name, 0.45) for name in gpu_model.PRUNERS),
    ]
    for cell in cells[1:]:
        assert cell["promised"] > 1 and cell["prefill_s"] <= cell["ttft_s"]
        assert cell["efficiency"] == pytest.approx(cell["prefill_speedup"]["median"] / cell["promised"])
    for rates in sections["nano decode"]["tokens_per_s"].values():
        assert list(rates) == ["1", "3"]
    for run in sections["nano folder"]["runs"].values():
        assert run["answers"] == 2 * len(gpu_folder.QUESTIONS) and not run["failures"]


def test_what_does_not_fit_the_budget_is_left_out_and_said(check):
    out, document = check("--budget", "1")
    assert set(document["left_out"]) == {"roofline", "nano load"} and not document["sections"]
    for name, why in document["left_out"].items():
        assert why.startswith("left out: takes") and f"{name}: {why}" in out


def test_a_section_that_runs_over_keeps_what_it_has(check, monkeypatch):
    def endless(backbone, seconds, repeat, figures):
        figures["vision"] = {"seconds": 1.0, "flops": 2}
        time.sleep(60)

    monkeypatch.setattr(gpu, "LEAST_S", dict.fromkeys(gpu.LEAST_S, 0))
    monkeypatch.setattr(gpu, "load", lambda *_: object())
    monkeypatch.setattr(gpu, "roofline", lambda *_: {"flops_per_s": 1.0, "bytes_per_s": 1.0})
    monkeypatch.setattr(gpu, "MODEL_SECTIONS", {})
    monkeypatch.setattr(gpu, "FIRST_SECTIONS", {"towers": (endless, gpu_model.towers_table)})
    out, document = check("--budget", "3")
    assert document["sections"]["nano towers"] == {"vision": {"seconds": 1.0, "flops": 2}} and "vision" in out
    assert document["left_out"]["nano towers"] == "broken off: the budget is used up" and document["seconds"] < 30
    assert document["left_out"]["nano folder"].startswith("left out: takes")


def test_a_section_that_fails_costs_the_others_nothing(check, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "roofline", lambda *_: 1 / 0)
    monkeypatch.setattr(gpu, "MODEL_SECTIONS", {})
    monkeypatch.setattr(gpu_folder, "missing", lambda: "left out: no PyAV")
    _, document = check("--budget", "60")
    assert document["left_out"] == {
        "roofline": "failed: ZeroDivisionError: division by zero",
        "nano folder": "left out: no PyAV",
    }
    assert set(document["sections"]["nano towers"]) == {"vision", "audio"}


def test_steps_are_timed_eagerly_and_as_graphs_where_they_can_be_recorded(monkeypatch):
    backbone = models.load("nano", device="cpu", dtype="float32", offline=True)
    backbone.graphs = True
    monkeypatch.setattr(decoding, "make_prefixes", lambda *_: [None] * 32)
    monkeypatch.setattr(decoding, "seconds", lambda backbone, *_: (1.0 if backbone.graphs else 2.0, 8))
    figures: dict = {}
    gpu_model.decode(backbone, 1.0, 1, figures)
    together = [str(number) for number in gpu_model.IN_FLIGHT]
    assert figures["tokens_per_s"] == {
        "eager": dict.fromkeys(together, 4.0),
        "graphs": dict.fromkeys(together, 8.0),
    }
    assert backbone.graphs and gpu_model.decode_table(figures).row_count == len(together)
