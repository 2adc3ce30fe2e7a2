"""A summary as files: JSON, CSV, plots, and one HTML page that needs nothing else."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cg_cli.errors import CgError, UsageError
from cg_cli.profiling.plots import lines
from cg_cli.profiling.readings import OWN
from cg_cli.profiling.summary import QUESTIONS, SHARES
from cg_cli.settings.table import NO_PRUNER
from cg_cli.util.atomic import write_atomic
from cg_cli.util.bounded import read_json
from cg_cli.util.outputs import check_output

SCHEMA = "cg.profile/1"
MEASUREMENTS = "measurements.jsonl"
PAGES = "pages"  # folder in the folder of a profile
PLOTS = ("accuracy", "prefill", "pareto", "flops")
NAMES = ("profile.json", "profile.csv", *(f"{name}.svg" for name in PLOTS), "report.html", MEASUREMENTS)


def check_folder(out: Path, inputs: Iterable[str | Path] = ()) -> None:
    """UsageError, before anything slow begins, where the files of a profile would be written over an input, or over
    files that no profile has written."""
    inputs = list(inputs)
    if not out.is_dir():
        if out.exists():
            raise UsageError(f"-o {out} is a file: name a folder")
        return
    ours = _has_profile(out)
    for name in NAMES:
        check_output("-o", out / name, inputs=inputs, is_ours=lambda path: ours)
    if (out / PAGES).is_symlink():
        raise UsageError(f"-o {out}: {PAGES} in it is a link to elsewhere: name another folder")


def _has_profile(folder: Path) -> bool:
    """Whether a profile has written into a folder before."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if read_json(folder / "profile.json").get("schema") == SCHEMA:
            return True
    measurements = folder / MEASUREMENTS
    if not measurements.is_file():  # a FIFO would be waited for
        return False
    with contextlib.suppress(OSError, ValueError), measurements.open("rb") as file:
        first = file.readline()
        return not first or {"recipe", "clip", "cells"} <= set(json.loads(first))
    return False


def write(summary: Mapping[str, Any], out: Path) -> list[Path]:
    """Write everything to the folder ``out``; returns the files. CgError if it cannot be written."""
    svgs = plots(summary)
    texts = {"profile.json": json.dumps(summary, indent=1) + "\n", "profile.csv": table(summary)}
    texts |= {f"{name}.svg": svg for name, svg in svgs.items()} | {"report.html": page(summary, svgs)}
    for name, text in texts.items():
        try:
            write_atomic(out / name, text)
        except OSError as error:
            raise CgError(f"cannot write {out / name}: {error.strerror}") from error
    return [out / name for name in texts]


def row(cell: Mapping[str, Any]) -> dict[str, Any]:
    """One cell as flat figures; those that were not measured are None."""
    tokens, kept, times = cell["tokens"], cell.get("kept", {}), cell.get("seconds", {})
    spread = {name: cell.get(f"{name}_speedup") or {} for name in ("prefill", "ttft", "end_to_end", "questions")}
    accuracy, difference = cell.get("accuracy", {}), cell.get("against_whole", {})
    low, high = accuracy.get("interval", (None, None))
    worst, best = difference.get("interval", (None, None))
    uncut = cell.get("uncut", {})
    return {
        "pruner": cell["pruner"],
        "keep": cell["keep"],
        "reading": cell.get("reading", OWN),
        "video_tokens": tokens.get("video"),
        "video_kept": tokens.get("video_kept"),
        "audio_tokens": tokens.get("audio"),
        "audio_kept": tokens.get("audio_kept"),
        "kept_input": kept.get("input"),
        "kept_layer_average": kept.get("layer_average"),
        "kept_last_layer": kept.get("last_layer"),
        "kept_prefill_flops": kept.get("prefill_flops"),
        "kept_input_of_baseline": kept.get("input_of_baseline"),
        **_flops(cell),
        **{f"uncut_{name}": value for name, value in _flops(uncut).items()},
        "uncut_promised_end_to_end_speedup": uncut.get("promised_end_to_end"),
        "promised_speedup": cell.get("promised"),
        "promised_end_to_end_speedup": cell.get("promised_end_to_end"),
        "prefill_speedup": spread["prefill"].get("median"),
        "prefill_speedup_min": spread["prefill"].get("min"),
        "prefill_speedup_max": spread["prefill"].get("max"),
        "efficiency": cell.get("efficiency"),
        "selection_share": cell.get("selection_share"),
        "ttft_speedup": spread["ttft"].get("median"),
        "end_to_end_speedup": spread["end_to_end"].get("median"),
        f"speedup_{QUESTIONS}_questions": spread["questions"].get("median"),
        "media_s": cell.get("media_s"),
        "encode_s": cell.get("encode_s"),
        "select_s": times.get("select_s"),
        "prefill_s": times.get("prefill_s"),
        "first_token_s": times.get("first_token_s"),
        "decode_s": times.get("decode_s"),
        "decode_tokens_per_s": cell.get("decode_tokens_per_s"),
        "kv_bytes": cell.get("kv_bytes"),
        "peak_bytes": cell.get("peak_bytes"),
        **{f"share_{name}": cell.get("shares", {}).get(name) for name in SHARES},
        "accuracy": accuracy.get("value"),
        "accuracy_low": low,
        "accuracy_high": high,
        "against_whole": difference.get("value"),
        "against_whole_low": worst,
        "against_whole_high": best,
        "questions": accuracy.get("questions"),
        "unreadable": accuracy.get("unreadable"),
    }


def _flops(figures: Mapping[str, Any]) -> dict[str, Any]:
    """FLOPs of the towers, the prefill and all up to there, and each as a share of the baseline's."""
    flops, share = figures.get("flops") or {}, figures.get("flops_share", {})
    towers = flops["vision"] + flops["audio"] if flops else None
    total = towers + flops["predictor"] + flops["prefill"] if flops else None
    sums = {"towers": towers, "prefill": flops.get("prefill"), "total": total}
    return {f"{name}_flops": value for name, value in sums.items()} | {
        f"{name}_flops_share": share.get(name) for name in sums
    }


def table(summary: Mapping[str, Any]) -> str:
    """CSV, a line a cell."""
    rows = [row(cell) for cell in summary["cells"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def plots(summary: Mapping[str, Any]) -> dict[str, str]:
    """SVG texts by name: what there is to draw."""
    rows = [row(cell) | {"share": _share(cell, summary["cells"][0])} for cell in summary["cells"]]
    subject = f"{summary['model']['id']}, {summary['compared_clips']} clips, {summary['device_name']}"
    right, kept, fast = "right answers, %", "share of audio and video tokens kept", "times as fast as the whole clip"
    read_otherwise = any(r["reading"] != OWN for r in rows)
    accuracy = "accuracy", ("accuracy_low", "accuracy_high"), 100
    out = {}
    if any(r["accuracy"] is not None for r in rows):
        points = _curves(rows, "share", *accuracy)
        out["accuracy"] = lines(points, f"Accuracy: {subject}", kept, right, _tenths(points) if read_otherwise else ())
        if read_otherwise:
            points = _curves(rows, "total_flops_share", *accuracy)
            flops = "FLOPs of towers, selection and prefill, as a share of the whole clip's"
            out["flops"] = lines(points, f"Accuracy against FLOPs: {subject}", flops, right, _tenths(points))
    if any(r["prefill_speedup"] for r in rows):
        points = _curves(rows, "share", "prefill_speedup", ("prefill_speedup_min", "prefill_speedup_max"))
        ticks = _tenths(points) if read_otherwise else ()
        out["prefill"] = lines(points, f"Selection and prefill: {subject}", kept, fast, ticks)
        if "accuracy" in out:
            points = _curves(rows, "prefill_speedup", *accuracy)
            whole_numbers = range(1, 1 + int(max(r["prefill_speedup"] for r in rows if r["prefill_speedup"])))
            speed = f"selection and prefill, {fast}"
            out["pareto"] = lines(points, f"Accuracy against speed: {subject}", speed, right, whole_numbers)
    return {name: out[name] for name in PLOTS if name in out}


def _curves(
    rows: Sequence[Mapping[str, Any]], x: str, y: str, ends: tuple[str, str], scale: float = 1
) -> dict[str, list[tuple[float, ...]]]:
    """A curve for each pruner and reading, from the whole clip read so on."""
    point = lambda r: (r[x], *(scale * r[name] for name in (y, *ends)))
    drawn = [r for r in rows if r[y] is not None and r[x] is not None]
    whole = {r["reading"]: point(r) for r in drawn if r["pruner"] == NO_PRUNER}
    out: dict[str, list[tuple[float, ...]]] = {}
    for r in drawn:
        if r["pruner"] != NO_PRUNER:
            start = [whole[r["reading"]]] if r["reading"] in whole else []
            out.setdefault(f"{r['pruner']} {r['reading']}".strip(), start).append(point(r))
    return out or {NO_PRUNER: list(whole.values())}


def _share(cell: Mapping[str, Any], baseline: Mapping[str, Any]) -> float:
    """The share of the baseline's tokens that a cell is to keep."""
    media = lambda tokens: tokens.get("video", 0) + tokens.get("audio", 0)
    return cell["keep"] * (media(cell["tokens"]) / media(baseline["tokens"]) if media(baseline["tokens"]) else 1)


def _tenths(curves: Mapping[str, Sequence[tuple[float, ...]]]) -> list[float]:
    """Round shares between the least and the greatest x."""
    xs = [point[0] for curve in curves.values() for point in curve]
    return [tenth / 10 for tenth in range(11) if min(xs) <= tenth / 10 <= max(xs)]


def page(summary: Mapping[str, Any], svgs: Mapping[str, str]) -> str:
    """One HTML page with the plots inside."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"figure": _figure, "file_name": lambda path: Path(path).name}
    cells = summary["cells"]
    return environment.get_template("report.html.jinja").render(
        model=summary["model"]["id"],
        facts=_facts(summary),
        plots=list(svgs.values()),
        questions=QUESTIONS,
        rows=[row(cell) for cell in cells],
        cells=cells,
        categories=list(dict.fromkeys(name for cell in cells for name in cell.get("by_category", {}))),
        pages=summary.get("pages", ()),
    )


def _facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """What was measured on what, in words, by name."""
    model, roofline, benchmark = summary["model"], summary["roofline"], summary.get("benchmark")
    layers = f", {model['layers']} layers" if model["layers"] else ""
    threads = f", {summary['threads']} cores" if summary["threads"] else ""
    timed = max((cell.get("timed_clips", 0) for cell in summary["cells"]), default=0)
    pairs = lambda values: ", ".join(f"{name} {value}" for name, value in values.items())
    return {
        "model": f"{model['id']} ({model['revision']}), {model['weights']} weights{layers}",
        "device": f"{summary['device_name']}, {summary['dtype']}{threads}",
        "clips": f"{summary['compared_clips']} (the first {timed} timed); {summary['failed']} could not be read",
        "sampling": pairs(summary["sampling"]),
        "benchmark": "{name} ({annotations}), prompt: {prompt}".format_map(benchmark) if benchmark else "none",
        "at best": f"{roofline['flops_per_s']:.3g} FLOP/s in a matrix product, {roofline['bytes_per_s']:.3g} B/s in a "
        "copy, measured in this run",
        "versions": pairs(summary["versions"]),
    }


def _figure(value: Any) -> str:
    """The text of a table's cell."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
