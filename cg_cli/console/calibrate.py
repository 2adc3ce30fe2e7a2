"""``cg calibrate``: what a request needs and takes, how far it is, and the table at the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from cg_cli.console.reporter import Reporter
from cg_cli.evals.calibration import bounds
from cg_cli.evals.calibration.clips import Sample, bound_for
from cg_cli.evals.calibration.run import Calibration, percent
from cg_cli.util.format import rough_duration
from cg_cli.util.text import printable

LINE_EVERY_S = 30.0  # without a terminal
FIRST_CLIPS = 3  # after which the time that is left is told


@contextmanager
def calibrating(reporter: Reporter) -> Iterator[CalibrationProgress]:
    """Progress of a calibration."""
    with reporter.working("looking at the clips") as status:
        progress = CalibrationProgress(reporter, status)
        try:
            yield progress
        except KeyboardInterrupt:
            if progress.done:
                reporter.note(f"what was measured is kept: the same command goes on after {progress.done} clips")
            raise


@dataclass
class CalibrationProgress:
    """A calibration in work."""

    reporter: Reporter
    status: Status | None
    done: int = 0
    before: int = 0  # clips that were measured by earlier runs
    begun: float = 0.0  # when the first clip was begun
    said: float = 0.0  # when the last line was printed

    def fault(self, message: str) -> None:
        self.reporter.line("error", message)

    def note(self, message: str) -> None:
        self.reporter.note(message)

    def planned(self, plan: Calibration, samples: Sequence[Sample]) -> None:
        """What so many clips allow, what the smallest request would need, and how many answers are to be given."""
        counts = [len(sample.questions) for sample in samples]
        bound = bound_for(counts)
        confidence = 1 - plan.level
        allowed = bounds.allowed_loss(len(samples), plan.risk, confidence, bound)
        needed = bounds.clips_needed(plan.risk, confidence)
        if allowed is None:
            may = "none may change, and that is not enough"
        elif bound == bounds.BINOMIAL:
            may = f"at most {allowed:.0f} of their answers may change"
        else:
            may = f"at most {100 * allowed / len(samples):.1f} % of their answers may change"
        shared = f", {percent(confidence)} for each of {len(plan.ladders)} pruners" if len(plan.ladders) > 1 else ""
        self.note(
            f"risk {percent(plan.risk)}, confidence {percent(plan.confidence)}{shared}: {len(samples):,} clips, {may}; "
            f"{needed:,} are needed if none does"
        )
        times = 2 + len(plan.rungs)
        self.note(
            f"{sum(counts) * times:,} answers to give: {sum(counts):,} questions, each to the whole clip twice and at "
            f"{len(plan.rungs)} ratios"
        )
        if self.status:
            self.status.update("loading the model")

    def loaded(self, facts: Mapping[str, Any]) -> None:
        self.begun = self.said = time.monotonic()
        if not self.reporter.quiet:
            model = facts["model"]
            self.reporter.line("model", f"{model['id']} on {model['device_name']}, {model['dtype']}")
            for warning in facts["warnings"]:
                self.reporter.line("warning", warning)

    def measured(self, done: int, total: int, now_measured: bool) -> None:
        if not now_measured:
            self.done = self.before = done
            if done:
                self.note(f"{done} of {total} clips were measured before")
            return
        now, self.done = time.monotonic(), done
        new = done - self.before
        left = (now - self.begun) / new * (total - done)
        text = f"{done} of {total} clips" + (f", about {rough_duration(left)} left" if done < total else "")
        if self.status:
            self.status.update(f"answering: {text}")
        elif not self.reporter.quiet and (new == FIRST_CLIPS or done == total or now - self.said >= LINE_EVERY_S):
            self.reporter.timed("answered", text)
            self.said = now


def print_certificate(reporter: Reporter, plan: Calibration, certificate: Mapping[str, Any]) -> None:
    """The table and where the files are on stderr; the certificate as the last line of stdout, unless that is a
    terminal, where it would scroll the table away."""
    if not reporter.quiet:
        reporter.err.print(table(certificate))
        if certificate["earlier_tests"]:
            reporter.line(
                "warning",
                f"these clips were put to {certificate['earlier_tests']} other test"
                f"{'s' * (certificate['earlier_tests'] > 1)} before: who takes the best of several has less than the "
                f"stated confidence; calibrate on clips that are all new",
            )
    certified = certificate["certified"]
    reporter.written([*([plan.out] if certified else []), plan.plot, plan.measurements])
    if certified and not reporter.quiet:
        reporter.line(
            "certified",
            f"{certified['pruner']} {certified['keep']:g}: with confidence {percent(plan.confidence)}, at most "
            f"{percent(plan.risk)} of answers to clips and questions like these change; --preset {plan.out}",
        )
    if reporter.quiet or not sys.stdout.isatty():
        print(json.dumps(certificate), flush=True)


def table(certificate: Mapping[str, Any]) -> Table:
    """A row for each ratio, and one for the whole clip against itself."""
    risk, confidence = percent(certificate["risk"]), percent(certificate["confidence"])
    out = Table(
        title=f"{escape(printable(certificate['model']['id']))}: {certificate['clips']:,} clips, "
        f"{certificate['questions']:,} questions; risk {risk}, confidence {confidence}",
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    rows = certificate["ladder"]
    labelled = any(row["accuracy"] for row in rows)
    for name in ("pruner", "keep", "changed", "at most", "certified", "time", *(["right", "gap"] if labelled else [])):
        out.add_column(name, justify="left" if name in ("pruner", "certified") else "right", overflow="fold")
    noise = certificate["noise"]
    whole = rows[0]["accuracy"] if labelled else None
    out.add_row(
        "whole",
        "1",
        f"{noise['changed']} ({percent(noise['mean'])})",
        percent(noise["bound"]),
        "",
        "100 %",
        *([f"{100 * whole['whole']:.1f}" if whole else "", ""] if labelled else []),
    )
    for row in rows:
        accuracy = row["accuracy"]
        gap = ""
        if accuracy:
            low, high = accuracy["interval"]
            gap = f"{100 * accuracy['gap']:.1f} [{100 * low:.0f},{100 * high:.0f}]"
        out.add_row(
            escape(printable(row["pruner"])),
            f"{row['keep']:g}",
            f"{row['changed']} ({percent(row['mean'])})",
            percent(row["bound"]),
            "yes" if row["certified"] else "no",
            "" if row["latency"] is None else f"{100 * row['latency']:.0f} %",
            *([f"{100 * accuracy['pruned']:.1f}" if accuracy else "", gap] if labelled else []),
        )
    out.caption = (
        f"changed: answers that are not the whole clip's; at most: what that leaves with confidence {confidence}; "
        "certified: this ratio and all above it pass; whole: the whole clip asked again, in another batch; "
        "time: from the file to the answers, against the whole clip"
        + ("; gap: right answers lost, in points, with its 95 % interval" if labelled else "")
    )
    out.caption_justify = "left"
    return out
