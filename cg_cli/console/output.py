"""What people see: answers on stdout; the table of a clip, progress, warnings and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table
from rich.text import Text

from cg_cli.engine.figures import FIGURES, NOTE, figures
from cg_cli.records import Answer, Failure, to_line
from cg_cli.settings.table import Resolved, Settings
from cg_cli.util.format import duration, size

if TYPE_CHECKING:
    from cg_cli.doctor import SelfTest
    from cg_cli.predictors.job import Report

WORDS = {
    "media": "reading the video",
    "encode": "looking and listening",
    "prune": "pruning",
    "prefill": "taking it in",
    "decode": "answering",
}  # of the stages, for people


def summary(answers: Sequence[Answer]) -> Table:
    """The ``figures`` of one clip."""
    first = answers[0]
    title = f"{escape(first.model.id)} on {first.model.device_name} · {first.pruner.name}, keep {first.pruner.keep:g}"
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    for name in FIGURES:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for section in figures(answers):
        for row in section:
            table.add_row(*row)
        table.add_section()
    table.caption = NOTE
    table.caption_justify = "left"
    return table


@dataclass
class Reporter:
    """What a command says while it works: data on stdout, everything else on stderr."""

    quiet: bool = False
    err: Console = field(default_factory=lambda: Console(stderr=True))

    def line(self, kind: str, message: str) -> None:
        """One line on stderr, e.g. ``cg: warning: ...``; never wrapped, never read as markup."""
        style = {"error": "bold red", "warning": "yellow"}.get(kind, "dim")
        self.err.print(Text.assemble("cg: ", (f"{kind}: ", style), message), soft_wrap=True, highlight=False)

    def note(self, message: str) -> None:
        """One line that a quiet run does without."""
        if not self.quiet:
            self.line("note", message)

    def settings(self, settings: Settings) -> None:
        for name, value in asdict(settings).items():
            self.line("setting", f"{name.replace('_', '-')} = {value}")

    def resolved(self, resolved: Resolved, as_json: bool) -> None:
        """Every setting and where it is from, on stdout."""
        values = {
            name.replace("_", "-"): (value, resolved.origins.get(name, "default"))
            for name, value in asdict(resolved.settings).items()
        }
        if as_json:
            print(json.dumps({name: {"value": value, "from": origin} for name, (value, origin) in values.items()}))
            return
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, (value, origin) in values.items():
            table.add_row(name, escape("-" if value is None else str(value)), Text(origin, "dim"))
        Console(soft_wrap=True).print(table)

    def examined(self, found: Mapping[str, Mapping[str, str]], test: SelfTest, as_json: bool) -> None:
        """A machine, section by section, and its self test, on stdout."""
        if as_json:
            print(json.dumps({**found, "self_test": asdict(test)}))
            return
        console = Console(soft_wrap=True, highlight=False)
        for section, lines in found.items():
            console.print(f"[bold]{section}[/]")
            for name, value in lines.items():
                console.print(f"  {escape(name)}: {escape(value)}")
        word = "ok" if test.ok else "FAILED"
        console.print(f"[bold]self test[/]\n  {word}: {escape(test.said)}, {duration(test.seconds)}")

    @contextmanager
    def working(self, what: str) -> Iterator[Working]:
        """A spinner on a terminal, nothing elsewhere."""
        spin = self.err.is_terminal and not self.quiet
        with self.err.status(what) if spin else nullcontext() as status:
            yield Working(self, status)

    @contextmanager
    def learning(self) -> Iterator[Learning]:
        """Progress of a training."""
        with self.working("loading the model") as working:
            yield Learning(self, working)

    def learned(self, out: Path, report: Report, folder: Path | None) -> None:
        """What a training wrote, and the folder that can be published."""
        metadata, left_out = report.metadata, f", {report.left_out} left out" if report.left_out else ""
        if not self.quiet:
            self.line(
                "written",
                f"{out}: for {metadata.backbone}, from {metadata.clips} clips ({metadata.windows} windows){left_out}",
            )
            if folder:
                self.line(
                    "written",
                    f"{folder}: `cg fetch-predictor {folder} --default` installs it and makes it the model's default; "
                    f"`hf upload OWNER/NAME {folder}` publishes it",
                )

    def predictors(self, rows: Sequence[Mapping[str, Any]], unpublished: str) -> None:
        """The table of known and installed predictors, on stdout; what there is none for, on stderr."""
        cells = [("name", "backbone", "size", "source", "installed", "default")]
        for row in rows:
            source = row["source"] + (f"@{row['revision'][:12]}" if row["revision"] else "")
            marks = ("yes" if row[mark] else "no" for mark in ("installed", "default"))
            cells.append((row["name"], row["backbone"], size(row["size"]), source, *marks))
        widths = [max(map(len, column)) for column in zip(*cells)]
        for line in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        if not self.quiet:
            self.line("note", unpublished)

    def fetched(self, row: Mapping[str, Any]) -> None:
        """Which predictor was installed, and when it is used."""
        name, model = row["name"], row["backbone"]
        if self.quiet:
            return
        if "card" not in row:
            default = f"; it is the default of {model}" if row["default"] else ""
            self.line("note", f"{name} is {row['source']}: nothing to fetch{default}")
            return
        use = f"the default of {model} now" if row["default"] else f"`--predictor {name}` uses it"
        self.line("installed", f"{name}: for {model}, {size(row['size'])}, from {row['source']}; {use}")

    def removed(self, name: str) -> None:
        """Which predictor is not installed any more."""
        if not self.quiet:
            self.line("removed", name)

    @contextmanager
    def profiling(self) -> Iterator[Profiling]:
        """Progress of a profile."""
        with self.working("loading the model") as working:
            yield Profiling(self, working)

    def profiled(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """The table of a profile and where its files are on stderr, the summary as the last line of stdout."""
        from cg_cli.profiling.table import table

        if not self.quiet:
            self.err.print(table(summary))
        self.written(files)
        print(json.dumps(summary), flush=True)

    def written(self, files: Sequence[Path]) -> None:
        if not self.quiet:
            self.line("written", ", ".join(map(str, files)))

    def summary(self, done: Sequence[Answer | Failure], json: bool) -> None:
        """The table of a clip, unless there is no answer to sum up or nobody wants it."""
        answers = [record for record in done if isinstance(record, Answer)]
        if answers and not json and not self.quiet:
            self.err.print(summary(answers))


@dataclass
class Working:
    """One clip in work: its stages, the words of its answers, its records."""

    reporter: Reporter
    status: Status | None
    told: set[str] = field(default_factory=set)
    streamed: bool = False

    def stage(self, name: str) -> None:
        if self.status:
            self.status.update(WORDS[name])

    def stream(self, text: str) -> None:
        """A piece of an answer, shown at once if somebody is watching."""
        if sys.stdout.isatty():
            if self.status:
                self.status.stop()
            sys.stdout.write(text)
            sys.stdout.flush()
            self.streamed = True

    def record(self, record: Answer | Failure, json: bool) -> Answer | Failure:
        """Print a finished record; warnings and errors that many questions share are said once."""
        if self.streamed:
            print(flush=True)
        if json:
            print(to_line(record), flush=True)
        elif isinstance(record, Answer) and not self.streamed:
            print(record.answer, flush=True)
        self.streamed = False
        if isinstance(record, Failure):
            self._once("error", record.error.message)
        elif not self.reporter.quiet:
            for warning in record.warnings:
                self._once("warning", warning)
        return record

    def _once(self, kind: str, message: str) -> None:
        if message not in self.told:
            self.told.add(message)
            self.reporter.line(kind, message)


@dataclass
class Learning:
    """A training in work: clips that are encoded, checks on clips held back."""

    reporter: Reporter
    working: Working

    def fault(self, message: str) -> None:
        self.reporter.line("warning", message)

    def encoded(self, done: int, total: int) -> None:
        if self.working.status:
            self.working.status.update(f"encoding the videos: {done} of {total}")
        if done == total and not self.reporter.quiet:
            self.reporter.line("encoded", f"{total} videos")

    def checked(self, step: int, figures: dict[str, float]) -> None:
        if not self.reporter.quiet:
            told = f"cosine {figures['cosine']:.3f} (shuffled sound {figures['cosine_shuffled']:.3f})"
            found = f"recall@1 {figures['recall_at_1']:.1%} (chance {figures['chance']:.1%})"
            self.reporter.line(f"step {step}", f"{told}, {found}")


@dataclass
class Fetching:
    """Progress of a fetch."""

    reporter: Reporter

    @property
    def bar(self) -> Callable[..., Any]:
        """Makes a progress bar, visible on a terminal only."""
        from tqdm import tqdm

        return partial(tqdm, disable=self.reporter.quiet or not self.reporter.err.is_terminal, leave=False)

    def note(self, message: str) -> None:
        self.reporter.note(message)


@dataclass
class Profiling:
    """A profile in work."""

    reporter: Reporter
    working: Working

    def fault(self, message: str) -> None:
        self.reporter.line("error", message)

    def note(self, message: str) -> None:
        self.reporter.note(message)

    def loaded(self, facts: Mapping[str, Any]) -> None:
        if not self.reporter.quiet:
            model, layers = (
                facts["model"],
                f", {facts['model']['layers']} layers of each part" if facts["model"]["layers"] else "",
            )
            self.reporter.line(
                "model",
                f"{model['id']}, {model['weights']} weights{layers}, on {facts['device_name']}, {facts['dtype']}",
            )

    def measured(self, done: int, total: int) -> None:
        if self.working.status:
            self.working.status.update(f"measuring: {done} of {total} clips")
        elif not self.reporter.quiet and (done == total or done % 10 == 0):
            self.reporter.line("measured", f"{done} of {total} clips")
