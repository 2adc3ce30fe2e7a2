"""A contact sheet: frames over time under what was kept of them, and below, on one time axis, sound and segments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cg_cli.errors import CgError
from cg_cli.media.clip import SAMPLE_RATE
from cg_cli.viz.paint import DIM, Veil, colour
from cg_cli.viz.scene import Run, Scene

WIDTH, MARGIN, GAP = 1600, 40, 12
FRAMES = 24  # on a sheet, at most
ACROSS = 6  # frames in a row, unless they are narrow
TALL = 260  # pixels of a frame at most, so that portrait films fit
INK, FAINT, PAPER, BAR, SOUND = (25, 25, 25), (120, 120, 120), (255, 255, 255), (60, 60, 60), (0, 114, 178)
SILENT = 205  # grey of sound that was dropped
LABELS = 150  # pixels left of the time axis
LINE = 24  # pixels of a line of text


def write(path: Path, scene: Scene) -> None:
    """Draw the first run of ``scene`` as a PNG. CgError if it cannot be written."""
    try:
        draw(scene).save(path, format="PNG")
    except OSError as error:
        raise CgError(f"cannot write {path}: {error.strerror or error}") from error


def draw(scene: Scene) -> Image.Image:
    """The sheet of the first run."""
    run = scene.runs[0]
    tracks = _tracks(scene, run)
    words = _words(scene, run)
    chosen = choose(scene, run)
    size = _frame_size(scene, len(chosen))
    across = (WIDTH - 2 * MARGIN + GAP) // (size[0] + GAP)
    rows = -(-len(chosen) // across)
    frames_top = MARGIN + 44 + LINE * len(words) + GAP
    tracks_top = frames_top + rows * (size[1] + LINE + GAP)
    height = tracks_top + sum(track.height + GAP for track in tracks) + LINE + GAP + LINE + MARGIN
    image = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(image)
    _text(pen, (MARGIN, MARGIN - 8), _title(scene, run), 26)
    for number, line in enumerate(words):
        _text(pen, (MARGIN, MARGIN + 36 + LINE * number), line, 17, INK if number else FAINT)
    for place, grid in enumerate(chosen):
        left = MARGIN + place % across * (size[0] + GAP)
        top = frames_top + place // across * (size[1] + LINE + GAP)
        _frame(image, pen, scene, run, grid, (left, top), size)
    top = tracks_top
    for track in tracks:
        _text(pen, (MARGIN, top + track.height // 2 - 10), track.name, 15, FAINT)
        track.draw(pen, top)
        top += track.height + GAP
    _axis(pen, scene, chosen, top)
    _legend(pen, run, top + LINE + GAP)
    return image


def choose(scene: Scene, run: Run) -> list[int]:
    """Grids to show: all if they fit; else the start of each segment, of the longest if those are too many, and in
    between as evenly as can be."""
    if scene.grids <= FRAMES:
        return list(range(scene.grids))
    segment = run.segment if run.segment is not None else np.zeros(scene.grids, int)
    starts = np.flatnonzero(np.diff(segment, prepend=-1))
    lasts = np.diff(np.append(starts, scene.grids))
    chosen = set(starts[np.argsort(-lasts, kind="stable")[:FRAMES]].tolist())
    while len(chosen) < FRAMES:  # the middle of the widest gap
        marks = [*sorted(chosen), scene.grids]
        gap = max(range(len(marks) - 1), key=lambda n: marks[n + 1] - marks[n])
        chosen.add((marks[gap] + marks[gap + 1]) // 2)
    return sorted(chosen)


def _frame_size(scene: Scene, count: int) -> tuple[int, int]:
    if not count:
        return 0, 0
    height, width = scene.clip.frames.shape[1:3]
    wide = (WIDTH - 2 * MARGIN - GAP * (min(ACROSS, count) - 1)) // min(ACROSS, count)
    scale = min(wide / width, TALL / height)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _frame(
    image: Image.Image,
    pen: ImageDraw.ImageDraw,
    scene: Scene,
    run: Run,
    grid: int,
    at: tuple[int, int],
    size: tuple[int, int],
) -> None:
    level, merged = scene.level(run)[grid], scene.merged(run)[grid]
    segment = 0 if run.segment is None else int(run.segment[grid])
    frame = Image.fromarray(scene.clip.frames[grid * scene.grid_frames]).resize(size, Image.Resampling.BICUBIC)
    veil = Veil(level, merged, colour(segment), size[1], size[0])
    image.paste(Image.fromarray(veil.over(np.asarray(frame))), at)
    if run.segment is not None:
        pen.rectangle((at[0], at[1] + size[1], at[0] + size[0] - 1, at[1] + size[1] + 3), fill=tuple(colour(segment)))
    kept = f"{level.sum():.0f} of {level.size}" if size[0] > 150 else f"{level.mean():.0%}"
    _text(pen, (at[0], at[1] + size[1] + 6), f"{_time(scene.grid_start_s[grid])} · {kept}", 14, FAINT)


def _title(scene: Scene, run: Run) -> str:
    return f"{Path(scene.video).name} · {_time(scene.clip.duration_s)} · {run.pruner}, keep {run.keep:g}"


def _words(scene: Scene, run: Run) -> list[str]:
    """Counts, then a line for each question and its answer."""
    seen, heard = run.cells.kept, run.sounds.kept
    total = len(seen) + len(heard)
    parts = [f"video {seen.sum():.0f} of {len(seen)} tokens"] if len(seen) else []
    parts += [f"audio {heard.sum():.0f} of {len(heard)}"] if len(heard) else []
    partly = ", mean over layers" if ((seen > 0) & (seen < 1)).any() or ((heard > 0) & (heard < 1)).any() else ""
    parts += [f"{(seen.sum() + heard.sum()) / max(total, 1):.1%} of both kept{partly}"]
    if (run.cells.into >= 0).any():
        parts.append(f"{(run.cells.into >= 0).sum()} merged into kept ones")
    lines = ["   ·   ".join(parts)]
    for record in run.records:
        said = record.answer if record.ok else f"(failed: {record.error.message})"
        lines.append(f"{' '.join(record.question.split())}  →  {' '.join(said.split())}")
    return [line if len(line) < 170 else f"{line[:169]}…" for line in lines]


class _Axis:
    """The time axis: where on the sheet a second is, and which seconds each grid spans."""

    def __init__(self, scene: Scene):
        self._end = max(scene.clip.duration_s, 1e-3)
        ends = np.append(scene.grid_start_s[1:], _film_end(scene)) if scene.grids else np.zeros(0)
        self.spans = list(zip(scene.grid_start_s, ends, strict=True))

    def x(self, seconds: float) -> float:
        left = MARGIN + LABELS
        return left + (WIDTH - MARGIN - left) * min(max(seconds / self._end, 0.0), 1.0)


class _Track(_Axis, ABC):
    """A strip over the time axis."""

    def __init__(self, scene: Scene, name: str, height: int):
        super().__init__(scene)
        self.name, self.height = name, height

    @abstractmethod
    def draw(self, pen: ImageDraw.ImageDraw, top: int) -> None:
        """Draw it from ``top`` down."""


class _Shares(_Track):
    """A bar a grid, as high as its value in 0..1."""

    def __init__(self, scene: Scene, name: str, values: np.ndarray, ink: tuple[int, int, int]):
        super().__init__(scene, name, 44)
        self.values, self.ink = values, ink

    def draw(self, pen: ImageDraw.ImageDraw, top: int) -> None:
        pen.rectangle((self.x(0), top, self.x(self._end), top + self.height), fill=(243, 243, 243))
        for (start, end), value in zip(self.spans, self.values, strict=True):
            if value > 0:
                pen.rectangle(
                    (
                        self.x(start),
                        top + self.height * (1 - value),
                        max(self.x(end) - 1, self.x(start)),
                        top + self.height,
                    ),
                    fill=self.ink,
                )


class _Segments(_Track):
    """A coloured block a segment."""

    def __init__(self, scene: Scene, segment: np.ndarray):
        super().__init__(scene, "segments", 14)
        self.segment = segment

    def draw(self, pen: ImageDraw.ImageDraw, top: int) -> None:
        for (start, end), number in zip(self.spans, self.segment, strict=True):
            pen.rectangle((self.x(start), top, self.x(end), top + self.height), fill=tuple(colour(int(number))))


class _Waveform(_Track):
    """The sound, dark where its tokens were kept."""

    def __init__(self, scene: Scene, run: Run):
        super().__init__(scene, "sound", 70)
        self.audio, self.sounds = scene.clip.audio, run.sounds

    def draw(self, pen: ImageDraw.ImageDraw, top: int) -> None:
        middle, loudest = top + self.height / 2, max(float(np.abs(self.audio).max()), 1e-4)
        order = np.argsort(self.sounds.time_s)
        times, kept = self.sounds.time_s[order], self.sounds.kept[order]
        for column in range(int(self.x(0)), int(self.x(len(self.audio) / SAMPLE_RATE))):
            start, end = ((column + side - self.x(0)) / (self.x(self._end) - self.x(0)) * self._end for side in (0, 1))
            piece = self.audio[int(start * SAMPLE_RATE) : max(int(end * SAMPLE_RATE), int(start * SAMPLE_RATE) + 1)]
            if not len(piece):
                break
            low, high = piece.min() / loudest, piece.max() / loudest
            first, last = np.searchsorted(times, (start, end))
            share = kept[first:last].mean() if last > first else kept[max(first - 1, 0)] if len(kept) else 0.0
            ink = tuple(int(SOUND[n] * share + SILENT * (1 - share)) for n in range(3))
            pen.line((column, middle - high * self.height / 2, column, middle - low * self.height / 2 + 1), fill=ink)


def _tracks(scene: Scene, run: Run) -> list[_Track]:
    tracks: list[_Track] = []
    if scene.grids:
        tracks.append(_Shares(scene, "video kept", scene.level(run).mean((1, 2)), BAR))
    if run.recoverable is not None:
        tracks.append(_Shares(scene, "told by sound", run.recoverable, (86, 180, 233)))
    if run.segment is not None:
        tracks.append(_Segments(scene, run.segment))
    if scene.clip.audio is not None and len(scene.clip.audio):
        tracks.append(_Waveform(scene, run))
    return tracks


def _film_end(scene: Scene) -> float:
    return len(scene.clip.frames) * scene.clip.seconds_per_frame


def _axis(pen: ImageDraw.ImageDraw, scene: Scene, chosen: list[int], top: int) -> None:
    """Time in round steps, and a mark where each frame above is from."""
    track = _Axis(scene)
    step = next((s for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200) if scene.clip.duration_s / s <= 12), 3600)
    pen.line((track.x(0), top, track.x(scene.clip.duration_s), top), fill=FAINT)
    for number in range(int(scene.clip.duration_s / step) + 1):
        x = track.x(number * step)
        pen.line((x, top, x, top + 6), fill=FAINT)
        word = _time(number * step)
        room = WIDTH - MARGIN - int(_font(13).getlength(word))
        _text(pen, (min(int(x) + 3, room), top + 4), word, 13, FAINT)
    for grid in chosen:
        x = track.x(scene.grid_start_s[grid])
        pen.polygon(((x - 4, top - 9), (x + 4, top - 9), (x, top - 2)), fill=INK)


def _legend(pen: ImageDraw.ImageDraw, run: Run, top: int) -> None:
    sky = np.array((150, 190, 220))
    entries = [("kept", sky), ("dropped", DIM * sky.mean() * np.ones(3))]
    if ((run.cells.kept > 0) & (run.cells.kept < 1)).any():
        entries.append(("read by some layers: in between", 0.5 * sky + 0.5 * DIM * sky.mean()))
    if (run.cells.into >= 0).any():
        entries.append(
            (
                "merged into a kept one, in its segment's colour",
                Veil(np.zeros((1, 1)), np.ones((1, 1), bool), colour(0), 1, 1).over(sky[None, None])[0, 0],
            )
        )
    if len(run.sounds.kept):
        entries += [("sound kept", np.array(SOUND)), ("sound dropped", np.full(3, SILENT))]
    left = MARGIN
    for word, ink in entries:
        pen.rectangle((left, top + 3, left + 18, top + 18), fill=tuple(int(c) for c in ink))
        _text(pen, (left + 26, top), word, 15, FAINT)
        left += 26 + int(_font(15).getlength(word)) + 30


def _time(seconds: float) -> str:
    """``3.0 s`` below a minute, else ``2:05``."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _text(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], words: str, size: int, ink: tuple[int, int, int] = INK
) -> None:
    pen.text(at, words, font=_font(size), fill=ink)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """A font with more scripts where the system has one; Pillow's own holds Latin letters only."""
    for name in ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
