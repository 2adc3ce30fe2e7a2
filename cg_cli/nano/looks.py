"""What it costs to encode pictures once that repeat, exactly or nearly: answers, and the vision tower's work.

``python -m cg_cli.nano.looks --seeds 2124 2125 2126 --count 25 --out DIR`` has nano answer about clips that move, that
stand still half of the time, and that are slides, read with each value of ``--look-once`` at each ratio, copies ranked
as others or merged before (``--repeats``). For each kind of clip it prints the share of the vision tower's FLOPs,
accuracy, and differences to encoding everything with 95 % intervals, paired by clip. It goes on where an earlier run
stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from cg_cli.media import DecodeWorker
from cg_cli.media.clip import DecodeOptions
from cg_cli.media.repeats import grid_sources
from cg_cli.nano import sweep
from cg_cli.nano.judge import Condition, by_clip
from cg_cli.nano.tables import Hits, caption, name_at
from cg_cli.nano.worlds import FROZEN, SLIDES, THINGS
from cg_cli.settings import look_once
from cg_cli.settings.table import NO_PRUNER

VALUES = (look_once.OFF, look_once.EXACT, "4", "8")
MERGED = ", merged"  # after the value of a row whose copies are merged before anything is ranked (--repeats merge)
KEEPS = (1.0, 0.25, 0.1)
PRUNER = "contextguard"


def name_of(value: str, keep: float) -> str:
    """The name of the condition that reads with ``--look-once value``, MERGED or not, and keeps ``keep``."""
    return name_at(f"look-once {value}", keep)


def conditions(values: Sequence[str], keeps: Sequence[float]) -> list[Condition]:
    """Each value at each ratio, and below 1 each with its copies merged, too."""
    out = []
    for keep in keeps:
        for value in values:
            reading = (("look_once", look_once.levels(value)),)
            pruner = NO_PRUNER if keep == 1 else PRUNER
            out.append(Condition(name_of(value, keep), pruner, keep, reading=reading))
            if keep < 1 and value != look_once.OFF:
                out.append(Condition(name_of(value + MERGED, keep), pruner, keep, folded=True, reading=reading))
    return out


def encoded_shares(folder: Path, videos: Sequence[str], values: Sequence[str]) -> dict[str, float]:
    """By value, the share of the grids of all ``videos`` in ``folder`` that is encoded: of the vision tower's FLOPs,
    since all grids are equally large."""
    grids, encoded = 0, dict.fromkeys(values, 0)
    options = DecodeOptions(audio=False)
    with DecodeWorker() as worker:
        for video in tqdm(videos, unit="clip", desc="grids", disable=None):
            frames = worker.decode(str(folder / video), options).frames
            assert frames is not None
            grids += len(frames) // options.frame_multiple
            for value in values:
                encoded[value] += len(np.unique(grid_sources(frames, options.frame_multiple, look_once.levels(value))))
    return {value: count / grids for value, count in encoded.items()}


def table(hits: Hits, shares: dict[str, float], kind: str, keeps: Sequence[float]) -> Table:
    """A row a value: the share of FLOPs, and at each ratio the accuracy in percent and its difference to encoding
    everything, in points."""
    out = Table(title=f"{kind}, {hits.size()}", title_justify="left", caption=caption(), caption_justify="left")
    out.add_column("--look-once")
    for name in (
        "vision FLOPs",
        *(f"{what} {keep:g}" for keep in keeps for what in ("right at", f"against {look_once.OFF} at")),
    ):
        out.add_column(name, justify="right")
    rows = {value + how: share for value, share in shares.items() for how in ("", MERGED)}
    for value, share in rows.items():
        cells = []
        for keep in keeps:
            name, whole = name_of(value, keep), name_of(look_once.OFF, keep)
            if name not in hits.right:
                cells += ["", ""]
                continue
            low, high = hits.interval(name, whole)
            difference = f"{hits.accuracy(name) - hits.accuracy(whole):+.1f} [{low:+.1f} to {high:+.1f}]"
            cells += [f"{hits.accuracy(name):.1f}", "" if name == whole else difference]
        if any(cells):
            out.add_row(value, f"{share:.0%}", *cells)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.nano.looks", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="of the worlds")
    parser.add_argument("--count", type=int, default=40, help="clips of each kind and seed")
    parser.add_argument("--values", nargs="+", default=VALUES, help="of --look-once; off is always asked")
    parser.add_argument("--keeps", type=float, nargs="+", default=KEEPS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--workers", type=int, help="processes (default: one a core; one with a GPU)")
    options = parser.parse_args()
    values = list(dict.fromkeys([look_once.OFF, *options.values]))
    columns = conditions(values, options.keeps)
    tables = []
    for world in (THINGS, FROZEN, SLIDES):
        out = options.out / world.name
        out.mkdir(parents=True, exist_ok=True)
        shares: list[dict[str, float]] = []
        for seed in options.seeds:
            sweep.run(options.model, seed, options.count, None, columns, out, options.workers, world=world)
            folder = out / f"seed-{seed}"
            videos = list(by_clip(folder / "labelled.jsonl"))[: options.count]
            shares.append(encoded_shares(folder, videos, values))
        wanted = {column.name for column in columns}
        lines = [line for line in sweep.read(out) if line["seed"] in options.seeds and line["condition"] in wanted]
        mean = {value: float(np.mean([share[value] for share in shares])) for value in values}
        tables.append(table(Hits(lines), mean, world.name, options.keeps))
    for each in tables:
        Console(width=160).print(each)


if __name__ == "__main__":
    main()
