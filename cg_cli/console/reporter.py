"""One way to say a line: data goes to stdout, everything else to stderr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.text import Text

from cg_cli.settings.table import Settings
from cg_cli.util.text import printable


@dataclass
class Reporter:
    """What a command says while it works: data on stdout, everything else on stderr."""

    quiet: bool = False
    err: Console = field(default_factory=lambda: Console(stderr=True))

    def line(self, kind: str, message: str) -> None:
        """One line on stderr, e.g. ``cg: warning: ...``; never wrapped, never read as markup, and without what a
        terminal would act on."""
        style = {"error": "bold red", "warning": "yellow"}.get(kind, "dim")
        self.err.print(
            Text.assemble("cg: ", (f"{printable(kind)}: ", style), printable(message)), soft_wrap=True, highlight=False
        )

    def timed(self, kind: str, message: str) -> None:
        """A line of a long run, with the time of day where it may land in a log."""
        clock = "" if self.err.is_terminal else datetime.now().astimezone().isoformat(timespec="seconds") + " "
        self.line(kind, clock + message)

    def note(self, message: str) -> None:
        """One line that a quiet run does without."""
        if not self.quiet:
            self.line("note", message)

    def settings(self, settings: Settings) -> None:
        for name, value in asdict(settings).items():
            self.line("setting", f"{name.replace('_', '-')} = {value}")

    @contextmanager
    def working(self, what: str) -> Iterator[Status | None]:
        """A spinner on a terminal, nothing elsewhere."""
        spin = self.err.is_terminal and not self.quiet
        with self.err.status(what) if spin else nullcontext() as status:
            yield status

    def written(self, files: Sequence[Path]) -> None:
        if not self.quiet:
            self.line("written", ", ".join(map(str, files)))
