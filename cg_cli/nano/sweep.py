"""How accuracy falls as fewer tokens are kept: pruners, and rivals that are none, at every ratio, on held-out clips.

``python -m cg_cli.nano.sweep --seeds 2001 2002 2003 --count 170 --out DIR`` writes the clips and one line a clip and
condition to DIR, goes on where an earlier run stopped, asks only what is new when rows or ratios are added, and prints
the tables: accuracy by ratio and by category, and differences with 95 % intervals, paired by clip.

``--world ambience`` asks about the world of surfaces, in DIR/ambience.

``--rows`` names pruners of the registry and rows of ROWS; ``"NAME +merge"`` is the pruner with all of its dropped
tokens merged as ContextGuard merges them, and ``--merged`` adds that of every row that does not merge by itself.
``--ablated-at`` adds ContextGuard without its parts, and ``--shuffled`` names the control predictor.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm import tqdm

from cg_cli.errors import UsageError
from cg_cli.nano.judge import ALL_PARTS, DOWNSAMPLE, FEWER_FRAMES, Condition, by_clip, judge_clips
from cg_cli.nano.tables import FULL, Hits, Line, accuracy_table, category_table, difference_table, name_at
from cg_cli.nano.world import write_world
from cg_cli.nano.worlds import THINGS, WORLDS, World
from cg_cli.profiling.plots import accuracy_plot
from cg_cli.pruning import registry
from cg_cli.settings.table import NO_PRUNER

KEEPS = (0.65, 0.45, 0.35, 0.25, 0.15, 0.1)
OURS = "contextguard"  # what the others are compared with
DEFAULT_ROWS = (OURS, "contextguard-online", "random", "uniform", "evs")
MERGE = " +merge"  # after the name of a row
MERGING = {OURS, "contextguard-online", "visionzip", "tome"}  # merge what they drop by themselves
ABLATIONS: dict[str, dict[str, Any]] = {
    "without recoverability": {"recover": False},
    "without details": {"detail": False},
    "without novelty": {"novelty": False},
    "without merging": {"merge": False},
    "without confidence": {"confident": False},
    "raw audio": {"prediction": "audio"},
    "no predictor": {"prediction": "none"},
    "no predictor, ridge in the clip": {"prediction": "ridge"},
}
# Asked with the predictor trained on shuffled sound.
SHUFFLED, SHUFFLED_ALONE = "shuffled-audio predictor", "without novelty, shuffled-audio predictor"
CONTROLS: dict[str, dict[str, Any]] = {SHUFFLED: {}, SHUFFLED_ALONE: {"novelty": False}}
# What sound adds: beside the novelty score, and without it.
SOUND = {"trained": (OURS, SHUFFLED), "trained, without novelty": ("without novelty", SHUFFLED_ALONE)}


@dataclass(frozen=True)
class Row:
    """A row of the tables.

    Attributes:
        pruner: its registry name.
        draws: options of each condition that the row is the mean of.
        parts: how the clip is made smaller before the encoders.
        merged: what the pruner drops merges into what it keeps.
    """

    pruner: str
    draws: tuple[Mapping[str, Any], ...] = ({},)
    parts: str = ALL_PARTS
    merged: bool = False

    def conditions(self, name: str, keep: float) -> list[Condition]:
        """The conditions of the row ``name`` at ``keep``, one a draw."""
        out = []
        for options in self.draws:
            draw = "".join(f", {key} {value}" for key, value in options.items()) if len(self.draws) > 1 else ""
            condition = name_at(name + draw, keep)
            out.append(Condition(condition, self.pruner, keep, options, parts=self.parts, merged=self.merged))
        return out


# Rows that are not a pruner of the registry with its defaults.
ROWS = {
    "random": Row("random", draws=({"seed": 0}, {"seed": 1}, {"seed": 2})),
    "divprune, windows of 8": Row("divprune", draws=({"window": 8},)),
    "omnizip, own split": Row("omnizip", draws=({"split": "own"},)),
    DOWNSAMPLE: Row(NO_PRUNER, parts=DOWNSAMPLE),
    FEWER_FRAMES: Row(NO_PRUNER, parts=FEWER_FRAMES),
}


def row_of(name: str) -> Row:
    """The row called ``name``. UsageError for an unknown pruner, or for one that cannot merge."""
    base = name.removesuffix(MERGE)
    row = ROWS.get(base) or Row(base)
    registry.find(row.pruner)
    if base == name:
        return row
    if not can_merge(base):
        raise UsageError(f"{name}: only what a pruner drops before the language model can merge")
    return Row(row.pruner, row.draws, merged=True)


def can_merge(name: str) -> bool:
    """Whether there is a row ``name`` +merge: not of what drops no tokens of a stream, or drops them between layers."""
    row = row_of(name)
    return row.pruner != NO_PRUNER and registry.find(row.pruner).load().stage == "input"


def with_merging(names: Iterable[str]) -> list[str]:
    """``names``, each followed by the same with merging, where that is another row."""
    out = []
    for name in names:
        out.append(name)
        if row_of(name).pruner not in MERGING and can_merge(name):
            out.append(name + MERGE)
    return out


def conditions(
    names: Sequence[str], keeps: Sequence[float], ablated_at: Sequence[float] = (), shuffled: str | None = None
) -> list[Condition]:
    """Every condition of the sweep; names end in the ratio."""
    out = [Condition(FULL)]
    for keep in keeps:
        out += [condition for name in names for condition in row_of(name).conditions(name, keep)]
    for keep in ablated_at:
        out += [Condition(name_at(name, keep), OURS, keep, options) for name, options in ABLATIONS.items()]
        if shuffled:
            out += [Condition(name_at(name, keep), OURS, keep, options, shuffled) for name, options in CONTROLS.items()]
    return out


def run(
    model: str,
    seed: int,
    count: int,
    longest: int | None,
    columns: Sequence[Condition],
    out: Path,
    workers: int | None = None,
    joined: int = 1,
    world: World = THINGS,
) -> None:
    """Answer what ``out``/answers.jsonl does not have yet about ``count`` clips of ``world`` with ``seed``, or about
    films of ``joined`` clips each."""
    folder = out / f"seed-{seed}"
    labelled = folder / "labelled.jsonl"
    if not labelled.exists() or len(by_clip(labelled)) < count:
        write_world(seed, count, folder, longest, joined, world)  # those that are there already come out as they were
    clips = dict(list(by_clip(labelled).items())[:count])
    done: dict[str, set[str]] = defaultdict(set)
    for line in read(out):
        if line["seed"] == seed:
            done[line["video"]].add(line["condition"])
    wanted = {column.name for column in columns}
    left = {video: rows for video, rows in clips.items() if not wanted <= done[video]}
    if not left:
        return
    with (out / "answers.jsonl").open("a", encoding="utf-8") as file:
        results = judge_clips(model, folder, left, columns, done, workers)
        for video, answers in tqdm(
            results, total=len(left), unit="clip", desc=f"seed {seed}", file=sys.stderr, disable=None
        ):
            line = {"seed": seed, "video": video, "category": [row["category"] for row in clips[video]]}
            lines = [
                line | {"condition": name, "kept": outcome.kept, "right": outcome.right}
                for name, outcome in answers.items()
            ]
            # One write, so that a kill tears at most the last line.
            file.write("".join(json.dumps(line) + "\n" for line in lines))
            file.flush()


def read(out: Path) -> list[Line]:
    """The lines of ``out``/answers.jsonl; one that a kill tore is left out."""
    file = out / "answers.jsonl"
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def hits_of(lines: Iterable[Line], names: Sequence[str], columns: Sequence[Condition], keeps: Sequence[float]) -> Hits:
    """The answers under ``columns``, with the mean of a row's draws under the row's own name."""
    wanted = {column.name for column in columns}
    hits = Hits(line for line in lines if line["condition"] in wanted)
    for name in names:
        for keep in keeps:
            hits.average(name_at(name, keep), [each.name for each in row_of(name).conditions(name, keep)])
    return hits


def between_layers(names: Iterable[str]) -> str:
    """A caption's caveat about those of ``names`` that prune between layers."""
    few = [name for name in names if registry.find(row_of(name).pruner).load().stage == "decoder"]
    return f"Between layers, made for models of 28 or more, of which nano has five: {', '.join(few)}." if few else ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.nano.sweep", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="of the worlds")
    parser.add_argument("--count", type=int, default=500, help="clips of each")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--rows", nargs="+", default=DEFAULT_ROWS, help="pruners, and rows of ROWS")
    parser.add_argument("--merged", action="store_true", help="each of the rows with merging, too")
    parser.add_argument("--shuffled", help="predictor trained on shuffled sound (cg train-predictor --shuffle-sound)")
    parser.add_argument("--keeps", type=float, nargs="+", default=KEEPS)
    parser.add_argument(
        "--ablated-at", type=float, nargs="*", default=(), help="of the keeps: ContextGuard's ablations"
    )
    parser.add_argument("--world", choices=WORLDS, default=THINGS.name)
    parser.add_argument("--longest", type=int, help="seconds of the longest clip")
    parser.add_argument("--workers", type=int, help="processes (default: one a core; one with a GPU)")
    options = parser.parse_args()
    world = WORLDS[options.world]
    out = options.out if world is THINGS else options.out / world.name  # seeds of two worlds are not the same clips
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name in options.rows if name != NO_PRUNER]  # everything kept is always there
    names = with_merging(names) if options.merged else names
    columns = conditions(names, options.keeps, options.ablated_at, options.shuffled)
    for seed in options.seeds:
        run(options.model, seed, options.count, options.longest, columns, out, options.workers, world=world)
    lines = (line for line in read(out) if line["seed"] in options.seeds)
    hits = hits_of(lines, names, columns, options.keeps)
    show(hits, names, options.keeps, options.ablated_at)
    curves = {
        name: [(1.0, hits.accuracy(FULL)), *((keep, hits.accuracy(name_at(name, keep))) for keep in options.keeps)]
        for name in names
    }
    plot = out / "accuracy.svg"
    title = f"{options.model}, {len(hits.clips)} held-out clips, {len(hits.clip)} questions"
    plot.write_text(accuracy_plot(curves, title), encoding="utf-8")
    print(plot)


def show(hits: Hits, names: Sequence[str], keeps: Sequence[float], ablated_at: Sequence[float]) -> None:
    """Print the tables."""
    console, caveat = Console(width=160), between_layers(names)
    console.print(accuracy_table(hits, names, keeps, caveat))
    if OURS in names:
        rivals = {name: (name, OURS) for name in (FULL, *names) if name != OURS}
        console.print(category_table(hits, OURS, keeps))
        console.print(difference_table(hits, rivals, keeps, f"against {OURS}", caveat))
    merged = {name: (name, name.removesuffix(MERGE)) for name in names if name.endswith(MERGE)}
    if merged:
        console.print(difference_table(hits, merged, keeps, "against the same as published", caveat))
    if ablated_at:
        parts = {name: (name, OURS) for name in (*ABLATIONS, *CONTROLS)}
        console.print(difference_table(hits, parts, ablated_at, f"against {OURS}"))
        console.print(difference_table(hits, SOUND, ablated_at, "against shuffled sound"))


if __name__ == "__main__":
    main()
