"""``cg config`` and ``cg doctor``: settings with their sources, and a machine section by section."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cg_cli.settings.table import Resolved
from cg_cli.util.format import duration
from cg_cli.util.text import printable

if TYPE_CHECKING:
    from cg_cli.doctor import SelfTest


def print_settings(resolved: Resolved, as_json: bool) -> None:
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
        table.add_row(name, escape("-" if value is None else printable(value)), Text(printable(origin), "dim"))
    Console(soft_wrap=True).print(table)


def print_diagnosis(facts: Mapping[str, Mapping[str, str]], test: SelfTest, as_json: bool) -> None:
    """A machine, section by section, and its self test, on stdout."""
    if as_json:
        print(json.dumps({**facts, "self_test": asdict(test)}))
        return
    console = Console(soft_wrap=True, highlight=False)
    for section, lines in facts.items():
        console.print(f"[bold]{section}[/]")
        for name, value in lines.items():
            console.print(f"  {escape(printable(name))}: {escape(printable(value))}")
    word = "ok" if test.ok else "FAILED"
    console.print(f"[bold]self test[/]\n  {word}: {escape(printable(test.message))}, {duration(test.seconds)}")
