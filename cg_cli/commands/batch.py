"""``cg batch``: questions about many videos, into JSONL."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cg_cli.commands import options as opt
from cg_cli.errors import UsageError

RUN = "Batch"


def batch(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="files, folders, glob patterns, manifests (.jsonl, .csv, .txt), or - for a list on stdin",
        ),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option("-q", "--question", help="asked of every video without a question of its own; repeat it for more"),
    ] = None,
    questions: Annotated[Path | None, typer.Option(metavar="FILE", help="more such questions, one a line")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="one record a line; also the archive that a second run goes on from; - is stdout",
        ),
    ] = None,
    benchmark: opt.Benchmark = None,
    data: opt.Data = None,
    null: Annotated[
        bool, typer.Option("--null", help="the list on stdin has a NUL after each path (find -print0)")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what would run and how many tokens, one JSON object a video")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="start again with an empty file")] = False,
    no_retry: Annotated[bool, typer.Option("--no-retry", help="leave what failed before as it is")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="stop at the first video that fails")] = False,
    max_failures: Annotated[int | None, typer.Option(help="stop once so many videos have failed", min=1)] = None,
    show_dir: opt.ShowDir = None,
    gpus: Annotated[
        str | None, typer.Option(metavar="N|all", help="a worker on each of N CUDA devices, or on all")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="only part I (from 0) of N, into a file of its own; auto: as SLURM, Kubernetes or torchrun say",
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: the actors of a Ray cluster")] = "local",
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
    quiet: Annotated[bool, typer.Option("--quiet", help="no table, no progress, no warnings on stderr")] = False,
    verbose: opt.Verbose = False,
) -> None:
    """Ask questions about many videos: one record a line, through crashes.

    All questions about a video share one reading of it. Run the same command again after an interruption: what is
    answered stays, what failed is tried again.

    \b
    cg batch videos/ -q "What is happening?" -o answers.jsonl
    cg batch labelled.jsonl -o answers.jsonl --keep 0.25
    cg batch 'talks/**/*.mp4' -q "Who speaks?" -q "What about?" -o - | jq -r .answer
    find . -name '*.mkv' -print0 | cg batch - --null -q "Is it raining?" -o rain.jsonl
    cg batch videos/ --questions asked.txt -o answers.jsonl --shard auto
    cg batch --benchmark daily-omni --data ~/Daily-Omni -o daily-omni.jsonl
    """
    settings = opt.resolve_settings(locals())
    from cg_cli.batch import engines, items
    from cg_cli.batch import shard as shards
    from cg_cli.batch.run import Plan
    from cg_cli.console.output import Reporter

    if out is None and not dry_run:
        raise UsageError("no place for the records: give -o FILE, or -o - for stdout")
    if benchmark:
        if inputs or question or questions:
            raise UsageError(
                f"--benchmark {benchmark} brings its own videos and questions: leave out INPUT, -q and --questions"
            )
        from cg_cli.evals import benchmarks

        collected = benchmarks.collect(benchmark, data, settings)
    elif not inputs:
        raise UsageError("nothing to answer: name files, folders or a manifest, or a --benchmark")
    else:
        asked = [*(question or []), *(items.read_questions(questions) if questions else [])]
        collected = items.collect(inputs, asked, stdin=sys.stdin.buffer if items.STDIN in inputs else None, null=null)
    plan = Plan(
        settings=settings,
        collected=collected,
        out=out or "-",
        shard=shards.parse(shard, os.environ) if shard else None,
        overwrite=overwrite,
        retry=not no_retry,
        max_failures=1 if fail_fast else max_failures,
        command=sys.argv[1:],
    )
    reporter = Reporter(quiet=quiet)
    if verbose:
        reporter.settings(settings)
    from cg_cli.batch.run import run
    from cg_cli.console import progress
    from cg_cli.settings import models

    if dry_run:
        from cg_cli.batch.forecast import forecast

        progress.foretold(reporter, plan, forecast(plan))
        return
    if engine == "local":  # the machines of a cluster have theirs
        models.fetch(settings, reporter.note, light=True)
    with progress.watching(reporter) as watch:
        report = run(plan, engines.make(engine, settings, gpus), watch)
    progress.report(reporter, plan, report)
    raise typer.Exit(report.end(plan))
