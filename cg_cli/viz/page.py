"""A scene as one HTML page that needs nothing else: no network, no library. It holds its data as one block of JSON,
which is read back when runs are added.

Data (``SCHEMA``): of the clip, ``video``, ``identity``, ``duration_s``, ``start_s`` of every grid, ``rows``,
``columns``, ``shown`` (the grids whose cells are here), ``frames`` (the first of each of these, data URIs; none without
pictures), ``wave`` (least and greatest sample by column, -100..100), ``sound`` (data URI or null) and ``sound_s`` (the
start of each audio token). Of each run what ``_run`` says.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from cg_cli.engine.figures import FIGURES, NOTE, figures
from cg_cli.errors import CgError, UsageError
from cg_cli.media.clip import SAMPLE_RATE, Clip
from cg_cli.records import Answer
from cg_cli.viz.scene import Run, Scene

SCHEMA = "cg.page/1"
SHOWN = 160  # grids at most
WIDTH, QUALITY = 448, 80  # of a frame: pixels at most, and JPEG's quality; so many of them stay below some 5 MB
COLUMNS = 1000  # of the waveform
SOUND_S, SOUND_BITS = 60, 48_000  # a longer clip's sound stays out; bits a second
DIGITS = 4  # of scores and shares

_PARTS = Path(__file__).parent
_BLOCK = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
Data = dict[str, Any]


def write(path: Path, scene: Scene) -> None:
    """Write the page of ``scene`` to ``path``. If it is a page of the same clip, sampled alike, already, the runs are
    added to it: one of the same pruner and keep takes the old one's place.

    Raises:
        UsageError: there is a file that is no page of cg.
        CgError: it cannot be written.
    """
    page = text(scene, check(path))
    try:
        temporary = path.with_name(f"{path.name}.new")  # a page that took several runs to make is not lost half-written
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise CgError(f"cannot write {path}: {error.strerror}") from error


def check(path: Path) -> Data | None:
    """The data of the page that ``path`` is already; None if there is no such file. Raises as ``write``."""
    try:
        old = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise CgError(f"cannot read {path}: {error.strerror}") from error
    return _read(old, path) if old else None


def text(scene: Scene, old: Data | None = None) -> str:
    """The page of ``scene``; with the runs of ``old``, a page's data, if that is of the same clip, sampled alike."""
    alike = old and all(old[name] == value for name, value in _sampling(scene).items())
    held = data(scene, old["shown"] if alike else None)
    if alike:
        runs = {(run["pruner"], run["keep"]): run for run in (*old["runs"], *held["runs"])}
        held["runs"] = list(runs.values())
    parts = {"style": _part("page.css"), "draw": _part("draw.js"), "script": _part("page.js"), "data": _json(held)}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _part("page.html"))


def read(page: str) -> Data | None:
    """The data of a page of cg; None if it is none."""
    found = _BLOCK.search(page)
    try:
        held = json.loads(found[1]) if found else None
    except ValueError:
        return None
    return held if isinstance(held, dict) and held.get("schema") == SCHEMA else None


def data(scene: Scene, shown: list[int] | None = None) -> Data:
    """What the page knows of ``scene``; ``shown`` says which grids, if that is settled."""
    shown = _shown(scene) if shown is None else shown
    clip = scene.clip
    frames = [] if clip.frames is None else [_jpeg(clip.frames[grid * scene.grid_frames]) for grid in shown]
    return {
        "schema": SCHEMA, "video": scene.video, "duration_s": round(clip.duration_s, 3), **_sampling(scene), "shown": shown, "frames": frames,
        "wave": None if clip.audio is None else _wave(clip.audio), "sound": _sound(clip),
        "sound_s": _numbers(scene.runs[0].sounds.time_s, 3), "sound_end": round(clip.audio_s, 3),
        "figures": FIGURES, "note": NOTE, "runs": [_run(scene, run, shown) for run in scene.runs],
    }  # fmt: skip


def _sampling(scene: Scene) -> Data:
    """What tells a clip and its cells from others."""
    return {
        "identity": scene.identity,
        "start_s": _numbers(scene.grid_start_s, 3),
        "rows": scene.rows,
        "columns": scene.columns,
    }


def _run(scene: Scene, run: Run, shown: list[int]) -> Data:
    """One run. By cell of the shown grids, row by row: ``kept``, ``into`` (a cell's place in the whole clip, counted
    likewise; -1 for none), ``takes`` (how many went into it), ``score`` and ``reason``; by audio token: ``sound_kept``
    and ``sound_into``; by grid: ``share`` kept, ``recoverable``, ``segment``. ``full``, the greatest ``kept`` of a
    cell: less than that is not kept, or not as long."""
    cells, shape = run.cells, (scene.grids, scene.rows, scene.columns)
    place = np.ravel_multi_index((cells.grid, cells.row, cells.column), shape) if len(cells.grid) else cells.grid
    into = np.where(cells.into >= 0, place[cells.into], -1) if len(place) else place
    takes = np.bincount(cells.into[cells.into >= 0], minlength=len(place))

    def laid(values: np.ndarray, fill: float) -> np.ndarray:
        """Values of cells by grid, row and column, of the shown grids alone."""
        out = np.full(math.prod(shape), fill, dtype=values.dtype)
        out[place] = values
        return out.reshape(shape)[shown].ravel()

    level = scene.level(run)
    answers = [record for record in run.records if isinstance(record, Answer)]
    told = [
        {"question": r.question, "answer": r.answer, "warnings": r.warnings} if isinstance(r, Answer)
        else {"question": r.question, "failed": r.error.message} for r in run.records
    ]  # fmt: skip
    return {
        "name": run.name, "pruner": run.pruner, "keep": run.keep, "reasons": run.reasons,
        "kept": _numbers(laid(cells.kept, 0)), "full": round(float(cells.kept.max(initial=0)), DIGITS) or 1,
        "into": laid(into, -1).tolist(), "takes": laid(takes, 0).tolist(),
        "score": _numbers(laid(cells.score, math.nan)), "reason": laid(cells.reason, 0).tolist(),
        "sound_kept": _numbers(run.sounds.kept), "sound_into": run.sounds.into.tolist(),
        "video_kept": round(float(cells.kept.sum()), 1), "video": len(cells.kept),
        "audio_kept": round(float(run.sounds.kept.sum()), 1), "audio": len(run.sounds.kept),
        "share": _numbers(level.mean((1, 2))) if level.size else [],
        "recoverable": None if run.recoverable is None else _numbers(run.recoverable),
        "segment": None if run.segment is None else run.segment.tolist(),
        "model": f"{answers[0].model.id} on {answers[0].model.device_name}" if answers else None,
        "told": told, "figures": figures(answers) if answers else [],
    }  # fmt: skip


def _shown(scene: Scene) -> list[int]:
    """The grids to show: all, or where that is too many, the first of each segment of the first run and others evenly
    between."""
    if scene.grids <= SHOWN:
        return list(range(scene.grids))
    segment = scene.runs[0].segment
    first = np.array([0]) if segment is None else np.flatnonzero(np.diff(segment, prepend=-1))
    if len(first) > SHOWN:
        first = first[np.linspace(0, len(first) - 1, SHOWN).astype(int)]
    even = np.linspace(0, scene.grids - 1, SHOWN - len(first)).astype(int)
    return np.union1d(first, even).tolist()


def _jpeg(frame: np.ndarray) -> str:
    image, file = Image.fromarray(frame), io.BytesIO()
    image.thumbnail((WIDTH, image.height))
    image.save(file, "JPEG", quality=QUALITY)
    return _uri("image/jpeg", file)


def _wave(audio: np.ndarray) -> list[list[int]]:
    """Least and greatest sample of each column of time, as a share of the loudest."""
    edges = np.linspace(0, len(audio), min(COLUMNS, len(audio)) + 1).astype(int)[:-1]
    scale = 100 / max(float(np.abs(audio).max(initial=0)), 1e-6)
    ends = [reduce(audio, edges) if len(edges) else audio for reduce in (np.minimum.reduceat, np.maximum.reduceat)]
    return [np.rint(end * scale).astype(int).tolist() for end in ends]


def _sound(clip: Clip) -> str | None:
    """The sound as a data URI; None if there is none or much."""
    if not 0 < clip.audio_s <= SOUND_S:
        return None
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=SOUND_BITS)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(clip.audio[None], dtype=np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = SAMPLE_RATE
        for sounds in (frame, None):
            container.mux(stream.encode(sounds))
    return _uri("audio/mp4", file)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _numbers(values: np.ndarray, digits: int = DIGITS) -> list[float | int | None]:
    """As JSON has them, and short: whole ones without a point, None for NaN and infinities."""
    out = np.round(values.astype(float), digits).tolist()
    return [None if not math.isfinite(value) else int(value) if value == int(value) else value for value in out]


def _json(held: Data) -> str:
    """ASCII that ends no script element; lone surrogates of file names included."""
    return json.dumps(held, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _read(old: bytes, path: Path) -> Data:
    """The data of the page that ``path`` holds. UsageError if it is none."""
    held = read(old.decode("utf-8", errors="replace"))
    if held is None:
        raise UsageError(f"{path} is no page of cg: name another file")
    return held
