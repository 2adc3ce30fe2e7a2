"""``cg config``: which settings are in effect, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cg_cli.commands import options as opt


def show(
    context: typer.Context,
    init: Annotated[
        Path | None,
        typer.Option("--init", metavar="FILE", help="write a commented file to start from, and nothing else"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
    model: opt.Model = None,
    preset: opt.Preset = None,
    keep: opt.Keep = None,
    pruner: opt.Pruner = None,
    predictor: opt.Predictor = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    quantize: opt.Quantize = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    max_pixels: opt.MaxPixels = None,
    no_audio: opt.NoAudio = None,
    decode_timeout: opt.DecodeTimeout = None,
    max_new_tokens: opt.MaxNewTokens = None,
    temperature: opt.Temperature = None,
    seed: opt.Seed = None,
    offline: opt.Offline = None,
    config: opt.Config = None,
) -> None:
    """Show every setting that is in effect, and where it is from: flag, environment, config file, preset or default.

    Config files hold long options (max-frames: 256). The nearest cg.yaml, here or in a folder above, goes before
    ~/.config/cg/config.yaml.

    \b
    cg config
    CG_KEEP=0.25 cg config --preset light
    cg config --init cg.yaml
    cg config --init ~/.config/cg/config.yaml
    """
    from cg_cli.console.output import Reporter

    reporter = Reporter()
    if init:
        from cg_cli.settings.files import starter
        from cg_cli.settings.resolve import defaults

        starter(init, {name: (value, opt.help_of(name)) for name, value in defaults().items()})
        reporter.line("written", str(init))
        return
    reporter.explained(opt.resolve_with_sources(locals(), context=context), as_json=json)
