"""``cg config``: which settings are in effect, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cg_cli.commands.parameters import help_text, option, with_settings
from cg_cli.settings.table import Resolved


@with_settings(None)
def config(
    init: Annotated[
        Path | None, option("--init", metavar="FILE", help="write a commented file to start from, and nothing else")
    ] = None,
    json: Annotated[bool, option("--json", help="one JSON object on stdout")] = False,
    *,
    resolved: Resolved,
) -> None:
    """Show every setting in effect, and where it is from.

    A setting is from a flag, the environment, a config file, the preset, or its default. Config files hold long options
    (max-frames: 256). The nearest cg.yaml, here or in a folder above, goes before ~/.config/cg/config.yaml. A preset
    named on the command line beats what files say about keep and pruner.

    \b
    cg config
    CG_KEEP=0.25 cg config --preset light
    cg config --init cg.yaml
    cg config --init ~/.config/cg/config.yaml
    """
    from cg_cli.console.environment import print_settings
    from cg_cli.console.reporter import Reporter

    if init:
        from cg_cli.settings.files import write_starter
        from cg_cli.settings.resolve import defaults
        from cg_cli.settings.table import SETTINGS

        descriptions = {name: help_text(setting) for name, setting in SETTINGS.items()}
        write_starter(init, defaults(), SETTINGS, descriptions)
        Reporter().line("written", str(init))
        return
    print_settings(resolved, as_json=json)
