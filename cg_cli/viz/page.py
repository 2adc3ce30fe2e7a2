"""A scene as one self-contained HTML page: no network, no library. Its data is one block of JSON, which is read back
when results are added.

Data (``SCHEMA``): of the clip, ``video``, ``identity``, ``duration_s``, ``start_s`` of every grid, ``rows``,
``columns``, ``shown`` (the grids on the page), ``frames`` (the first of each of these, data URIs; none without
pictures), ``wave`` (least and greatest sample by column, -100..100), ``sound`` (data URI or null), ``sound_s`` (the
start of each audio token), and ``runs``, a result each, as ``_result_data`` says.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from cg_cli.engine.figures import FIGURES, figures
from cg_cli.errors import CgError, UsageError
from cg_cli.media.clip import SAMPLE_RATE, Clip
from cg_cli.records import Answer, Record
from cg_cli.util.atomic import write_atomic
from cg_cli.viz.scene import PrunerResult, Scene

SCHEMA = "cg.page/1"
MAX_GRIDS = 160  # on a page
WIDTH, QUALITY = 448, 80  # of a frame: pixels at most, and JPEG quality; MAX_GRIDS of them stay below some 5 MB
COLUMNS = 1000  # of the waveform
MAX_SOUND_S, SOUND_BIT_RATE = 60, 48_000  # the sound of longer clips is left out; bits a second
DIGITS = 4  # of scores and shares

_ASSETS = Path(__file__).parent
_BLOCK = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
Data = dict[str, Any]


def write(path: Path, scene: Scene) -> None:
    """Write the page of ``scene`` to ``path``. If that is a page of the same clip, sampled alike, the results are added
    to it; a result of the same pruner and keep replaces the old one.

    Raises:
        UsageError: there is a file that is no page of cg.
        CgError: it cannot be written.
    """
    page = text(scene, check(path))
    try:
        write_atomic(path, page)
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
    """The page of ``scene``; with the results of ``old``, a page's data, if that is of the same clip, sampled alike."""
    if old and any(old[name] != value for name, value in _sampling(scene).items()):
        old = None
    content = data(scene, old["shown"] if old else None)
    if old:
        results = {(result["pruner"], result["keep"]): result for result in (*old["runs"], *content["runs"])}
        content["runs"] = list(results.values())
    assets = {"style": "page.css", "draw": "draw.js", "script": "page.js"}
    parts = {name: _asset(file) for name, file in assets.items()} | {"data": _json(content)}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def read(page: str) -> Data | None:
    """The data of a page of cg; None if it is none."""
    block = _BLOCK.search(page)
    try:
        content = json.loads(block[1]) if block else None
    except ValueError:
        return None
    return content if isinstance(content, dict) and content.get("schema") == SCHEMA else None


def data(scene: Scene, grids: list[int] | None = None) -> Data:
    """The data of a page of ``scene``, with these ``grids``, or else those that ``_choose`` picks."""
    grids = _choose(scene) if grids is None else grids
    clip = scene.clip
    return {
        "schema": SCHEMA,
        "video": scene.video,
        "duration_s": round(clip.duration_s, 3),
        **_sampling(scene),
        "shown": grids,
        "frames": [] if clip.frames is None else [_jpeg(scene.frame(grid)) for grid in grids],
        "wave": None if clip.audio is None else _wave(clip.audio),
        "sound": _sound(clip),
        "sound_s": _numbers(scene.results[0].audio_tokens.time_s, 3),
        "sound_end": round(clip.audio_s, 3),
        "figures": FIGURES,
        "runs": [_result_data(scene, result, grids) for result in scene.results],
    }


def _sampling(scene: Scene) -> Data:
    """The clip and the layout of its cells: results belong on one page if these are equal."""
    return {
        "identity": scene.identity,
        "start_s": _numbers(scene.grid_start_s, 3),
        "rows": scene.rows,
        "columns": scene.columns,
    }


def _result_data(scene: Scene, result: PrunerResult, grids: list[int]) -> Data:
    """One result. By cell of the page's grids, row by row: ``kept``, ``into`` (the index of a cell in the whole clip,
    counted likewise; -1 for none), ``takes`` (how many were merged into it), ``score`` and ``reason``; by audio token:
    ``sound_kept`` and ``sound_into``; by grid: ``share`` kept, ``recoverable``, ``segment``. ``full`` is the greatest
    ``kept`` of a cell: a cell with less is dropped, or attended to by fewer layers."""
    video, audio, shape = result.video_tokens, result.audio_tokens, (scene.grids, scene.rows, scene.columns)
    cell = np.ravel_multi_index((video.grid, video.row, video.column), shape) if len(video.grid) else video.grid
    into = np.where(video.merged, cell[video.into], -1) if len(cell) else cell
    takes = np.bincount(video.into[video.merged], minlength=len(cell))

    def by_cell(values: np.ndarray, fill: float) -> np.ndarray:
        """Values of video tokens by grid, row and column, of the page's grids alone."""
        out = np.full(math.prod(shape), fill, dtype=values.dtype)
        out[cell] = values
        return out.reshape(shape)[grids].ravel()

    kept_map = scene.kept_map(result)
    answers = [record for record in result.records if isinstance(record, Answer)]
    return {
        "name": result.name,
        "pruner": result.pruner,
        "keep": result.keep,
        "reasons": result.reasons,
        "kept": _numbers(by_cell(video.kept, 0)),
        "full": round(float(video.kept.max(initial=0)), DIGITS) or 1,
        "into": by_cell(into, -1).tolist(),
        "takes": by_cell(takes, 0).tolist(),
        "score": _numbers(by_cell(video.score, math.nan)),
        "reason": by_cell(video.reason, 0).tolist(),
        "sound_kept": _numbers(audio.kept),
        "sound_into": audio.into.tolist(),
        "video_kept": round(float(video.kept.sum()), 1),
        "video": len(video.kept),
        "audio_kept": round(float(audio.kept.sum()), 1),
        "audio": len(audio.kept),
        "share": _numbers(kept_map.mean((1, 2))) if kept_map.size else [],
        "recoverable": None if result.recoverable is None else _numbers(result.recoverable),
        "segment": None if result.segment is None else result.segment.tolist(),
        "model": f"{answers[0].model.id} on {answers[0].model.device_name}" if answers else None,
        "told": [_record_data(record) for record in result.records],
        "figures": figures(answers) if answers else [],
    }


def _record_data(record: Record) -> Data:
    if isinstance(record, Answer):
        return {"question": record.question, "answer": record.answer, "warnings": record.warnings}
    return {"question": record.question, "failed": record.error.message}


def _choose(scene: Scene) -> list[int]:
    """The grids of a page: all, or if those are too many, the first of each segment of the first result and others
    evenly in between."""
    if scene.grids <= MAX_GRIDS:
        return list(range(scene.grids))
    segment = scene.results[0].segment
    first = np.array([0]) if segment is None else np.flatnonzero(np.diff(segment, prepend=-1))
    if len(first) > MAX_GRIDS:
        first = first[np.linspace(0, len(first) - 1, MAX_GRIDS).astype(int)]
    even = np.linspace(0, scene.grids - 1, MAX_GRIDS - len(first)).astype(int)
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
    """The sound as a data URI; None if there is none, or more than MAX_SOUND_S."""
    if clip.audio is None or not 0 < clip.audio_s <= MAX_SOUND_S:
        return None
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=SOUND_BIT_RATE)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(clip.audio[None], dtype=np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = SAMPLE_RATE
        for audio in (frame, None):
            container.mux(stream.encode(audio))
    return _uri("audio/mp4", file)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _numbers(values: np.ndarray, digits: int = DIGITS) -> list[float | int | None]:
    """As JSON has them, and short: whole ones without a point, None for NaN and infinities."""
    out = np.round(values.astype(float), digits).tolist()
    return [None if not math.isfinite(value) else int(value) if value == int(value) else value for value in out]


def _json(content: Data) -> str:
    """ASCII that ends no script element; lone surrogates of file names included."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _read(old: bytes, path: Path) -> Data:
    """The data of the page that ``path`` holds. UsageError if it is none."""
    content = read(old.decode("utf-8", errors="replace"))
    if content is None:
        raise UsageError(f"{path} is no page of cg: name another file")
    return content
