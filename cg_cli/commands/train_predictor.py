"""``cg train-predictor``: an audio-to-visual predictor from unlabelled clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cg_cli.commands import parameters
from cg_cli.commands.parameters import argument, option, with_settings
from cg_cli.errors import SOME_FAILED
from cg_cli.settings.table import Settings


@with_settings("train")
def train_predictor(
    videos: Annotated[list[Path], argument(metavar="VIDEO", help="video files, or folders of them")],
    out: Annotated[Path, option("-o", "--out", metavar="FILE", help="where to write the predictor (.safetensors)")],
    kind: Annotated[
        Literal["words", "direction"],
        option(
            "--kind",
            metavar="[words|direction]",
            help="what is learned of a window: its visual words, or one direction, to compare with",
        ),
    ] = "words",
    window: Annotated[
        float, option("--window", metavar="SECONDS", help="seconds of sound that one prediction hears", min=0.1, max=60)
    ] = 1.0,
    steps: Annotated[
        int, option("--steps", metavar="N", help="at most; stops earlier when validation no longer improves", min=1)
    ] = 3000,
    cache: Annotated[
        Path | None, option("--cache", metavar="DIR", help="encoded clips and checkpoints (default: beside FILE)")
    ] = None,
    publish_dir: Annotated[
        Path | None,
        option("--publish-dir", metavar="DIR", help="also write a folder that can be uploaded to the hub as it is"),
    ] = None,
    shuffle_sound: Annotated[
        bool, option("--shuffle-sound", help="a control: pair each picture with the sound of another clip")
    ] = False,
    quiet: parameters.Quiet = False,
    *,
    settings: Settings,
) -> None:
    """Train an audio-to-visual predictor from unlabelled clips.

    It tells pruning what sound already says of the picture. Encodes every clip once, learns which picture goes with
    which sound, and a control that learns it of shuffled sound, and shows on clips held back how well, and what it
    changes. Run it again after an interruption: it goes on where it stopped.

    \b
    cg train-predictor ~/videos -o a2v-7b.safetensors
    cg train-predictor ~/videos -o a2v-7b.safetensors --publish-dir a2v-7b
    cg ask clip.mp4 "what is happening?" --predictor a2v-7b.safetensors
    """
    from cg_cli.console.predictors import print_trained, training
    from cg_cli.console.reporter import Reporter
    from cg_cli.predictors import job
    from cg_cli.settings import models

    job.check(videos, out, shuffled=shuffle_sound, publish_to=publish_dir)
    reporter = Reporter(quiet=quiet)
    models.fetch(settings, reporter.note)
    with training(reporter) as listener:
        folder = cache or out.with_name(f"{out.name}.cache")
        report = job.train_predictor(
            videos,
            out,
            settings,
            kind=kind,
            window_s=window,
            steps=steps,
            cache=folder,
            shuffled=shuffle_sound,
            publish_to=publish_dir,
            listener=listener,
        )
    print_trained(reporter, out, report, publish_dir)
    if report.left_out:
        raise typer.Exit(SOME_FAILED)
