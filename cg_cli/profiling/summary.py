"""From measurements to figures: sums over clips, set against the whole clip in the same round, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from cg_cli.evals.stats import interval
from cg_cli.profiling.measure import BASELINE, Cell

Lines = list[dict[str, Any]]  # of one clip
QUESTIONS = 5  # on one clip: a pruner that reads the question pays for as many prefills, the others for one
STAGES = ("select_s", "prefill_s", "first_token_s", "decode_s")


def summarise(cells: Sequence[Cell], clips: Sequence[Lines]) -> dict[str, Any]:
    """``cells``: the figures of each, in order. Only clips that have a measurement of every cell count."""
    whole = [lines for lines in clips if all(any(cell.name in line["cells"] for line in lines) for cell in cells)]
    return {"compared_clips": len(whole), "cells": [_cell(cell, whole) for cell in cells]}


def _cell(cell: Cell, clips: Sequence[Lines]) -> dict[str, Any]:
    own = [_line(lines, cell) for lines in clips]
    found = [line["cells"][cell.name] for line in own]
    tokens = {name: sum(f["tokens"][name] for f in found) for name in found[0]["tokens"]} if found else {}
    flops = {name: sum(f["flops"][name] for f in found) for name in found[0]["flops"]} if found else {}
    media = tokens.get("video", 0) + tokens.get("audio", 0)
    out: dict[str, Any] = {"pruner": cell.pruner, "keep": cell.keep, "tokens": tokens, "flops": flops}
    if media:
        # Papers count in any of these ways; a method before the language model keeps one number in all of its layers.
        share = flops["prefill"] / flops["prefill_full"]
        out["kept"] = {
            "input": tokens["entered"] / media,
            "layer_average": tokens["layer_mean"] / media,
            "last_layer": tokens["last_layer"] / media,
            "prefill_flops": share,
        }
        out["promised"] = flops["prefill_full"] / (flops["prefill"] + flops["predictor"])
    return out | _times(cell, own, out.get("promised")) | _accuracy(cell, clips)


def _line(lines: Lines, cell: Cell) -> dict[str, Any]:
    """The last line with ``cell``, timed ones first."""
    having = [line for line in lines if cell.name in line["cells"]]
    return max(enumerate(having), key=lambda at: (len(at[1]["cells"][cell.name]["times"]), at[0]))[1]


def _times(cell: Cell, lines: Lines, promised: float | None) -> dict[str, Any]:
    """Medians over rounds of the sums over timed clips; ratios are of one round against the whole clip in that
    round."""
    timed = [line for line in lines if line["cells"][cell.name]["times"]]
    rounds = min((len(line["cells"][cell.name]["times"]) for line in timed), default=0)
    if not rounds:
        return {}
    totals = [_sum(timed, cell, turn) for turn in range(rounds)]
    base = [_sum(timed, BASELINE, turn) for turn in range(rounds)]
    median = {stage: statistics.median(t[stage] for t in totals) for stage in STAGES}
    steps = sum(t["decode_steps"] for t in totals)
    speed = [b["prefill_s"] / (t["prefill_s"] + t["select_s"]) for b, t in zip(base, totals)]
    first = [
        (b["prefill_s"] + b["first_token_s"]) / (t["select_s"] + t["prefill_s"] + t["first_token_s"])
        for b, t in zip(base, totals)
    ]
    # From the file to the first token: what no pruner of tokens makes shorter is in it, too.
    media_s = sum(line["media_s"] or 0.0 for line in timed)
    encode_s = sum(statistics.median(line["encode_s"]) for line in timed)
    before = media_s + encode_s
    whole = [
        (before + b["prefill_s"] + b["first_token_s"]) / (before + t["select_s"] + t["prefill_s"] + t["first_token_s"])
        for b, t in zip(base, totals)
    ]
    prefills = QUESTIONS if any(line["cells"][cell.name]["reads_question"] for line in timed) else 1
    several = [
        (b["prefill_s"] + QUESTIONS * b["first_token_s"])
        / (t["select_s"] + prefills * t["prefill_s"] + QUESTIONS * t["first_token_s"])
        for b, t in zip(base, totals)
    ]
    every = [time for line in timed for time in line["cells"][cell.name]["times"]]
    peaks = [time["peak_bytes"] for time in every if time["peak_bytes"] is not None]
    return {
        "timed_clips": len(timed),
        "seconds": median,  # of all timed clips together
        "media_s": media_s if any(line["media_s"] is not None for line in timed) else None,
        "encode_s": encode_s,
        "selection_share": statistics.median(t["select_s"] / b["prefill_s"] for t, b in zip(totals, base)),
        "prefill_speedup": _spread(speed),
        "efficiency": statistics.median(speed) / promised if promised else None,
        "ttft_speedup": _spread(first),
        "end_to_end_speedup": _spread(whole),
        "questions_speedup": _spread(several),
        "decode_tokens_per_s": steps / sum(t["decode_s"] for t in totals) if steps else None,
        "kv_bytes": max(time["kv_bytes"] for time in every),
        "peak_bytes": max(peaks) if peaks else None,
    }


def _sum(timed: Lines, cell: Cell, turn: int) -> dict[str, float]:
    rounds = [line["cells"][cell.name]["times"][turn] for line in timed]
    return {name: sum(r[name] for r in rounds) for name in (*STAGES, "decode_steps")}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _accuracy(cell: Cell, clips: Sequence[Lines]) -> dict[str, Any]:
    """Right answers with a 95 % interval, against the whole clip question by question, and by category."""
    hits, whole, category, clip = [], [], [], []
    for number, lines in enumerate(clips):
        line = next((x for x in reversed(lines) if "right" in x["cells"].get(cell.name, {})), None)
        if line is None:
            continue
        hits += line["cells"][cell.name]["right"]
        whole += line["cells"][BASELINE.name]["right"]
        category += line["category"]
        clip += [number] * len(line["category"])
    if not hits:
        return {}
    value, base, of = np.array(hits, float), np.array(whole, float), np.unique(clip, return_inverse=True)[1]
    names = np.array(category)
    return {
        "accuracy": {"value": float(value.mean()), "interval": interval(value, of), "questions": len(hits)},
        "against_whole": {"value": float((value - base).mean()), "interval": interval(value - base, of)},
        "by_category": {
            name: {"value": float(value[names == name].mean()), "questions": int((names == name).sum())}
            for name in dict.fromkeys(category)
            if name
        },
    }
