"""``cg ask``: the words of an answer as they come, and the table of tokens, FLOPs and time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich import box
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from cg_cli.console.reporter import Reporter
from cg_cli.engine.figures import FIGURES, figures
from cg_cli.records import Answer, Failure, to_line
from cg_cli.util.text import printable

STAGE_WORDS = {
    "media": "reading the video",
    "encode": "looking and listening",
    "prune": "pruning",
    "prefill": "taking it in",
    "decode": "answering",
}  # of the stages, for people


@contextmanager
def answering(reporter: Reporter) -> Iterator[AnswerPrinter]:
    """The printer of one clip's answers."""
    with reporter.working("reading the video") as status:
        yield AnswerPrinter(reporter, status)


@dataclass
class AnswerPrinter:
    """One clip in work: its stages, the words of its answers, its records."""

    reporter: Reporter
    status: Status | None
    printed: set[str] = field(default_factory=set)
    streamed: bool = False

    def stage(self, name: str) -> None:
        if self.status:
            self.status.update(STAGE_WORDS[name])

    def stream(self, text: str) -> None:
        """A piece of an answer, shown at once if somebody is watching."""
        if sys.stdout.isatty():
            if self.status:
                self.status.stop()
            sys.stdout.write(printable(text, lines=True))
            sys.stdout.flush()
            self.streamed = True

    def record(self, record: Answer | Failure, json: bool) -> Answer | Failure:
        """Print a finished record; warnings and errors that many questions share are said once."""
        if self.streamed:
            print(flush=True)
        if json:
            print(to_line(record), flush=True)
        elif isinstance(record, Answer) and not self.streamed:
            print(printable(record.answer, lines=True) if sys.stdout.isatty() else record.answer, flush=True)
        self.streamed = False
        if isinstance(record, Failure):
            self._once("error", record.error.message)
        elif not self.reporter.quiet:
            for warning in record.warnings:
                self._once("warning", warning)
        return record

    def _once(self, kind: str, message: str) -> None:
        if message not in self.printed:
            self.printed.add(message)
            self.reporter.line(kind, message)


def print_summary(reporter: Reporter, records: Sequence[Answer | Failure], json: bool) -> None:
    """The table of a clip, unless there is no answer to sum up or nobody wants it."""
    answers = [record for record in records if isinstance(record, Answer)]
    if answers and not json and not reporter.quiet:
        reporter.err.print(summary(answers))


def summary(answers: Sequence[Answer]) -> Table:
    """The ``figures`` of one clip."""
    first = answers[0]
    model, pruner = (escape(printable(name)) for name in (first.model.id, first.pruner.name))
    title = f"{model} on {first.model.device_name} · {pruner}, keep {first.pruner.keep:g}"
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    for name in FIGURES:
        table.add_column(name, justify="right" if name else "left", overflow="fold")
    for section in figures(answers):
        for row in section:
            table.add_row(*row)
        table.add_section()
    return table
