"""``cg profile``: what pruning buys on this device, and what it costs in accuracy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cg_cli.commands import parameters
from cg_cli.commands.parameters import argument, option, with_settings
from cg_cli.errors import SOME_FAILED, NothingToDo, UsageError
from cg_cli.settings.table import Settings

KEEPS = "1,.65,.45,.35,.25,.15,.10"
QUICK_KEEPS = "1,.45,.25"
QUICK_CLIPS = 10


@with_settings("profile")
def profile(
    inputs: Annotated[
        list[str] | None,
        argument(metavar="INPUT", help="a manifest with answers, or any clips; accuracy needs answers"),
    ] = None,
    benchmark: parameters.Benchmark = None,
    data: parameters.Data = None,
    keep: Annotated[str | None, option("--keep", metavar="LIST", help=f"keep ratios (default: {KEEPS})")] = None,
    pruner: Annotated[
        str | None, option("--pruner", metavar="LIST", help="pruners (default: all that are known)")
    ] = None,
    merge: Annotated[
        str,
        option("--merge", metavar="LIST", help="what becomes of dropped tokens: auto, nearest, none (cg ask --help)"),
    ] = "auto",
    reading: Annotated[
        list[str] | None,
        option(
            "--reading",
            metavar="SETTING=VALUE",
            help="read the clips so, too, for every pruner and ratio: max-frames=32, look-once=8+max-pixels=50176 ...; "
            "repeat it for more",
        ),
    ] = None,
    repeat: Annotated[
        int, option("--repeat", metavar="N", help="timed rounds, in which all cells take turns", min=1)
    ] = 3,
    out: Annotated[
        Path,
        option("-o", "--out", metavar="DIR", help="measurements, tables, plots and report; an interrupted run goes on"),
    ] = Path("profile"),
    synthetic: Annotated[
        str | None, option("--synthetic", metavar="LENGTH", help="a made-up clip of this length, e.g. 60s")
    ] = None,
    weights: Annotated[
        Literal["trained", "random"],
        option("--weights", metavar="trained|random", help="random: the model's real shape without its download"),
    ] = "trained",
    layers: Annotated[
        int | None, option("--layers", metavar="N", help="with random weights: layers of each part at most", min=1)
    ] = None,
    pages: Annotated[
        int,
        option(
            "--pages",
            metavar="N",
            help="pages of the N clips on which pruners disagree most, linked from report.html",
            min=0,
        ),
    ] = 0,
    quick: Annotated[
        bool, option("--quick", help=f"keep {QUICK_KEEPS}, one round, the first {QUICK_CLIPS} clips")
    ] = False,
    quiet: parameters.Quiet = False,
    *,
    settings: Settings,
) -> None:
    """Measure pruners at keep ratios on this device.

    \b
    cg profile labelled.jsonl --model nano --quick
    cg profile videos/*.mp4 --pruner contextguard,random -o profile-7b
    cg profile labelled.jsonl --reading max-frames=32 --reading max-pixels=50176
    cg profile --benchmark worldsense --data ~/WorldSense
    cg profile --synthetic 60s --model qwen2.5-omni-7b --weights random

    Tokens, FLOPs, time and memory, and accuracy if the clips are labelled, each set against the whole clip in the same
    round. The folder gets a summary as JSON, which is also the last line on stdout unless that is a terminal, CSV,
    plots and report.html. An interrupted run goes on.
    """
    from cg_cli.batch import items
    from cg_cli.console.profile import print_profile, profiling
    from cg_cli.console.reporter import Reporter
    from cg_cli.pruning import registry
    from cg_cli.questions import Collected
    from cg_cli.settings import models

    if weights == "random" and settings.quantize != "none":
        raise UsageError("--quantize is for trained weights: leave it out with --weights random")
    if layers is not None and weights != "random":
        raise UsageError("--layers cuts a model with random weights: give --weights random, too")
    if benchmark and inputs:
        raise UsageError(f"--benchmark {benchmark} brings its own videos: leave out {' '.join(inputs)}")
    if not inputs and not benchmark and synthetic is None:
        raise UsageError("nothing to measure on: give a labelled manifest, clips, a --benchmark, or --synthetic 60s")
    from cg_cli.profiling import cells, readings, report, sweep
    from cg_cli.profiling import synthetic as synthetic_clip

    names = pruner.split(",") if pruner else list(registry.known())
    ways = readings.readings(reading or (), settings)
    chosen = cells.cells(names, keep or (QUICK_KEEPS if quick else KEEPS), merge, ways)
    synthetic_s = synthetic_clip.seconds(synthetic) if synthetic else None
    if benchmark:
        from cg_cli.evals import benchmarks

        collected = benchmarks.collect(benchmark, data, settings)
    elif inputs:
        collected = items.collect(inputs, [sweep.QUESTION], stdin=sys.stdin.buffer)
    else:
        collected = Collected([], [])
    report.check_folder(out, inputs=[*(inputs or []), *(item.video for item in collected.items)])
    reporter = Reporter(quiet=quiet)
    if not collected.items and synthetic_s is None:
        for fault in collected.faults:
            reporter.line("error", fault)
        raise NothingToDo("no clip is left to measure on: nothing to do")
    if weights == "trained":
        models.fetch(settings, reporter.note)
    with profiling(reporter) as listener:
        for fault in collected.faults:
            listener.fault(fault)
        plan = sweep.Profile(
            settings=settings,
            items=collected.items[:QUICK_CLIPS] if quick else collected.items,
            cells=chosen,
            readings=ways,
            out=out,
            repeat=1 if quick else repeat,
            synthetic_s=synthetic_s,
            random=weights == "random",
            layers=layers,
            pages=pages,
        )
        summary = sweep.run(plan, listener)
        files = report.write(summary, out)
    print_profile(reporter, summary, files)
    if summary["failed"] or collected.faults:
        raise typer.Exit(SOME_FAILED)
