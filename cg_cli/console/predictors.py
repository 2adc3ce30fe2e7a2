"""``cg fetch-predictor`` and ``cg train-predictor``: what there is, what was installed, how a training goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.status import Status

from cg_cli.console.reporter import Reporter
from cg_cli.predictors import card
from cg_cli.util.format import size
from cg_cli.util.text import printable

if TYPE_CHECKING:
    from cg_cli.predictors.job import Report


def print_predictors(reporter: Reporter, rows: Sequence[Mapping[str, Any]], unpublished: str) -> None:
    """The table of known and installed predictors, on stdout; what there is none for, on stderr."""
    cells: list[tuple[str, ...]] = [("name", "backbone", "size", "source", "installed", "default")]
    for row in rows:
        source = row["source"] + (f"@{row['revision'][:12]}" if row["revision"] else "")
        marks = ("yes" if row[mark] else "no" for mark in ("installed", "default"))
        cells.append((printable(row["name"]), printable(row["backbone"]), size(row["size"]), printable(source), *marks))
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    if not reporter.quiet:
        for row in rows:
            if row.get("card", {}).get("verdict"):
                reporter.line("verdict", f"{printable(row['name'])}: {printable(row['card']['verdict'])}")
        reporter.line("note", unpublished)


def print_installed(reporter: Reporter, row: Mapping[str, Any]) -> None:
    """Which predictor was installed, and when it is used."""
    name, model = row["name"], row["backbone"]
    if reporter.quiet:
        return
    if "card" not in row:
        default = f"; it is the default of {model}" if row["default"] else ""
        reporter.line("note", f"{name} is {row['source']}: nothing to fetch{default}")
        return
    use = f"the default of {model} now" if row["default"] else f"`--predictor {name}` uses it"
    reporter.line("installed", f"{name}: for {model}, {size(row['size'])}, from {row['source']}; {use}")
    _print_card(reporter, row["card"])


def _print_card(reporter: Reporter, metadata: Mapping[str, Any]) -> None:
    """What a predictor will change, in figures and in words, where that was measured."""
    if metadata.get("verdict"):
        for what, value, nothing in card.rows(metadata):
            reporter.line("measured", f"{what}: {value}; {nothing}")
        reporter.line("verdict", printable(metadata["verdict"]))


def print_removed(reporter: Reporter, name: str) -> None:
    """Which predictor is not installed any more."""
    if not reporter.quiet:
        reporter.line("removed", name)


@dataclass
class FetchProgress:
    """Progress of a fetch."""

    reporter: Reporter

    @property
    def bar(self) -> Callable[..., Any]:
        """Makes a progress bar, visible on a terminal only."""
        from tqdm import tqdm

        return partial(tqdm, disable=self.reporter.quiet or not self.reporter.err.is_terminal, leave=False)

    def note(self, message: str) -> None:
        self.reporter.note(message)


@contextmanager
def training(reporter: Reporter) -> Iterator[TrainingProgress]:
    """Progress of a training."""
    with reporter.working("loading the model") as status:
        yield TrainingProgress(reporter, status)


@dataclass
class TrainingProgress:
    """A training in work: clips that are encoded, checks on clips held back."""

    reporter: Reporter
    status: Status | None

    def fault(self, message: str) -> None:
        self.reporter.line("warning", message)

    def encoded(self, done: int, total: int) -> None:
        if self.status:
            self.status.update(f"encoding the videos: {done} of {total}")
        if done == total and not self.reporter.quiet:
            self.reporter.line("encoded", f"{total} videos")

    def note(self, message: str) -> None:
        self.reporter.note(message)

    def checked(self, role: str, step: int, figures: dict[str, float]) -> None:
        if not self.reporter.quiet:
            from cg_cli.predictors.publish import recall_in_words  # torch comes with it, as with the training

            name = next(iter(figures))  # cosine, or bits
            agreement = f"{name} {figures[name]:.3f} (another clip's sound {figures[f'{name}_shuffled']:.3f})"
            recall = f"recall@1 {recall_in_words(figures)} (chance {figures['chance']:.1%})"
            self.reporter.timed(f"{role}, step {step}", f"{agreement}, {recall}")


def print_trained(reporter: Reporter, out: Path, report: Report, folder: Path | None) -> None:
    """What a training wrote, and the folder that can be published."""
    metadata, left_out = report.metadata, f", {report.left_out} left out" if report.left_out else ""
    if not reporter.quiet:
        reporter.line(
            "written",
            f"{out}: for {metadata.backbone}, from {metadata.clips} clips ({metadata.windows} windows){left_out}",
        )
        _print_card(reporter, asdict(metadata))
        if folder:
            reporter.line(
                "written",
                f"{folder}: `cg fetch-predictor {folder} --default` installs it and makes it the model's default; "
                f"`hf upload OWNER/NAME {folder}` publishes it",
            )
