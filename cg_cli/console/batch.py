"""What people see of a batch, all on stderr: a bar on a terminal, a line a clip elsewhere, a table at the end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from cg_cli.batch.remaining import Remaining
from cg_cli.batch.run import Plan, Report, Totals
from cg_cli.console.reporter import Reporter
from cg_cli.engine.certificate import DOUBT
from cg_cli.questions import Item
from cg_cli.records import Record
from cg_cli.util.format import count, duration, rough_duration, share
from cg_cli.util.text import printable


@contextmanager
def watching(reporter: Reporter, plan: Plan) -> Iterator[BatchProgress]:
    """Progress of one batch."""
    bar = None
    if reporter.err.is_terminal and not reporter.quiet:
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            console=reporter.err,
            transient=True,
        )
    if bar is None:
        yield BatchProgress(reporter)
        return
    remaining = Remaining(item.video for item in plan.items)
    with bar:
        bar.add_task("loading the model", total=None)
        yield BatchProgress(reporter, bar, remaining)
    remaining.close()


@dataclass
class BatchProgress:
    """A batch in work, as its listener."""

    reporter: Reporter
    bar: Progress | None = None
    remaining: Remaining | None = None  # beside a bar

    def note(self, message: str) -> None:
        self.reporter.note(message)

    def fault(self, message: str) -> None:
        self.reporter.line("error", message)

    def loaded(self, facts: Mapping[str, Any]) -> None:
        if not self.reporter.quiet:
            self.reporter.line("model", f"{facts['model']['id']} on {facts['device_name']}, {facts['dtype']}")
            for warning in facts["warnings"]:
                self.reporter.line("warning", warning)
        self._known = set(facts["warnings"])

    def settled(self, totals: Totals) -> None:
        if self.bar and self.remaining:
            left = self.remaining.seconds(totals.media_s, totals.seconds)
            failed = totals.failed + totals.failed_before
            parts = [
                f"{totals.clips_before + totals.clips_done}/{totals.clips} clips",
                f"{totals.settled}/{totals.questions} questions",
                f"kept {share(totals.tokens_kept, totals.tokens_full)}" if totals.tokens_full else "",
                f"{totals.tokens_answered / totals.seconds:.1f} tokens/s" if totals.seconds else "",
                f"{failed} failed" if failed else "",
                f"{totals.set_aside} set aside" if totals.set_aside else "",
                f"{rough_duration(left)} left" if left else "",
            ]
            description = " · ".join(filter(None, parts))
            self.bar.update(
                self.bar.task_ids[0], description=description, total=totals.questions, completed=totals.settled
            )

    def skipped(self, totals: Totals, item: Item) -> None:
        if self.remaining:
            self.remaining.remove(item.video)
        self.settled(totals)

    def clip(self, totals: Totals, item: Item, done: Sequence[Record]) -> None:
        self.skipped(totals, item)
        for message in dict.fromkeys(record.error.message for record in done if not record.ok):
            self.reporter.timed("error", message)
        if self.reporter.quiet:
            return
        answers = [record for record in done if record.ok]
        for warning in dict.fromkeys(w for a in answers for w in a.warnings if w not in self._known):
            of_run = warning.startswith(DOUBT)
            self._known |= {warning} if of_run else set()
            self.reporter.line("warning", warning if of_run else f"{item.video}: {warning}")
        if not self.bar and answers:
            tokens = answers[0].tokens
            kept, full = tokens.video_kept + tokens.audio_kept, tokens.video + tokens.audio
            took = sum(a.latency_s.total for a in answers)
            place = f"{totals.clips_before + totals.clips_done}/{totals.clips}"
            summary = f"{len(answers)} answered, {kept:,} of {full:,} tokens, {duration(took)}"
            self.reporter.timed(place, f"{item.video}: {summary}")

    def interrupted(self) -> None:
        self.reporter.line("interrupted", "finishing the clips in work; once more ends at once")


def report(reporter: Reporter, plan: Plan, done: Report) -> None:
    """The table at the end."""
    if not reporter.quiet:
        reporter.err.print(summary(plan, done))
    if done.check and done.check.contradicts:
        low = 100 * done.check.interval[0]
        reporter.line(
            "warning",
            f"preset {plan.settings.preset} is certified for {100 * (done.check.risk or 0):.3g} % of answers that "
            f"change, and of these clips at least {low:.3g} % do (95 %): calibrate on clips like these",
        )


def dry_run(reporter: Reporter, plan: Plan, lines: Iterable[Mapping[str, Any]]) -> None:
    """What would run: a JSON object a video on stdout, the sums on stderr."""
    clips = questions = settled = faulty = full = kept = 0
    for fault in plan.collected.faults:
        reporter.line("error", fault)
    for line in lines:
        print(json.dumps(line), flush=True)
        clips += 1
        settled += line["settled"]
        questions += line["questions"]
        faulty += "error" in line
        if line["questions"] and "tokens" in line:
            tokens = line["tokens"]
            full += tokens["video"] + tokens["audio"]
            kept += tokens["kept"]
    if not reporter.quiet:
        left = f"{questions:,} questions on {clips:,} videos, {kept:,} of {full:,} tokens"
        reporter.line("dry run", f"{left}; {settled:,} questions are settled already, {faulty:,} videos cannot be read")


def summary(plan: Plan, done: Report) -> Table:
    """What a run did."""
    totals = done.totals
    table = Table(
        title=escape(printable(f"{plan.file}: {done.status}")),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_header=False,
    )
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_column()
    before = f"{totals.before:,} of them before this run" if totals.before else ""
    table.add_row("questions answered", f"{totals.answered + totals.before:,} of {totals.questions:,}", before)
    reasons = ", ".join(f"{kind} {number}" for kind, number in totals.errors.items())
    standing = f"{totals.failed_before} before this run, not tried again" if totals.failed_before else ""
    if totals.failed or totals.failed_before:
        table.add_row(
            "questions failed",
            f"{totals.failed + totals.failed_before:,}",
            "; ".join(filter(None, [reasons, standing])),
        )
    if totals.set_aside:
        table.add_row(
            "questions set aside", f"{totals.set_aside:,}", "in files that failed before (--retry: once more)"
        )
    for score in done.scores:
        counts = f"{score.right:,} of {score.questions:,}"
        if score.interval:
            counts += ", 95 % interval {:.1f}-{:.1f}".format(*(100 * end for end in score.interval))
        if score.name and score.unreadable:
            counts += f", {score.unreadable:,} unreadable"
        table.add_row(
            f"  {escape(printable(score.name))}" if score.name else "right answers",
            share(score.right, score.questions),
            counts,
        )
    for score in done.scores[:1]:
        unreadable = f"{score.unreadable:,} of {score.questions:,}, which give no choice"
        table.add_row("unreadable answers", share(score.unreadable, score.questions), unreadable)
    if (check := done.check) is not None:
        ends = "{:.1f}-{:.1f}".format(*(100 * end for end in check.interval))
        counts = f"{check.questions:,} on {check.clips:,} whole clips, {check.changed:,} changed"
        table.add_row(
            "answers as of the whole",
            f"{1 - check.mean:.1%}" if check.clips else "-",
            f"{counts}, 95 % interval of changes {ends}" if check.clips else "no clip was drawn",
        )
    table.add_row(
        "clips", f"{totals.clips_done:,}", f"{duration(totals.media_s)} of video and sound" if totals.media_s else ""
    )
    if totals.tokens_full:
        kept = f"{totals.tokens_kept:,} of {totals.tokens_full:,}"
        table.add_row("audio + video tokens", share(totals.tokens_kept, totals.tokens_full), kept)
        prefill = f"{count(totals.flops_prefill, 'FLOP')} of {count(totals.flops_prefill_full, 'FLOP')}"
        table.add_row("prefill", share(totals.flops_prefill, totals.flops_prefill_full), prefill)
    if totals.seconds:
        waited = ""
        if totals.worked_s:
            waited = f"{share(totals.waited_s, totals.waited_s + totals.worked_s)} of it the model waited for decoding"
        table.add_row("time", duration(totals.seconds), waited)
    return table
