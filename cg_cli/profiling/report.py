"""A summary as files: JSON, CSV, plots, and one HTML page that needs nothing else."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cg_cli.errors import CgError
from cg_cli.profiling.plots import lines
from cg_cli.profiling.summary import QUESTIONS
from cg_cli.settings.resolve import NONE

STYLE = """body{font:15px/1.5 sans-serif;margin:2em auto;max-width:1100px;padding:0 1em;color:#222}table{border-collapse:collapse;font-size:13px}
td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}td:first-child,th:first-child{text-align:left}
svg{max-width:760px;width:100%;display:block;margin:1em 0}.scroll{overflow-x:auto}dt{font-weight:bold;float:left;width:10em}dd{margin-left:11em}"""


def write(summary: Mapping[str, Any], out: Path) -> list[Path]:
    """Write everything to the folder ``out``; returns the files. CgError if it cannot be written."""
    drawn = plots(summary)
    texts = {"profile.json": json.dumps(summary, indent=1) + "\n", "profile.csv": table(summary)}
    texts |= {f"{name}.svg": svg for name, svg in drawn.items()} | {"report.html": page(summary, drawn)}
    try:
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CgError(f"cannot write {error.filename}: {error.strerror}") from error
    return [out / name for name in texts]


def row(cell: Mapping[str, Any]) -> dict[str, Any]:
    """One cell as flat figures; those that were not measured are None."""
    tokens, kept, times = cell["tokens"], cell.get("kept", {}), cell.get("seconds", {})
    spread = {name: cell.get(f"{name}_speedup") or {} for name in ("prefill", "ttft", "end_to_end", "questions")}
    accuracy, against = cell.get("accuracy", {}), cell.get("against_whole", {})
    low, high = accuracy.get("interval", (None, None))
    worse, better = against.get("interval", (None, None))
    return {
        "pruner": cell["pruner"], "keep": cell["keep"],
        "video_tokens": tokens.get("video"), "video_kept": tokens.get("video_kept"),
        "audio_tokens": tokens.get("audio"), "audio_kept": tokens.get("audio_kept"),
        "kept_input": kept.get("input"), "kept_layer_average": kept.get("layer_average"), "kept_last_layer": kept.get("last_layer"),
        "kept_prefill_flops": kept.get("prefill_flops"),
        "promised_speedup": cell.get("promised"), "prefill_speedup": spread["prefill"].get("median"),
        "prefill_speedup_min": spread["prefill"].get("min"), "prefill_speedup_max": spread["prefill"].get("max"),
        "efficiency": cell.get("efficiency"), "selection_share": cell.get("selection_share"), "ttft_speedup": spread["ttft"].get("median"),
        "end_to_end_speedup": spread["end_to_end"].get("median"), f"speedup_{QUESTIONS}_questions": spread["questions"].get("median"),
        "media_s": cell.get("media_s"), "encode_s": cell.get("encode_s"),
        "select_s": times.get("select_s"), "prefill_s": times.get("prefill_s"), "first_token_s": times.get("first_token_s"),
        "decode_s": times.get("decode_s"), "decode_tokens_per_s": cell.get("decode_tokens_per_s"),
        "kv_bytes": cell.get("kv_bytes"), "peak_bytes": cell.get("peak_bytes"),
        "accuracy": accuracy.get("value"), "accuracy_low": low, "accuracy_high": high,
        "against_whole": against.get("value"), "against_whole_low": worse, "against_whole_high": better, "questions": accuracy.get("questions"),
    }  # fmt: skip


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
    rows = [row(cell) for cell in summary["cells"]]
    where = f"{summary['model']['id']}, {summary['compared_clips']} clips, {summary['device_name']}"
    out = {}
    if any(r["accuracy"] is not None for r in rows):
        points = _curves(rows, "keep", "accuracy", ("accuracy_low", "accuracy_high"), 100)
        out["accuracy"] = lines(
            points, f"Accuracy: {where}", "share of audio and video tokens kept", "right answers, %"
        )
    if any(r["prefill_speedup"] for r in rows):
        points = _curves(rows, "keep", "prefill_speedup", ("prefill_speedup_min", "prefill_speedup_max"))
        out["prefill"] = lines(
            points,
            f"Selection and prefill: {where}",
            "share of audio and video tokens kept",
            "times as fast as the whole clip",
        )
    if len(out) == 2:
        points = _curves(rows, "prefill_speedup", "accuracy", ("accuracy_low", "accuracy_high"), 100)
        ticks = [x for x in range(1, 1 + int(max(r["prefill_speedup"] for r in rows if r["prefill_speedup"])))]
        out["pareto"] = lines(
            points,
            f"Accuracy against speed: {where}",
            "selection and prefill, times as fast as the whole clip",
            "right answers, %",
            ticks,
        )
    return out


def _curves(
    rows: Sequence[Mapping[str, Any]], x: str, y: str, ends: tuple[str, str], scale: float = 1
) -> dict[str, list[tuple[float, ...]]]:
    """A curve a pruner, each from the whole clip on."""
    out: dict[str, list[tuple[float, ...]]] = {}
    point = lambda r: (r[x], *(scale * r[name] for name in (y, *ends)))
    whole = [point(r) for r in rows if r["pruner"] == NONE and r[y] is not None and r[x] is not None]
    for r in rows:
        if r["pruner"] != NONE and r[y] is not None and r[x] is not None:
            out.setdefault(r["pruner"], list(whole)).append(point(r))
    return out or {NONE: whole}


def page(summary: Mapping[str, Any], drawn: Mapping[str, str]) -> str:
    """One HTML page with the plots inside."""
    rows = [row(cell) for cell in summary["cells"]]
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{_shown(value)}</td>' for value in r.values())}</tr>" for r in rows)
    categories = _categories(summary)
    facts = {
        "model": f"{summary['model']['id']} ({summary['model']['revision']}), {summary['model']['weights']} weights"
        + (f", {summary['model']['layers']} layers" if summary["model"]["layers"] else ""),
        "device": f"{summary['device_name']}, {summary['dtype']}"
        + (f", {summary['threads']} cores" if summary["threads"] else ""),
        "clips": f"{summary['compared_clips']} (the first {rows_timed(summary)} timed); {summary['failed']} could not be read",
        "sampling": ", ".join(f"{name} {value}" for name, value in summary["sampling"].items()),
        "benchmark": "{name} ({annotations}), prompt: {prompt}".format_map(summary["benchmark"])
        if summary.get("benchmark")
        else "none",
        "at best": f"{summary['roofline']['flops_per_s']:.3g} FLOP/s in a matrix product, {summary['roofline']['bytes_per_s']:.3g} B/s in a copy, measured in this run",
        "versions": ", ".join(f"{name} {value}" for name, value in summary["versions"].items()),
    }
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>cg profile: {escape(summary["model"]["id"])}</title><style>{STYLE}</style>'
        f"<h1>cg profile: {escape(summary['model']['id'])}</h1><dl>{told}</dl>{''.join(drawn.values())}"
        "<p>Speed-ups are of selection plus prefill against the prefill of the whole clip in the same round: median, least and greatest of the rounds. "
        "End to end is from the file to the first token, against the whole clip's. "
        f"A pruner that reads the question has the clip read anew for each, the others once: what that comes to is the speed-up with {QUESTIONS} questions on a clip, to all first tokens, against the whole clip read once. "
        "Promised is the ratio of FLOPs, efficiency what came of it. Kept is counted as papers do: what enters the language model, the mean over its layers, what its last layer sees, and as a share of the FLOPs. Seconds are of all timed clips together; "
        "on a busy CPU they say little. Intervals are 95 %, over clips; differences are paired question by question.</p>"
        f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>{categories}{_pages(summary)}</html>\n'
    )


def rows_timed(summary: Mapping[str, Any]) -> int:
    return max((cell.get("timed_clips", 0) for cell in summary["cells"]), default=0)


def _categories(summary: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(name for cell in summary["cells"] for name in cell.get("by_category", {})))
    if not names:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", "keep", *names))
    body = ""
    for cell in summary["cells"]:
        cells = [
            f"{100 * cell['by_category'][name]['value']:.1f}" if name in cell.get("by_category", {}) else ""
            for name in names
        ]
        body += f"<tr><td>{escape(cell['pruner'])}</td><td>{cell['keep']:g}</td>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"
    return f'<h2>Right answers by category, %</h2><div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _pages(summary: Mapping[str, Any]) -> str:
    links = [
        f'<li><a href="{escape(quote(page["page"]), quote=True)}">{escape(Path(page["video"]).name)}</a>: {page["turned"]} answers turned from right to wrong or back</li>'
        for page in summary.get("pages", ())
    ]
    return (
        f"<h2>What was kept of the clips on which pruners disagree most</h2><ul>{''.join(links)}</ul>" if links else ""
    )


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.4g}" if isinstance(value, float) else escape(f"{value:,}" if isinstance(value, int) else str(value))
    )
