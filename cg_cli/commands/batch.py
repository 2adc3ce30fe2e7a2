"""``cg batch``: questions about many videos, into JSONL."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cg_cli.commands import parameters
from cg_cli.commands.parameters import argument, option, with_settings
from cg_cli.errors import SOME_FAILED, NothingToDo, UsageError
from cg_cli.settings.table import Settings

INPUT_HELP = "files, folders, glob patterns, manifests (.jsonl, .csv, .tsv, .txt), or - for a list on stdin"
Question = Annotated[
    list[str] | None,
    option(
        "-q",
        "--question",
        metavar="TEXT",
        help="asked of every video without a question of its own; repeat it for more",
    ),
]
Questions = Annotated[Path | None, option("--questions", metavar="FILE", help="more such questions, one a line")]
Out = Annotated[
    str | None,
    option(
        "-o",
        "--out",
        metavar="FILE",
        help="one record a line; also the archive that a second run goes on from; - is stdout",
    ),
]
Null = Annotated[bool, option("--null", help="the list on stdin has a NUL after each path (find -print0)")]
DryRun = Annotated[
    bool, option("--dry-run", help="only say what would run and how many tokens, one JSON object a video")
]
Overwrite = Annotated[bool, option("--overwrite", help="start again with an empty file")]
Retry = Annotated[bool, option("--retry", help="try again what failed before, also files that hold no media")]
NoRetry = Annotated[bool, option("--no-retry", help="leave what failed before as it is")]
FailFast = Annotated[bool, option("--fail-fast", help="stop at the first video that fails")]
MaxFailures = Annotated[
    int | None, option("--max-failures", metavar="N", help="stop once so many videos have failed", min=1)
]
Gpus = Annotated[str | None, option("--gpus", metavar="N|all", help="a worker on each of N CUDA devices, or on all")]
ShardOption = Annotated[
    str | None,
    option(
        "--shard",
        metavar="I/N",
        help="only part I (from 0) of N, into a file of its own; auto: as SLURM, Kubernetes or torchrun say",
    ),
]
InFlight = Annotated[
    str,
    option(
        "--in-flight", metavar="N|auto", help="videos whose answers are generated together; auto: what memory allows"
    ),
]
Decoders = Annotated[
    str,
    option(
        "--decoders",
        metavar="N|auto",
        help="files that each worker decodes at a time; auto: as its model needs, within cores and memory",
    ),
]
CheckShare = Annotated[
    float | None,
    option(
        "--check",
        metavar="SHARE",
        help="answer this share of the videos whole, too, and say how often the answers agree (cg calibrate)",
    ),
]
EngineName = Annotated[
    Literal["local", "ray"],
    option("--engine", metavar="local|ray", help="workers on this machine, or the actors of a Ray cluster"),
]


@with_settings("batch")
def batch(
    inputs: Annotated[list[str] | None, argument(metavar="INPUT", help=INPUT_HELP)] = None,
    question: Question = None,
    questions: Questions = None,
    out: Out = None,
    benchmark: parameters.Benchmark = None,
    data: parameters.Data = None,
    null: Null = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    retry: Retry = False,
    no_retry: NoRetry = False,
    fail_fast: FailFast = False,
    max_failures: MaxFailures = None,
    gpus: Gpus = None,
    shard: ShardOption = None,
    in_flight: InFlight = "auto",
    decoders: Decoders = "auto",
    engine: EngineName = "local",
    check: CheckShare = None,
    quiet: parameters.Quiet = False,
    verbose: parameters.Verbose = False,
    *,
    settings: Settings,
) -> None:
    """Ask questions about many videos, into a JSONL file.

    \b
    cg batch videos/ -q "What is happening?" -o answers.jsonl
    cg batch labelled.jsonl -o answers.jsonl --keep 0.25
    cg batch 'talks/**/*.mp4' -q "Who speaks?" -o - | jq -r .answer
    find . -name '*.mkv' -print0 | cg batch - --null -q "Rain?" -o rain.jsonl
    cg batch videos/ --questions asked.txt -o answers.jsonl --shard auto
    cg batch videos/ -q "Rain?" --preset mine.yaml --check 0.02 -o rain.jsonl
    cg batch --benchmark daily-omni --data ~/Daily-Omni -o daily-omni.jsonl

    Each question becomes one record, written when it is answered. All questions about a video share one reading of it.
    Run the same command again after an interruption: what is answered stays, what failed is tried again.

    Exit codes: 0, all answered; 3, something failed, or a line, folder or glob was left out; 4, no video at all was
    named. With --dry-run, which tries nothing, too.
    """
    from cg_cli.batch import engines, items
    from cg_cli.batch import shard as shards
    from cg_cli.batch.check import check_share
    from cg_cli.batch.run import Plan, run
    from cg_cli.console import batch as console
    from cg_cli.console.reporter import Reporter

    if out is None and not dry_run:
        raise UsageError("no place for the records: give -o FILE, or -o - for stdout")
    check_share(check, settings)
    if retry and no_retry:
        raise UsageError("--retry and --no-retry: give one of them")
    part = shards.parse(shard, os.environ) if shard else None
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
        texts = [*(question or []), *(items.read_questions(questions) if questions else [])]
        stdin = sys.stdin.buffer if items.STDIN in inputs else None
        collected = items.collect(inputs, texts, stdin=stdin, null=null)
    plan = Plan(
        settings=settings,
        collected=collected,
        out=out or "-",
        shard=part,
        overwrite=overwrite,
        retry=retry or (False if no_retry else None),
        max_failures=1 if fail_fast else max_failures,
        check=check,
        inputs=[*(inputs or []), *([questions] if questions else []), *([data] if data else [])],
        command=sys.argv[1:],
    )
    reporter = Reporter(quiet=quiet)
    if not collected.items:
        for fault in collected.faults:
            reporter.line("error", fault)
        raise NothingToDo("nothing to do: all that was named was left out")
    if verbose:
        reporter.settings(settings)
    if dry_run:
        from cg_cli.batch.forecast import forecast

        console.dry_run(reporter, plan, forecast(plan))
        raise typer.Exit(SOME_FAILED if collected.faults else 0)
    workers = engines.make(engine, settings, gpus, in_flight, decoders)
    with console.watching(reporter, plan) as listener:
        report = run(plan, workers, listener)
    console.report(reporter, plan, report)
    raise typer.Exit(report.end(plan))
