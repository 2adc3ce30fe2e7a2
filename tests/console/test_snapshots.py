"""What people see, letter by letter: help pages, tables and error lines, at the width of a plain terminal."""

from __future__ import annotations

import io
import re

import pytest
from helpers import snapshots
from helpers.made import answer
from rich.console import Console

from cg_cli.batch.check import Agreement
from cg_cli.batch.run import Plan, Report, Totals
from cg_cli.console import answers, batch, calibrate, profile
from cg_cli.evals.scores import Score
from cg_cli.questions import Collected
from cg_cli.settings.resolve import resolve_settings

COMMANDS = ["ask", "batch", "profile", "calibrate", "fetch-predictor", "train-predictor", "samples", "config", "doctor"]


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.argv", ["cg"])


def drawn(renderable, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def check_table(name: str, table) -> None:
    """The table at 80 columns, letter by letter; at 50 cells may take two lines, and nothing is lost."""
    wide, narrow = drawn(table), drawn(table, 50)
    snapshots.check(name, wide)
    letters = lambda text: sorted("".join(text.replace("─", "").split()))
    assert letters(narrow) == letters(wide) and "…" not in wide
    assert max(map(len, narrow.splitlines())) <= 50


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(cg, command):
    code, out, err = cg(*([command] if command else []), "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert not re.search("<[a-z]", out) and "env var" not in out
    usage, first, *_ = [line.strip() for line in out.splitlines() if line.strip()]
    examples = [line.strip() for line in out.splitlines() if line.startswith((" cg ", " find ", " CG_"))]
    assert usage.startswith("Usage: cg") and first.endswith(".") and len(examples) > 1
    assert out.index(examples[0]) < out.index("╭")
    snapshots.check(f"help-{command or 'cg'}", out)


def test_no_command_at_all_says_what_to_do_first(cg):
    code, out, err = cg()
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    assert out.index("--model nano") < out.index("cg ask clip.mp4")
    snapshots.check("no-command", out)


def test_the_table_of_a_clip():
    first = answer(question="What is happening?", key="1")
    second = answer(question="What do you hear?", key="2", prefix_reused=True)
    check_table("table-ask", answers.summary([first]))
    check_table("table-ask-two-questions", answers.summary([first, second]))


def test_the_table_of_a_batch():
    totals = Totals(
        clips=120,
        questions=240,
        before=100,
        failed_before=2,
        answered=130,
        failed=8,
        clips_done=70,
        tokens_full=712_000,
        tokens_kept=320_400,
        flops_prefill=12 * 10**13,
        flops_prefill_full=36 * 10**13,
        media_s=3725.0,
        waited_s=3.0,
        worked_s=300.0,
        seconds=303.5,
        errors={"not_media": 5, "timeout": 3},
    )
    plan = Plan(resolve_settings({"model": "nano"}, config_files=False), Collected([], []), "answers.jsonl")
    scores = [Score("", 90, 120, (0.66, 0.83), 3), Score("sound", 40, 50, None, 2), Score("sight", 50, 70, None)]
    check_table("table-batch", batch.summary(plan, Report("finished", totals, scores)))
    checked = Agreement(24, 48, 2, 0.0417, (0.005, 0.143), 0.05)
    check_table("table-batch-checked", batch.summary(plan, Report("finished", totals, [], checked)))


def test_the_table_of_a_profile():
    cell = {
        "pruner": "contextguard",
        "keep": 0.45,
        "tokens": {},
        "flops": {},
        "kept": {"prefill_flops": 0.39, "input_of_baseline": 0.45},
        "flops_share": {"towers": 1.0, "prefill": 0.39, "total": 0.61},
        "promised": 2.5,
        "promised_end_to_end": 1.64,
        "prefill_speedup": {"median": 2.31, "min": 2.2, "max": 2.4},
        "efficiency": 0.92,
        "selection_share": 0.03,
        "end_to_end_speedup": {"median": 1.42, "min": 1.4, "max": 1.5},
        "shares": {"files": 0.31, "towers": 0.2, "selection": 0.0, "prefill": 0.4, "decoding": 0.09},
        "accuracy": {"value": 0.968, "interval": (0.95, 0.98), "questions": 400, "unreadable": 3},
        "against_whole": {"value": -0.011, "interval": (-0.02, 0.0)},
    }
    whole = cell | {"pruner": "none", "keep": 1.0, "kept": {"prefill_flops": 1.0}, "selection_share": 0.0}
    whole["promised_end_to_end"] = 1.0
    whole["flops_share"] = {"towers": 1.0, "prefill": 1.0, "total": 1.0}
    summary = {"model": {"id": "nano"}, "device_name": "a device", "compared_clips": 80, "cells": [whole, cell]}
    check_table("table-profile", profile.table(summary))
    fewer = {"reading": "max-frames=32+look-once=8", "flops_share": {"towers": 0.4, "prefill": 0.2, "total": 0.31}}
    summary["cells"] += [whole | fewer, cell | fewer]
    check_table("table-profile-readings", profile.table(summary))


def test_the_table_of_a_calibration():
    row = {"pruner": "contextguard", "keep": 0.65, "changed": 3, "mean": 0.01, "bound": 0.022, "certified": True,
           "latency": 0.81, "accuracy": None}  # fmt: skip
    rows = [row, row | {"keep": 0.25, "changed": 24, "mean": 0.08, "bound": 0.104, "certified": False, "latency": None}]
    certificate = {
        "model": {"id": "nano"}, "clips": 300, "questions": 300, "risk": 0.05, "confidence": 0.9, "ladder": rows,
        "noise": {"changed": 0, "mean": 0.0, "bound": 0.0077},
    }  # fmt: skip
    check_table("table-calibrate", calibrate.table(certificate))
    accuracy = {"whole": 0.91, "pruned": 0.885, "gap": 0.025, "interval": [-0.01, 0.06]}
    certificate["ladder"] = [row | {"accuracy": accuracy} for row in rows]
    check_table("table-calibrate-labelled", calibrate.table(certificate))


ERRORS = {
    "no-video": ["ask"],
    "unknown-command": ["asks"],
    "unknown-option": ["ask", "x.mp4", "--nonsense"],
    "keep-out-of-range": ["ask", "x.mp4", "--keep", "1.5"],
    "keep-no-number": ["ask", "x.mp4", "--keep", "lots"],
    "dtype": ["ask", "x.mp4", "--dtype", "flaot32"],
    "device": ["ask", "x.mp4", "--device", "toaster"],
    "pruner": ["ask", "x.mp4", "--pruner", "evvs"],
    "pruner-none": ["ask", "x.mp4", "--pruner", "none", "--keep", "0.5"],
    "preset": ["ask", "x.mp4", "--preset", "papper"],
    "model": ["ask", "x.mp4", "--model", "nanno"],
    "config": ["ask", "x.mp4", "--config", "missing.yaml"],
    "show-suffix": ["ask", "x.mp4", "--show", "kept.gif"],
    "batch-no-out": ["batch", "clips", "-q", "?"],
    "batch-nothing": ["batch", "-o", "o.jsonl"],
    "batch-shard": ["batch", "clips", "-q", "?", "-o", "o.jsonl", "--shard", "2/2"],
    "batch-check": ["batch", "clips", "-q", "?", "-o", "o.jsonl", "--check", "0.1", "--preset", "full"],
    "profile-nothing": ["profile"],
    "calibrate-nothing": ["calibrate", "-o", "mine.yaml"],
    "calibrate-no-out": ["calibrate", "clip.mp4", "-q", "?"],
    "calibrate-few": ["calibrate", "clip.mp4", "-q", "?", "-o", "mine.yaml"],
    "calibrate-whole": ["calibrate", "clip.mp4", "-q", "?", "-o", "mine.yaml", "--keep", "1,.5"],
    "option": ["batch", "clips", "--max-frame", "64"],
    "pruner-of-a-profile": ["profile", "x.mp4", "--pruner", "contextgard"],
    "folder": ["ask", ".", "?"],
    "address": ["ask", "https://example.org/a.mp4", "?"],
    "youtube": ["ask", "https://www.youtube.com/watch?v=abc", "?"],
    "youtube-batch": ["batch", "https://youtu.be/abc", "-q", "?", "-o", "o.jsonl"],
    "address-profile": ["profile", "https://example.org/a.mp4"],
    "address-train": ["train-predictor", "https://example.org/a.mp4", "-o", "a.safetensors"],
    "predictor": ["fetch-predictor", "nobody"],
}


CODES = {"folder": 3, "address": 3, "youtube": 3}  # others are 2


def test_error_lines(cg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    for name, arguments in ERRORS.items():
        code, out, err = cg(*arguments)
        assert code == CODES.get(name, 2) and out == "" and err.count("\n") == 1, (name, code, out, err)
        lines.append(f"$ cg {' '.join(arguments)}\n{err}")
    snapshots.check("errors", "\n".join(lines))
