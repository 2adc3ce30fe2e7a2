"""``cg calibrate``: the smallest keep that can be certified on clips of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cg_cli.commands import parameters
from cg_cli.commands.batch import INPUT_HELP, Question, Questions
from cg_cli.commands.parameters import argument, option, with_settings
from cg_cli.errors import SOME_FAILED, NotCertified, NothingToDo, UsageError
from cg_cli.settings.table import Settings


@with_settings("calibrate")
def calibrate(
    inputs: Annotated[list[str] | None, argument(metavar="INPUT", help=INPUT_HELP)] = None,
    question: Question = None,
    questions: Questions = None,
    risk: Annotated[
        float, option("--risk", metavar="SHARE", help="of answers that may differ from those of the whole clip")
    ] = 0.05,
    confidence: Annotated[
        float, option("--confidence", metavar="SHARE", help="of calibrations whose statement is true")
    ] = 0.9,
    keep: Annotated[
        str | None,
        option("--keep", metavar="LIST", help="ratios to test, from the largest down (default: those of the presets)"),
    ] = None,
    pruner: Annotated[
        str | None,
        option("--pruner", metavar="LIST", help="pruners, which share the confidence (default: the preset's)"),
    ] = None,
    out: Annotated[
        Path | None,
        option(
            "-o",
            "--out",
            metavar="FILE",
            help="preset to write, .yaml; the answers and a plot lie beside it, and an interrupted run goes on",
        ),
    ] = None,
    quiet: parameters.Quiet = False,
    *,
    settings: Settings,
) -> None:
    """Find the smallest keep whose answers stay those of the whole clip.

    \b
    cg calibrate videos/ -q "What is happening?" -o mine.yaml
    cg calibrate videos/ --questions asked.txt --risk 0.1 -o mine.yaml
    cg calibrate labelled.jsonl --keep .65,.45,.25 -o mine.yaml
    cg ask clip.mp4 "What is happening?" --preset mine.yaml

    Every clip is answered whole and at each ratio; no labels are needed. From the largest ratio down, each is tested
    until the first that fails. The smallest that passes becomes a preset with a certificate: with the stated
    confidence, at most the stated share of answers to clips and questions like these change. A run with that preset
    that differs from the certificate says so in every record. The certificate is also the last line on stdout, unless
    that is a terminal.

    Exit codes: 0, certified; 3, certified, and some clips failed; 5, nothing can be certified: the message says what
    would help.
    """
    if not inputs:
        raise UsageError("nothing to calibrate on: name files, folders or a manifest")
    if out is None:
        raise UsageError("no place for the preset: give -o mine.yaml")

    from cg_cli.batch import items
    from cg_cli.console.calibrate import calibrating, print_certificate
    from cg_cli.console.reporter import Reporter
    from cg_cli.evals.calibration import ladder, run
    from cg_cli.profiling import calibration_plot
    from cg_cli.settings import models

    ladders = ladder.ladders(pruner or settings.pruner, keep)
    texts = [*(question or []), *(items.read_questions(questions) if questions else [])]
    stdin = sys.stdin.buffer if items.STDIN in inputs else None
    collected = items.collect(inputs, texts, stdin=stdin)
    reporter = Reporter(quiet=quiet)
    if not collected.items:
        for fault in collected.faults:
            reporter.line("error", fault)
        raise NothingToDo("nothing to do: all that was named was left out")
    plan = run.Calibration(settings, collected.items, ladders, risk, confidence, out)
    run.check(plan, [*inputs, *([questions] if questions else [])])
    models.fetch(settings, reporter.note)
    with calibrating(reporter) as listener:
        for fault in collected.faults:
            listener.fault(fault)
        certificate = run.run(plan, listener)
        calibration_plot.write(certificate, plan.plot)
    print_certificate(reporter, plan, certificate)
    if certificate["failure"]:
        raise NotCertified(certificate["failure"])
    if certificate["failed"] or collected.faults:
        raise typer.Exit(SOME_FAILED)
