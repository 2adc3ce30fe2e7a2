"""``cg ask``: questions about one video."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from cg_cli.commands import parameters
from cg_cli.commands.parameters import argument, with_settings
from cg_cli.errors import SOME_FAILED, NothingToDo, UsageError
from cg_cli.settings.table import Settings

DEFAULT_QUESTION = "What is happening?"
QUESTION_HELP = f"one or more; - reads them from stdin, one a line (default: {DEFAULT_QUESTION})"


@with_settings("ask")
def ask(
    video: Annotated[str, argument(metavar="VIDEO", help="a video or audio file")],
    questions: Annotated[list[str] | None, argument(metavar="QUESTION", help=QUESTION_HELP)] = None,
    show: parameters.Show = None,
    json: parameters.Json = False,
    quiet: parameters.Quiet = False,
    verbose: parameters.Verbose = False,
    *,
    settings: Settings,
) -> None:
    """Ask questions about one video or sound file.

    \b
    cg ask samples/drum.mp4 "what is happening?" --model nano
    cg ask clip.mp4 "What colour is the car?" "Who speaks first?" --keep 0.25
    cg ask clip.mp4 - --json < questions.txt | jq -r .answer
    cg ask clip.mp4 "What is happening?" --show kept.png --show kept.html
    cg ask talk.mp3 "What is it about?" --model qwen2.5-omni-7b

    Answers go to stdout, a table of tokens, FLOPs and time to stderr. Several questions share one reading of the file.
    """
    from cg_cli import viz
    from cg_cli.console.answers import answering, print_summary
    from cg_cli.console.reporter import Reporter
    from cg_cli.media.opening import open_file
    from cg_cli.settings import models

    viz.check(show or [], inputs=[video])
    if not json:  # a failure's record names the model, a line does without
        open_file(video, video).close()
    texts = _questions(questions)
    if not texts:
        raise NothingToDo("no question on stdin: nothing to do")
    reporter = Reporter(quiet=quiet)
    if verbose:
        reporter.settings(settings)
    models.fetch(settings, reporter.note)
    recorder = None
    with ExitStack() as stack:
        with reporter.working("loading the model"):
            from cg_cli.engine.setup import open_session, read_ahead

            reading = stack.enter_context(read_ahead(settings, video))
            session = open_session(settings)
        if show:
            from cg_cli.viz.recorder import Recorder

            session.observer = recorder = Recorder(session.backbone.frame_multiple)
        with answering(reporter) as printer:
            on_text = None if json else printer.stream
            answers = session.answer(video, texts, reading(), on_stage=printer.stage, on_text=on_text)
            records = [printer.record(record, json=json) for record in answers]
    print_summary(reporter, records, json=json)
    if show and recorder and any(record.ok for record in records):
        with reporter.working("drawing"):
            scene = recorder.scene(video, records)
            for path in show:
                viz.write(path, scene)
        reporter.written(show)
    if not all(record.ok for record in records):
        raise typer.Exit(SOME_FAILED)


def _questions(arguments: list[str] | None) -> list[str]:
    """The questions, ``-`` replaced by the lines of stdin that are not blank."""
    if not arguments:
        return [DEFAULT_QUESTION]
    questions: list[str] = []
    for text in arguments:
        if text != "-" and os.path.isfile(text):
            raise UsageError(f"{text} is a file, not a question: `cg batch` asks about several videos")
        lines = sys.stdin.read().splitlines() if text == "-" else [text]
        questions += [line.strip() for line in lines if line.strip()]
    return questions
