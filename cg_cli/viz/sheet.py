"""A contact sheet: frames under the overlay of kept tokens, and below, on one time axis, sound and segments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cg_cli.errors import CgError
from cg_cli.media.clip import SAMPLE_RATE
from cg_cli.util.atomic import atomic_path
from cg_cli.viz import MARK
from cg_cli.viz.blending import DIM, GridOverlay, segment_colour
from cg_cli.viz.scene import AudioTokens, PrunerResult, Scene

WIDTH, MARGIN, GAP = 1600, 40, 12
FRAMES = 24  # on a sheet, at most
ACROSS = 6  # frames in a row, more if they are narrow
TALL = 260  # pixels, height of a frame at most, so that portrait videos fit
INK, FAINT, PAPER, BAR, SOUND = (25, 25, 25), (120, 120, 120), (255, 255, 255), (60, 60, 60), (0, 114, 178)
SILENT = 205  # grey of sound that was dropped
LABELS = 150  # pixels left of the time axis
LINE = 24  # pixels of a line of text


def write(path: Path, scene: Scene) -> None:
    """Draw the first result of ``scene`` as a PNG. CgError if it cannot be written."""
    image = draw(scene)
    try:
        with atomic_path(path) as temporary:
            about = PngInfo()
            about.add_text("Comment", MARK)
            image.save(temporary, format="PNG", pnginfo=about)
    except OSError as error:
        raise CgError(f"cannot write {path}: {error.strerror or error}") from error


def draw(scene: Scene) -> Image.Image:
    """The sheet of the first result of ``scene``."""
    result = scene.results[0]
    tracks = _tracks(scene, result)
    lines = _text_lines(scene, result)
    chosen = choose(scene, result)
    size = _frame_size(scene, len(chosen))
    across = (WIDTH - 2 * MARGIN + GAP) // (size[0] + GAP)
    rows = -(-len(chosen) // across)
    frames_top = MARGIN + 44 + LINE * len(lines) + GAP
    tracks_top = frames_top + rows * (size[1] + LINE + GAP)
    height = tracks_top + sum(track.height + GAP for track in tracks) + LINE + GAP + LINE + MARGIN
    image = Image.new("RGB", (WIDTH, height), PAPER)
    canvas = ImageDraw.Draw(image)
    _text(canvas, (MARGIN, MARGIN - 8), _title(scene, result), 26)
    for number, line in enumerate(lines):
        _text(canvas, (MARGIN, MARGIN + 36 + LINE * number), line, 17, INK if number else FAINT)
    for place, grid in enumerate(chosen):
        left = MARGIN + place % across * (size[0] + GAP)
        top = frames_top + place // across * (size[1] + LINE + GAP)
        _frame(image, canvas, scene, result, grid, (left, top), size)
    top = tracks_top
    for track in tracks:
        _text(canvas, (MARGIN, top + track.height // 2 - 10), track.name, 15, FAINT)
        track.draw(canvas, top)
        top += track.height + GAP
    _axis(canvas, scene, chosen, top)
    _legend(canvas, result, top + LINE + GAP)
    return image


def choose(scene: Scene, result: PrunerResult) -> list[int]:
    """The grids on the sheet: all if they fit; else the start of each segment, of the longest if those are too many,
    and others evenly in between."""
    if scene.grids <= FRAMES:
        return list(range(scene.grids))
    segment = result.segment if result.segment is not None else np.zeros(scene.grids, int)
    starts = np.flatnonzero(np.diff(segment, prepend=-1))
    lengths = np.diff(np.append(starts, scene.grids))
    chosen = set(starts[np.argsort(-lengths, kind="stable")[:FRAMES]].tolist())
    while len(chosen) < FRAMES:  # the middle of the widest gap
        marks = [*sorted(chosen), scene.grids]
        gap = max(range(len(marks) - 1), key=lambda n: marks[n + 1] - marks[n])
        chosen.add((marks[gap] + marks[gap + 1]) // 2)
    return sorted(chosen)


def _frame_size(scene: Scene, count: int) -> tuple[int, int]:
    if not count:
        return 0, 0
    height, width = scene.frame(0).shape[:2]
    wide = (WIDTH - 2 * MARGIN - GAP * (min(ACROSS, count) - 1)) // min(ACROSS, count)
    scale = min(wide / width, TALL / height)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _frame(
    image: Image.Image,
    canvas: ImageDraw.ImageDraw,
    scene: Scene,
    result: PrunerResult,
    grid: int,
    at: tuple[int, int],
    size: tuple[int, int],
) -> None:
    kept, merged = scene.kept_map(result)[grid], scene.merged_map(result)[grid]
    segment = 0 if result.segment is None else int(result.segment[grid])
    frame = Image.fromarray(scene.frame(grid)).resize(size, Image.Resampling.BICUBIC)
    overlay = GridOverlay(kept, merged, segment_colour(segment), size[1], size[0])
    image.paste(Image.fromarray(overlay.blend(np.asarray(frame))), at)
    if result.segment is not None:
        canvas.rectangle(
            (at[0], at[1] + size[1], at[0] + size[0] - 1, at[1] + size[1] + 3), fill=tuple(segment_colour(segment))
        )
    share = f"{kept.sum():.0f} of {kept.size}" if size[0] > 150 else f"{kept.mean():.0%}"
    _text(canvas, (at[0], at[1] + size[1] + 6), f"{_time(scene.grid_start_s[grid])} · {share}", 14, FAINT)


def _title(scene: Scene, result: PrunerResult) -> str:
    return f"{Path(scene.video).name} · {_time(scene.clip.duration_s)} · {result.pruner}, keep {result.keep:g}"


def _text_lines(scene: Scene, result: PrunerResult) -> list[str]:
    """Counts, then a line for each question and its answer."""
    video, audio = result.video_tokens.kept, result.audio_tokens.kept
    total = len(video) + len(audio)
    parts = [f"video {video.sum():.0f} of {len(video)} tokens"] if len(video) else []
    parts += [f"audio {audio.sum():.0f} of {len(audio)}"] if len(audio) else []
    partly = ", mean over layers" if _partial(video) or _partial(audio) else ""
    parts += [f"{(video.sum() + audio.sum()) / max(total, 1):.1%} of both kept{partly}"]
    if result.video_tokens.merged.any():
        parts.append(f"{result.video_tokens.merged.sum()} merged into kept ones")
    lines = ["   ·   ".join(parts)]
    for record in result.records:
        answer = record.answer if record.ok else f"(failed: {record.error.message})"
        lines.append(f"{' '.join(record.question.split())}  →  {' '.join(answer.split())}")
    return [line if len(line) < 170 else f"{line[:169]}…" for line in lines]


class _Axis:
    """The time axis: from seconds to pixels, and the span of each grid in seconds."""

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
    def draw(self, canvas: ImageDraw.ImageDraw, top: int) -> None:
        """Draw it from ``top`` down."""


class _Shares(_Track):
    """A bar for each grid, as high as its value in 0..1."""

    def __init__(self, scene: Scene, name: str, values: np.ndarray, ink: tuple[int, int, int]):
        super().__init__(scene, name, 44)
        self.values, self.ink = values, ink

    def draw(self, canvas: ImageDraw.ImageDraw, top: int) -> None:
        canvas.rectangle((self.x(0), top, self.x(self._end), top + self.height), fill=(243, 243, 243))
        for (start, end), value in zip(self.spans, self.values, strict=True):
            if value > 0:
                canvas.rectangle(
                    (
                        self.x(start),
                        top + self.height * (1 - value),
                        max(self.x(end) - 1, self.x(start)),
                        top + self.height,
                    ),
                    fill=self.ink,
                )


class _Segments(_Track):
    """A block for each segment, in its colour."""

    def __init__(self, scene: Scene, segment: np.ndarray):
        super().__init__(scene, "segments", 14)
        self.segment = segment

    def draw(self, canvas: ImageDraw.ImageDraw, top: int) -> None:
        for (start, end), number in zip(self.spans, self.segment, strict=True):
            canvas.rectangle(
                (self.x(start), top, self.x(end), top + self.height), fill=tuple(segment_colour(int(number)))
            )


class _Waveform(_Track):
    """The sound, dark where its tokens were kept."""

    def __init__(self, scene: Scene, audio: np.ndarray, tokens: AudioTokens):
        super().__init__(scene, "sound", 70)
        self.audio, self.tokens = audio, tokens

    def draw(self, canvas: ImageDraw.ImageDraw, top: int) -> None:
        middle, loudest = top + self.height / 2, max(float(np.abs(self.audio).max()), 1e-4)
        order = np.argsort(self.tokens.time_s)
        times, kept = self.tokens.time_s[order], self.tokens.kept[order]
        for column in range(int(self.x(0)), int(self.x(len(self.audio) / SAMPLE_RATE))):
            start, end = ((column + side - self.x(0)) / (self.x(self._end) - self.x(0)) * self._end for side in (0, 1))
            piece = self.audio[int(start * SAMPLE_RATE) : max(int(end * SAMPLE_RATE), int(start * SAMPLE_RATE) + 1)]
            if not len(piece):
                break
            low, high = piece.min() / loudest, piece.max() / loudest
            first, last = np.searchsorted(times, (start, end))
            share = kept[first:last].mean() if last > first else kept[max(first - 1, 0)] if len(kept) else 0.0
            ink = tuple(int(SOUND[n] * share + SILENT * (1 - share)) for n in range(3))
            canvas.line((column, middle - high * self.height / 2, column, middle - low * self.height / 2 + 1), fill=ink)


def _tracks(scene: Scene, result: PrunerResult) -> list[_Track]:
    tracks: list[_Track] = []
    if scene.grids:
        tracks.append(_Shares(scene, "video kept", scene.kept_map(result).mean((1, 2)), BAR))
    if result.recoverable is not None:
        tracks.append(_Shares(scene, "told by sound", result.recoverable, (86, 180, 233)))
    if result.segment is not None:
        tracks.append(_Segments(scene, result.segment))
    if scene.clip.audio is not None and len(scene.clip.audio):
        tracks.append(_Waveform(scene, scene.clip.audio, result.audio_tokens))
    return tracks


def _film_end(scene: Scene) -> float:
    return (0 if scene.clip.frames is None else len(scene.clip.frames)) * scene.clip.seconds_per_frame


def _partial(kept: np.ndarray) -> bool:
    """Whether some layers attend to tokens that others do not."""
    return bool(((kept > 0) & (kept < 1)).any())


def _axis(canvas: ImageDraw.ImageDraw, scene: Scene, chosen: list[int], top: int) -> None:
    """Time in round steps, and a mark at each frame above."""
    track = _Axis(scene)
    step = next((s for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200) if scene.clip.duration_s / s <= 12), 3600)
    canvas.line((track.x(0), top, track.x(scene.clip.duration_s), top), fill=FAINT)
    for number in range(int(scene.clip.duration_s / step) + 1):
        x = track.x(number * step)
        canvas.line((x, top, x, top + 6), fill=FAINT)
        label = _time(number * step)
        room = WIDTH - MARGIN - int(_font(13).getlength(label))
        _text(canvas, (min(int(x) + 3, room), top + 4), label, 13, FAINT)
    for grid in chosen:
        x = track.x(scene.grid_start_s[grid])
        canvas.polygon(((x - 4, top - 9), (x + 4, top - 9), (x, top - 2)), fill=INK)


def _legend(canvas: ImageDraw.ImageDraw, result: PrunerResult, top: int) -> None:
    sky = np.array((150, 190, 220))
    entries = [("kept", sky), ("dropped", DIM * sky.mean() * np.ones(3))]
    if _partial(result.video_tokens.kept):
        entries.append(("read by some layers: in between", 0.5 * sky + 0.5 * DIM * sky.mean()))
    if result.video_tokens.merged.any():
        overlay = GridOverlay(np.zeros((1, 1)), np.ones((1, 1), bool), segment_colour(0), 1, 1)
        entries.append(("merged into a kept one, in its segment's colour", overlay.blend(sky[None, None])[0, 0]))
    if len(result.audio_tokens.kept):
        entries += [("sound kept", np.array(SOUND)), ("sound dropped", np.full(3, SILENT))]
    left = MARGIN
    for label, ink in entries:
        canvas.rectangle((left, top + 3, left + 18, top + 18), fill=tuple(int(c) for c in ink))
        _text(canvas, (left + 26, top), label, 15, FAINT)
        left += 26 + int(_font(15).getlength(label)) + 30


def _time(seconds: float) -> str:
    """``3.0 s`` below a minute, else ``2:05``."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _text(
    canvas: ImageDraw.ImageDraw, at: tuple[int, int], lines: str, size: int, ink: tuple[int, int, int] = INK
) -> None:
    canvas.text(at, lines, font=_font(size), fill=ink)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font with more scripts where the system has one; Pillow's own holds Latin letters only."""
    for name in ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
