"""``cg samples``: the clips that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cg_cli.commands.parameters import argument


def samples(
    folder: Annotated[
        Path | None, argument(metavar="FOLDER", help="where to copy them; without it, what there is")
    ] = None,
) -> None:
    """List the sample clips, or copy them into a folder.

    \b
    cg samples
    cg samples samples
    cg ask samples/drum.mp4 "what is happening?" --model nano

    They are short clips made by this project, for the bundled nano model, which knows nothing else.
    """
    from cg_cli import samples as bundled

    if folder is None:
        for sample in bundled.samples():
            typer.echo(f"{sample.path}")
            for question in sample.questions:
                typer.echo(f"    {question}")
        return
    for path in bundled.copy_to(folder):
        typer.echo(f"{path}")
