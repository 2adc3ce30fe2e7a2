"""``cg ask``: questions about one video."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cg_cli.commands import options as opt
from cg_cli.errors import SOME_FAILED, NothingToDo

DEFAULT_QUESTION = "What is happening?"


def ask(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="a video or audio file")],
    questions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[QUESTION]", help=f"one or more; - reads them from stdin, one a line (default: {DEFAULT_QUESTION})"
        ),
    ] = None,
    show: opt.Show = None,
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
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Ask questions about one video: the answer on stdout, a table of tokens, FLOPs and time on stderr.

    Several questions share one reading of the video.

    \b
    cg ask samples/drum.mp4 "what is happening?" --model nano
    cg ask clip.mp4 "What colour is the car?" "Who speaks first?" --keep 0.25
    cg ask clip.mp4 - --json < questions.txt | jq -r .answer
    cg ask clip.mp4 "What is happening?" --show kept.png --show kept.html
    cg ask reporter.mp3 "What is it about?" --model qwen2.5-omni-7b --preset full
    """
    settings = opt.resolve_settings(locals())
    from cg_cli import viz as pictures
    from cg_cli.console.output import Reporter

    pictures.check(show or [])
    asked = _questions(questions)
    if not asked:
        raise NothingToDo("no question on stdin: nothing to do")
    reporter = Reporter(quiet=quiet)
    if verbose:
        reporter.settings(settings)
    from cg_cli.settings import models

    models.fetch(settings, reporter.note)
    with reporter.working("loading the model"):
        from cg_cli.engine.session import Session
        from cg_cli.records import video_identity

        session = Session.open(settings)
    if show:
        from cg_cli.viz.recorder import Recorder

        session.observer = Recorder(settings, session.backbone.frame_multiple)
    with reporter.working("reading the video") as working:
        records = session.ask(video, asked, on_stage=working.stage, on_text=None if json else working.stream)
        done = [working.record(record, json=json) for record in records]
    reporter.summary(done, json=json)
    if show and any(record.ok for record in done):
        with reporter.working("drawing"):
            scene = session.observer.scene(video, video_identity(video), done)
            for path in show:
                pictures.write(path, scene)
        reporter.written(show)
    if not all(record.ok for record in done):
        raise typer.Exit(SOME_FAILED)


def _questions(given: list[str] | None) -> list[str]:
    """The questions as given, ``-`` replaced by the lines of stdin that are not blank."""
    if not given:
        return [DEFAULT_QUESTION]
    out: list[str] = []
    for question in given:
        lines = sys.stdin.read().splitlines() if question == "-" else [question]
        out += [line.strip() for line in lines if line.strip()]
    return out
