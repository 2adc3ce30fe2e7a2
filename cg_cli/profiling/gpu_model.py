"""The sections of the GPU check that take a model and nothing else: prefill, decoding, and the towers."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rich.table import Table

from cg_cli.backbones.base import Backbone
from cg_cli.engine import pipeline
from cg_cli.media.clip import DecodeOptions
from cg_cli.profiling import decoding, synthetic
from cg_cli.profiling.measure import BASELINE, Ask, Bench, Cell
from cg_cli.profiling.random_predictor import random_predictor
from cg_cli.profiling.readings import OWN
from cg_cli.profiling.summary import summarise
from cg_cli.pruning import registry
from cg_cli.pruning.base import Pruner
from cg_cli.util.format import count, duration, size

PRUNERS = ("contextguard", "random", "evs", "seats")  # the last one drops tokens between layers
KEEPS = (0.45, 0.25, 0.1)
IN_FLIGHT = (1, 8, 32)  # clips that are decoded together
TOKENS = 64  # of an answer
PRUNED = 0.25  # of a clip's tokens that the prefixes of ``decode`` have

Figures = dict[str, Any]


def decode_options(backbone: Backbone) -> DecodeOptions:
    """The defaults of a real run, in the geometry of ``backbone``."""
    return DecodeOptions(side_multiple=backbone.side_multiple, frame_multiple=backbone.frame_multiple)


def make_pruner(name: str, backbone: Backbone) -> Pruner:
    """The pruner ``name``, with a predictor of random weights if it reads one."""
    pruner = registry.make(name)
    if pruner.needs_predictor:
        return pruner.with_predictor(random_predictor(backbone.hidden_size, backbone.device))
    return pruner


def figures_table(title: str, first: str, *columns: str) -> Table:
    """An empty table of figures, ``first`` the head of the names, that is as wide as its title."""
    table = Table(title=title, title_justify="left", min_width=len(title))
    for name in (first, *columns):
        table.add_column(name, justify="left" if name == first else "right")
    return table


def prefill(backbone: Backbone, length_s: float, repeat: int, figures: Figures) -> None:
    """``tokens`` of a clip, ``cells``: the figures of the whole clip and of each pruner at each keep, and
    ``failures``."""
    clip = synthetic.clip(length_s, decode_options(backbone))
    for name in PRUNERS:  # one after another, so that what is broken off has whole pruners
        pruner, cells = make_pruner(name, backbone), [BASELINE, *(Cell(name, keep) for keep in KEEPS)]
        pruners = dict.fromkeys(cells, pruner) | {BASELINE: registry.make(BASELINE.pruner)}
        measured = Bench(backbone, pruners, TOKENS).clip({OWN: clip}, [Ask(decoding.QUESTION)], repeat)
        cells = [cell for cell in cells if cell.name in measured["cells"]]
        summaries = summarise(cells, [[{"media_s": {OWN: None}, **measured}]])["cells"]
        before = figures.get("cells", [])
        figures.update(  # in one step, as an alarm may come after any
            tokens=summaries[0]["tokens"],
            cells=before + [_cell(cell) for cell in summaries[bool(before) :]],  # the whole clip once
            failures=figures.get("failures", {}) | measured["failures"],
        )


def _cell(summary: dict[str, Any]) -> Figures:
    """Of ``summarise``: times in seconds, speed-ups against the whole clip in the same round; ``efficiency`` is the
    share of the FLOPs' promise that came, ``selection_share`` of the whole clip's prefill."""
    seconds = summary["seconds"]
    prefill_s = seconds["select_s"] + seconds["prefill_s"]
    return {
        "pruner": summary["pruner"],
        "keep": summary["keep"],
        "prefill_s": prefill_s,
        "ttft_s": prefill_s + seconds["first_token_s"],
        "prefill_speedup": summary["prefill_speedup"],
        "ttft_speedup": summary["ttft_speedup"],
        "promised": summary["promised"],
        "efficiency": summary["efficiency"],
        "selection_share": summary["selection_share"],
        "peak_bytes": summary["peak_bytes"],
        "kv_bytes": summary["kv_bytes"],
    }


def prefill_table(figures: Figures) -> Table:
    """A row a cell."""
    title = "{video:,} video and {audio:,} audio tokens".format(**figures["tokens"])
    columns = ("keep", "prefill", "to first token", "faster", "promised", "of it", "selection", "peak")
    table = figures_table(title, "", *columns)
    for cell in figures["cells"]:
        speedup = cell["prefill_speedup"]
        table.add_row(
            cell["pruner"],
            f"{cell['keep']:g}",
            duration(cell["prefill_s"]),
            duration(cell["ttft_s"]),
            f"{speedup['median']:.2f} x ({speedup['min']:.2f}-{speedup['max']:.2f})",
            f"{cell['promised']:.2f} x",
            f"{cell['efficiency']:.2f}",
            f"{cell['selection_share']:.2%}",
            size(cell["peak_bytes"]) if cell["peak_bytes"] is not None else "-",
        )
    for name, why in figures["failures"].items():
        table.add_row(name, "failed:", why)
    return table


def prefill_line(figures: Figures) -> str:
    """In a line: what the first pruner saves."""
    cells = [cell for cell in figures["cells"] if cell["pruner"] == PRUNERS[0]]
    return f"{PRUNERS[0]} " + ", ".join(
        f"keep {cell['keep']:g}: {cell['prefill_speedup']['median']:.2f} x, {cell['efficiency']:.2f} of what is "
        f"promised, selection {cell['selection_share']:.2%}"
        for cell in cells
    )


def decode(backbone: Backbone, length_s: float, repeat: int, figures: Figures) -> None:
    """``rows`` of the shortest prefix, which one clip in flight has, and ``tokens_per_s`` by mode ("eager" or
    "graphs") and number of clips in flight, medians of ``repeat`` rounds."""
    clip = synthetic.clip(length_s, decode_options(backbone))
    assert clip.frames is not None and clip.audio is not None
    frames, height, width, _ = clip.frames.shape
    _, video, audio = backbone.media_tokens(frames, height, width, len(clip.audio))
    figures |= {"rows": round(PRUNED * (video + audio)), "answer_tokens": TOKENS, "tokens_per_s": {}}
    prefixes = decoding.make_prefixes(backbone, figures["rows"], max(IN_FLIGHT))
    modes = {"eager": False, "graphs": True} if backbone.graphs else {"eager": False}
    for together in IN_FLIGHT:
        for mode, graphs in modes.items():
            rates = []
            with _graphs(backbone, graphs):
                for _ in range(repeat + 1):  # the first one warms up
                    took, made = decoding.seconds(backbone, prefixes[:together], together, TOKENS)
                    rates.append(made / took)
            figures["tokens_per_s"].setdefault(mode, {})[str(together)] = statistics.median(rates[1:])


@contextmanager
def _graphs(backbone: Backbone, graphs: bool) -> Iterator[None]:
    """Steps of ``backbone`` are recorded as CUDA graphs meanwhile, or are not."""
    before, backbone.graphs = backbone.graphs, graphs
    try:
        yield
    finally:
        backbone.graphs = before


def decode_table(figures: Figures) -> Table:
    """A column for each way to run a step: eager, and recorded as a CUDA graph where that is possible."""
    title = f"tokens a second; prefixes of {figures['rows']:,} to {round(decoding.LONGER * figures['rows']):,} tokens"
    table = figures_table(title, "clips in flight", *figures["tokens_per_s"])
    for together in map(str, IN_FLIGHT):
        rates = [of_mode.get(together) for of_mode in figures["tokens_per_s"].values()]
        table.add_row(together, *("-" if rate is None else f"{rate:,.1f}" for rate in rates))
    return table


def decode_line(figures: Figures) -> str:
    """In a line: the rates of each way to run a step."""
    return "; ".join(
        f"{mode}: " + ", ".join(f"{rate:,.0f} tokens/s of {together}" for together, rate in rates.items())
        for mode, rates in figures["tokens_per_s"].items()
    )


def towers(backbone: Backbone, length_s: float, repeat: int, figures: Figures) -> None:
    """Of each tower ``seconds``, the median of ``repeat``, and ``flops``."""
    clip = synthetic.clip(length_s, decode_options(backbone))
    alone = {
        "vision": replace(clip, audio=None, audio_status="off"),
        "audio": replace(clip, frames=None, frame_times=None, seconds_per_frame=0.0),
    }
    flops = dict(zip(alone, backbone.encode_flops(clip)))
    for tower, part in alone.items():
        times = [pipeline.encode(backbone, part).seconds for _ in range(repeat + 1)]  # the first one warms up
        figures[tower] = {"seconds": statistics.median(times[1:]), "flops": flops[tower]}


def towers_table(figures: Figures) -> Table:
    """A row a tower."""
    table = figures_table("from pixels and sound to tokens", "", "seconds", "FLOPs", "FLOP/s")
    for tower, figure in figures.items():
        rate = figure["flops"] / figure["seconds"]
        table.add_row(tower, f"{figure['seconds']:.3f}", count(figure["flops"]), count(rate))
    return table


def towers_line(figures: Figures) -> str:
    """In a line: seconds of each."""
    return ", ".join(f"{tower} {duration(figure['seconds'])}" for tower, figure in figures.items())
