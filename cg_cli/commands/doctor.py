"""``cg doctor``: what a bug report needs."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False) -> None:
    """Print what a bug report needs, and run a self test.

    Versions, devices, memory, caches, models and settings; the self test answers about a clip made here. Touches no
    network. Exits with 1 if the self test fails.

    \b
    cg doctor
    cg doctor --json > report.json
    """
    from cg_cli.console.environment import print_diagnosis
    from cg_cli.console.reporter import Reporter

    with Reporter().working("looking around"):
        from cg_cli.doctor import facts, self_test

        report, test = facts(), self_test()
    print_diagnosis(report, test, as_json=json)
    if not test.ok:
        raise typer.Exit(1)
