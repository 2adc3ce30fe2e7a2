"""Whatever a text of somebody else's holds, a terminal acts on none of it; data stays what it is."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest
from helpers.made import answer
from rich.console import Console
from rich.text import Text

from cg_cli import records
from cg_cli.batch.run import Plan, Report, Totals
from cg_cli.console import answers, batch, calibrate, environment, predictors, profile
from cg_cli.console.reporter import Reporter
from cg_cli.doctor import SelfTest
from cg_cli.evals.scores import Score
from cg_cli.questions import Collected
from cg_cli.settings.resolve import resolve_settings
from cg_cli.settings.table import Resolved
from cg_cli.util.text import printable

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\r\b\x7f\x85\u2028\u202egpj.\u2066\udc9b\ud800[red][/]"
SHOWN = r"\x1b]0;title\x07\x1b[2J\x9b31m\r\x08\x7f\x85\u2028\u202egpj.\u2066\x9b\ud800[red][/]"
STEERS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def reporter() -> tuple[Reporter, io.StringIO]:
    out = io.StringIO()
    return Reporter(err=Console(file=out, width=400, color_system=None)), out


def drawn(renderable) -> str:
    console = Console(file=io.StringIO(), width=400, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def flat(table: str) -> str:
    """Without the line breaks of a title that is wider than its table."""
    return re.sub("[ \n]", "", table)


def clean(text: str) -> bool:
    return not STEERS.search(text)


def test_what_steers_a_terminal_becomes_an_escape():
    assert printable(HOSTILE) == SHOWN
    assert printable("a\nb\tc") == r"a\nb\tc" and printable("a\nb\tc\r", lines=True) == "a\nb\tc\\r"
    plain = "Grüße, 日本, שלום, 👩‍👩‍👧 \\x1b"
    assert printable(plain) == plain
    for code in [*range(0x20), *range(0x7F, 0xA0)]:
        assert clean(printable(chr(code))) and clean(Text(printable(chr(code))).plain)


def test_a_line(cg):
    to, out = reporter()
    to.line("warning", f"{HOSTILE}\nsecond")
    to.line(HOSTILE, "x")
    to.note(HOSTILE)
    text = out.getvalue()
    assert clean(text) and text.count("\n") == 3 and SHOWN in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "x.mp4", "--preset", HOSTILE), ("ask", "x.mp4", "--model", HOSTILE),
        ("ask", "x.mp4", "--pruner", HOSTILE),
        ("ask", "x.mp4", "--config", HOSTILE), ("ask", "x.mp4", "--show", HOSTILE), ("fetch-predictor", HOSTILE),
        ("fetch-predictor", "--remove", HOSTILE), ("ask", f"--{HOSTILE}"), (HOSTILE,),
        ("ask", "x.mp4", "--device", HOSTILE),
        ("profile", "x.mp4", "--pruner", HOSTILE), ("batch", "x.mp4", "-o", f"{HOSTILE}/o.jsonl", "--model", HOSTILE),
        ("config", "--init", f"/nowhere/{HOSTILE}"), ("ask", "x.mp4", "--keep", HOSTILE),
    ],
)  # fmt: skip
def test_an_error_line(cg, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, out, err = cg(*arguments)
    assert code and out == "" and clean(err) and err.count("\n") == 1 and err.startswith("cg: error: ")


@pytest.mark.parametrize(
    "text", ['"\\e[2J\\x9b": 1\n', 'model: "\\e[2J\\x9b\\u202e"\n', 'fps: "\\e[2J"\n', "keep: 7 # \x85\n"]
)
def test_the_error_of_a_config_file(cg, tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    code, _, err = cg("config", "--config", str(tmp_path / "c.yaml"))
    assert code == 2 and clean(err) and err.count("\n") == 1


def hostile_answer() -> records.Answer:
    whole = answer(question=HOSTILE).model_copy(update={"answer": f"{HOSTILE}\n\tmore", "warnings": (f"w {HOSTILE}",)})
    pruner = whole.pruner.model_copy(update={"name": HOSTILE})
    return whole.model_copy(update={"model": whole.model.model_copy(update={"id": HOSTILE}), "pruner": pruner})


@pytest.mark.parametrize("streams", [True, False])
def test_an_answer_on_a_terminal_and_in_a_pipe(monkeypatch, streams):
    record = hostile_answer()
    for terminal in (True, False):
        to, err = reporter()
        stdout = io.StringIO()
        stdout.isatty = lambda terminal=terminal: terminal  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdout", stdout)
        printer = answers.AnswerPrinter(to, None)
        if streams:
            for letter in record.answer:
                printer.stream(letter)
        printer.record(record, json=False)
        text = stdout.getvalue()
        assert text == (f"{SHOWN}\n\tmore\n" if terminal else f"{record.answer}\n")
        assert clean(err.getvalue()) and SHOWN in err.getvalue()


def test_a_record_is_true_and_harmless():
    record = hostile_answer()
    line = records.to_line(record)
    assert clean(line) and json.loads(line)["answer"] == record.answer and json.loads(line)["model"]["id"] == HOSTILE


def test_the_tables(capsys):
    table = drawn(answers.summary([hostile_answer()]))
    assert clean(table) and flat(table).count(SHOWN) == 2
    plan = Plan(resolve_settings({"model": "nano"}, config_files=False), Collected([], []), HOSTILE)
    table = drawn(batch.summary(plan, Report("finished", Totals(), [Score(HOSTILE, 1, 2, None)])))
    assert clean(table) and flat(table).count(SHOWN) == 2
    cell = {
        "pruner": HOSTILE, "keep": 0.45, "tokens": {}, "flops": {}, "kept": {"prefill_flops": 0.39}, "promised": 2.5,
        "promised_end_to_end": 1.64,
        "prefill_speedup": {"median": 2.31, "min": 2.2, "max": 2.4}, "efficiency": 0.92, "selection_share": 0.03,
        "accuracy": {"value": 0.968, "interval": (0.95, 0.98)},
        "against_whole": {"value": -0.011, "interval": (-0.02, 0.0)},
    }  # fmt: skip
    table = drawn(
        profile.table({"model": {"id": HOSTILE}, "device_name": "d", "compared_clips": 1, "cells": [cell, cell]})
    )
    assert clean(table) and flat(table).count(SHOWN) == 3
    row = {"pruner": HOSTILE, "keep": 0.5, "changed": 1, "mean": 0.1, "bound": 0.2, "certified": False,
           "latency": None, "accuracy": None}  # fmt: skip
    certificate = {"model": {"id": HOSTILE}, "clips": 1, "questions": 1, "risk": 0.5, "confidence": 0.5,
                   "ladder": [row], "noise": {"changed": 0, "mean": 0.0, "bound": 1.0}}  # fmt: skip
    table = drawn(calibrate.table(certificate))
    assert clean(table) and flat(table).count(SHOWN) == 2
    row = {"name": HOSTILE, "backbone": HOSTILE, "size": 1, "source": HOSTILE, "revision": None, "installed": True}
    predictors.print_predictors(Reporter(quiet=True), [row | {"default": True}], "none")
    assert clean(capsys.readouterr().out)


def test_config_and_doctor(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    settings = resolve_settings({"model": "nano", "show_dir": HOSTILE}, config_files=False)
    environment.print_settings(Resolved(settings, {"model": HOSTILE}), as_json=False)
    out = capsys.readouterr().out
    assert clean(out) and out.count(SHOWN) == 2
    environment.print_diagnosis({"settings": {HOSTILE: HOSTILE}}, SelfTest(False, 1.0, HOSTILE), as_json=False)
    out = capsys.readouterr().out
    assert clean(out) and out.count(SHOWN) == 3


def test_an_answer_that_the_encoding_lacks_letters_for_is_no_error(cg, monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stdout)
    cg("--version")
    to, _ = reporter()
    answers.AnswerPrinter(to, None).record(answer().model_copy(update={"answer": "Grüße"}), json=False)
    assert stdout.buffer.getvalue().endswith(b"Gr\\xfc\\xdfe\n")
