"""``cg profile``: what pruning buys on this device, and what it costs in accuracy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cg_cli.commands import options as opt
from cg_cli.errors import SOME_FAILED, UsageError

KEEPS = "1,.65,.45,.35,.25,.15,.10"
QUICK_KEEPS = "1,.45,.25"
QUICK_CLIPS = 10


def profile(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LABELLED.jsonl | CLIP...]", help="a manifest with answers, or any clips; accuracy needs answers"
        ),
    ] = None,
    benchmark: opt.Benchmark = None,
    data: opt.Data = None,
    keep: Annotated[str | None, typer.Option(metavar="LIST", help=f"keep ratios (default: {KEEPS})")] = None,
    pruner: Annotated[str | None, typer.Option(metavar="LIST", help="pruners (default: all that are known)")] = None,
    repeat: Annotated[int, typer.Option(help="timed rounds, in which all cells take turns", min=1)] = 3,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="DIR", help="measurements, tables, plots and report; an interrupted run goes on"
        ),
    ] = Path("profile"),
    synthetic: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="a made-up clip of this length, e.g. 60s")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="trained, or random: the model's real shape without its download")
    ] = "trained",
    layers: Annotated[int | None, typer.Option(help="with random weights: layers of each part at most", min=1)] = None,
    pages: Annotated[
        int,
        typer.Option(
            metavar="N", help="pages of the N clips on which pruners disagree most, linked from report.html", min=0
        ),
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"keep {QUICK_KEEPS}, one round, the first {QUICK_CLIPS} clips")
    ] = False,
    model: opt.Model = None,
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
    seed: opt.Seed = None,
    offline: opt.Offline = None,
    config: opt.Config = None,
    quiet: opt.Quiet = False,
) -> None:
    """Measure pruners at keep ratios on this device: tokens, FLOPs, time, memory, and accuracy if the clips are
    labelled.

    Every figure is set against the whole clip in the same round. The last line on stdout is the summary as JSON; the
    folder gets it too, with CSV, plots and report.html.

    \b
    cg profile labelled.jsonl --model nano --quick
    cg profile --benchmark worldsense --data ~/WorldSense --model qwen2.5-omni-7b
    cg profile videos/*.mp4 --model qwen2.5-omni-7b --pruner contextguard,random -o profile-7b
    cg profile --synthetic 60s --model qwen2.5-omni-7b --weights random
    """
    settings = opt.resolve_settings(locals(), leave_out=("keep", "pruner"))
    from cg_cli.batch import items
    from cg_cli.console.output import Reporter
    from cg_cli.pruning import registry
    from cg_cli.questions import Collected

    if weights not in ("trained", "random"):
        raise UsageError(f"--weights {weights}: give trained or random")
    if weights == "random" and settings.quantize != "none":
        raise UsageError("--quantize rounds trained weights: leave it out with --weights random")
    if layers is not None and weights != "random":
        raise UsageError("--layers cuts a model with random weights: give --weights random, too")
    if benchmark and inputs:
        raise UsageError(f"--benchmark {benchmark} brings its own videos: leave out {' '.join(inputs)}")
    if not inputs and not benchmark and synthetic is None:
        raise UsageError("nothing to measure on: give a labelled manifest, clips, a --benchmark, or --synthetic 60s")
    reporter = Reporter(quiet=quiet)
    if weights == "trained":
        from cg_cli.settings import models

        models.fetch(settings, reporter.note)
    with reporter.profiling() as listener:
        from cg_cli.profiling import cells, report, sweep
        from cg_cli.profiling import synthetic as made_up

        if benchmark:
            from cg_cli.evals import benchmarks

            found = benchmarks.collect(benchmark, data, settings)
        else:
            found = items.collect(inputs, [sweep.QUESTION], stdin=sys.stdin.buffer) if inputs else Collected([], [])
        for fault in found.faults:
            listener.fault(fault)
        names = pruner.split(",") if pruner else [name for name in registry.known()]
        wanted = sweep.Profile(
            settings=settings,
            items=found.items[:QUICK_CLIPS] if quick else found.items,
            cells=cells.cells(names, keep or (QUICK_KEEPS if quick else KEEPS)),
            out=out,
            repeat=1 if quick else repeat,
            synthetic_s=made_up.seconds(synthetic) if synthetic else None,
            random=weights == "random",
            layers=layers,
            pages=pages,
        )
        summary = sweep.run(wanted, listener)
        files = report.write(summary, out)
    reporter.profiled(summary, files)
    if summary["failed"] or found.faults:
        raise typer.Exit(SOME_FAILED)
