"""From measurements to figures: sums over clips, ratios to the baseline in the same round, with their spread. The
baseline is the whole clip, read as the settings say."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cg_cli.evals.stats import interval
from cg_cli.profiling.measure import BASELINE, Cell

Lines = list[dict[str, Any]]  # measurements of one clip
QUESTIONS = 5  # on one clip: a pruner that needs the question prefills for each of them, the others once
SHARES = ("files", "towers", "selection", "prefill", "decoding")  # where the time to the end of an answer goes
STAGES = ("select_s", "prefill_s", "first_token_s", "decode_s")


def summarise(cells: Sequence[Cell], clips: Sequence[Lines]) -> dict[str, Any]:
    """``cells``: the figures of each, in order. Only clips that have a measurement of every cell count."""
    complete = [lines for lines in clips if all(any(cell.name in line["cells"] for line in lines) for cell in cells)]
    return {"compared_clips": len(complete), "cells": [_cell(cell, complete) for cell in cells]}


def _cell(cell: Cell, clips: Sequence[Lines]) -> dict[str, Any]:
    own = [_line(lines, cell) for lines in clips]
    tokens, base = (_sums(own, of, "tokens") for of in (cell, BASELINE))
    flops = _sums(own, cell, "flops")
    out: dict[str, Any] = {
        "pruner": cell.method,
        "keep": cell.keep,
        "reading": cell.reading,
        "tokens": tokens,
        "flops": flops,
    }
    media = tokens.get("video", 0) + tokens.get("audio", 0)
    if media:
        # Papers count in any of these ways; for a method before the language model the first three are the same.
        out["kept"] = {
            "input": tokens["entered"] / media,
            "layer_average": tokens["layer_mean"] / media,
            "last_layer": tokens["last_layer"] / media,
            "prefill_flops": flops["prefill"] / flops["prefill_full"],
            "input_of_baseline": tokens["entered"] / (base["video"] + base["audio"]),
        }
        out |= _promise(flops, _sums(own, BASELINE, "flops"))
        if uncut := _sums(own, cell, "uncut_flops"):
            out["uncut"] = {"flops": uncut, **_promise(uncut, _sums(own, BASELINE, "uncut_flops"))}
    return out | _times(cell, own, out.get("promised")) | _accuracy(cell, clips)


def _sums(lines: Lines, cell: Cell, kind: str) -> dict[str, float]:
    """The counts ``kind`` of a cell over all clips, by name; none where it has no such counts."""
    counts = [line["cells"][cell.name][kind] or {} for line in lines]
    return {name: sum(each[name] for each in counts) for name in counts[0]} if counts else {}


def _promise(flops: Mapping[str, float], base: Mapping[str, float]) -> dict[str, Any]:
    """What FLOPs promise: their shares of the baseline's, and the speed-ups that they come to."""
    towers, base_towers = (f["vision"] + f["audio"] for f in (flops, base))
    prefill = flops["prefill_baseline"]  # with the question where the cell's own has it
    total, base_total = towers + flops["predictor"] + flops["prefill"], base_towers + prefill
    return {
        "flops_share": {
            "towers": towers / base_towers,
            "prefill": flops["prefill"] / prefill,
            "total": total / base_total,
        },
        "promised": prefill / (flops["prefill"] + flops["predictor"]),
        "promised_end_to_end": base_total / total,
    }


def _line(lines: Lines, cell: Cell) -> dict[str, Any]:
    """The last line with ``cell``, of those with the most timed rounds."""
    candidates = [line for line in lines if cell.name in line["cells"]]
    return max(enumerate(candidates), key=lambda pair: (len(pair[1]["cells"][cell.name]["times"]), pair[0]))[1]


def _times(cell: Cell, lines: Lines, promised: float | None) -> dict[str, Any]:
    """Medians over rounds of the sums over timed clips; ratios are to the baseline in the same round."""
    timed = [line for line in lines if line["cells"][cell.name]["times"]]
    rounds = min((len(line["cells"][cell.name]["times"]) for line in timed), default=0)
    if not rounds:
        return {}
    totals = [_sum(timed, cell, turn) for turn in range(rounds)]
    base = [_sum(timed, BASELINE, turn) for turn in range(rounds)]
    median = {stage: statistics.median(t[stage] for t in totals) for stage in STAGES}
    steps = sum(t["decode_steps"] for t in totals)
    prefill = [b["prefill_s"] / (t["prefill_s"] + t["select_s"]) for b, t in zip(base, totals)]
    ttft = [
        (b["prefill_s"] + b["first_token_s"]) / (t["select_s"] + t["prefill_s"] + t["first_token_s"])
        for b, t in zip(base, totals)
    ]
    # From the file to the end of an answer: decoding of the file and the encoders, too, which no pruner shortens.
    media_s, encode_s = _before(timed, cell)
    base_before, before = sum(_before(timed, BASELINE)), media_s + encode_s
    stages = lambda total: sum(total[stage] for stage in STAGES)
    end_to_end = [(base_before + stages(b)) / (before + stages(t)) for b, t in zip(base, totals)]
    prefills = QUESTIONS if any(line["cells"][cell.name]["reads_question"] for line in timed) else 1
    several = [
        (b["prefill_s"] + QUESTIONS * b["first_token_s"])
        / (t["select_s"] + prefills * t["prefill_s"] + QUESTIONS * t["first_token_s"])
        for b, t in zip(base, totals)
    ]
    all_times = [time for line in timed for time in line["cells"][cell.name]["times"]]
    peaks = [time["peak_bytes"] for time in all_times if time["peak_bytes"] is not None]
    return {
        "timed_clips": len(timed),
        "seconds": median,  # of all timed clips together
        "media_s": media_s if any(line["media_s"][cell.reading] is not None for line in timed) else None,
        "encode_s": encode_s,
        "shares": _shares(media_s, encode_s, median),
        "selection_share": statistics.median(t["select_s"] / b["prefill_s"] for t, b in zip(totals, base)),
        "prefill_speedup": _spread(prefill),
        "efficiency": statistics.median(prefill) / promised if promised else None,
        "ttft_speedup": _spread(ttft),
        "end_to_end_speedup": _spread(end_to_end),
        "questions_speedup": _spread(several),
        "decode_tokens_per_s": steps / sum(t["decode_s"] for t in totals) if steps else None,
        "kv_bytes": max(time["kv_bytes"] for time in all_times),
        "peak_bytes": max(peaks) if peaks else None,
    }


def _before(timed: Lines, cell: Cell) -> tuple[float, float]:
    """Seconds of decoding the files and of the towers, as the cell reads them."""
    media_s = sum(line["media_s"][cell.reading] or 0.0 for line in timed)
    return media_s, sum(statistics.median(line["encode_s"][cell.reading]) for line in timed)


def _shares(media_s: float, encode_s: float, seconds: Mapping[str, float]) -> dict[str, float]:
    """By names of SHARES."""
    answer_s = seconds["first_token_s"] + seconds["decode_s"]
    parts = (media_s, encode_s, seconds["select_s"], seconds["prefill_s"], answer_s)
    return {name: part / sum(parts) for name, part in zip(SHARES, parts)}


def _sum(timed: Lines, cell: Cell, turn: int) -> dict[str, float]:
    rounds = [line["cells"][cell.name]["times"][turn] for line in timed]
    return {name: sum(r[name] for r in rounds) for name in (*STAGES, "decode_steps")}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _accuracy(cell: Cell, clips: Sequence[Lines]) -> dict[str, Any]:
    """Right answers with a 95 % interval, against the baseline question by question, and by category; and how many
    give no choice."""
    right: list[bool] = []
    unreadable: list[bool] = []
    baseline: list[bool] = []
    category: list[str] = []
    clip: list[int] = []
    for number, lines in enumerate(clips):
        line = next((x for x in reversed(lines) if "right" in x["cells"].get(cell.name, {})), None)
        if line is None:
            continue
        right += line["cells"][cell.name]["right"]
        unreadable += line["cells"][cell.name]["unreadable"]
        baseline += line["cells"][BASELINE.name]["right"]
        category += line["category"]
        clip += [number] * len(line["category"])
    if not right:
        return {}
    value, base, of = np.array(right, float), np.array(baseline, float), np.unique(clip, return_inverse=True)[1]
    names, unread = np.array(category), np.array(unreadable)
    return {
        "accuracy": {
            "value": float(value.mean()),
            "interval": interval(value, of),
            "questions": len(right),
            "unreadable": int(unread.sum()),
        },
        "against_whole": {"value": float((value - base).mean()), "interval": interval(value - base, of)},
        "by_category": {
            name: {
                "value": float(value[names == name].mean()),
                "questions": int((names == name).sum()),
                "unreadable": int(unread[names == name].sum()),
            }
            for name in dict.fromkeys(category)
            if name
        },
    }
