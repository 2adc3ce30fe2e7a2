"""A benchmark: where its files are, how a row of its annotations becomes a question, and its prompt."""

from __future__ import annotations

import ast
import json
import os
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.evals.benchmarks import tables
from cg_cli.questions import GOLD, Collected, Item, Question
from cg_cli.settings.table import Settings

SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi", ".mov")
SETUP = (
    "fps",
    "min_frames",
    "max_frames",
    "max_pixels",
    "video_pixels",
    "spread_pixels",
    "frames",
    "audio",
    "max_new_tokens",
    "temperature",
)  # settings
LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Row:
    """One question.

    Attributes:
        id: its own in the benchmark.
        video: fills ``{video}`` in ``Benchmark.videos``.
        choices: at least two, a letter in front of each ("B. red").
        answer: the letter of the right one.
        category: by which the benchmark's authors, or else papers, report.
        groups: other ways to group, by name.
    """

    id: str
    video: str
    question: str
    choices: tuple[str, ...]
    answer: str
    category: str
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """One published benchmark.

    Attributes:
        name, source: its name here, and where its owners hand it out.
        annotations: names or patterns of its annotation file below its folder, the official ones first.
        videos: patterns of the path of a row's video, without suffix; ``{video}`` is ``Row.video``.
        rows: from the content of the file (its JSON, or a list of rows) to Rows. KeyError, TypeError or ValueError for
            another layout.
        prompt: a template with ``{question}`` and ``{choices}``.
        prompt_source: who published that prompt.
        separator: of choices in the prompt.
    """

    name: str
    source: str
    annotations: tuple[str, ...]
    videos: tuple[str, ...]
    rows: Callable[[Any], Iterator[Row]]
    prompt: str
    prompt_source: str
    separator: str = "\n"

    @property
    def layout(self) -> str:
        """The layout in a few words."""
        return f"{self.annotations[0]} and {self.videos[0].format(video='VIDEO')}.mp4"

    def collect(self, data: Path, settings: Settings) -> Collected:
        """As ``benchmarks.collect``."""
        file, folder = self._find(Path(os.path.expanduser(data)))
        try:
            rows = list(self.rows(tables.read(file)))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise UsageError(
                f"{file} is not in the layout of {self.name} ({reason}); it should come from {self.source}"
            ) from error
        if not rows:
            raise UsageError(f"{file} holds no question")
        setup = self._setup(file, settings)
        by_video: dict[str, list[Question]] = {}
        for row in rows:
            text = self.prompt.format(question=row.question, choices=self.separator.join(row.choices))
            more = {
                "choices": row.choices,
                GOLD: row.answer,
                "category": row.category,
                "groups": dict(row.groups),
                "benchmark": setup,
            }
            by_video.setdefault(row.video, []).append(Question(text, row.id, more))
        return Collected(
            [Item(str(self._video(folder, video)), tuple(questions)) for video, questions in by_video.items()], []
        )

    def _find(self, data: Path) -> tuple[Path, Path]:
        """The annotation file and the folder that videos are in."""
        if data.is_file():
            inside = next((len(Path(name).parts) - 1 for name in self.annotations if data.match(name)), 0)
            return data, data.parents[inside]
        if not data.is_dir():
            raise UsageError(f"--data {data}: no such folder")
        for name in self.annotations:
            for file in sorted(data.glob(name)):
                return file, data
        candidates = sorted(file for file in data.iterdir() if file.suffix in tables.SUFFIXES)
        if len(candidates) == 1:  # renamed, or turned into another format
            return candidates[0], data
        raise UsageError(
            f"--data {data}: no annotation file of {self.name} in it; looked for {', '.join(self.annotations)}: "
            "name it, --data FILE"
        )

    def _video(self, folder: Path, video: str) -> Path:
        """The file of a video; if there is none, the first path where it could be, which its record then names."""
        paths = [folder / f"{pattern.format(video=video)}{suffix}" for pattern in self.videos for suffix in SUFFIXES]
        return next((path for path in paths if path.is_file()), paths[0])

    def _setup(self, file: Path, settings: Settings) -> dict[str, Any]:
        """What a result needs to be compared with others."""
        return {
            "name": self.name,
            "annotations": file.name,
            "prompt": self.prompt_source,
            **{name: getattr(settings, name) for name in SETUP},
        }


def letter(value: Any) -> str:
    """The letter that an answer begins with ("b", "B.", "(B) red"). ValueError if it begins with none."""
    match = re.match(r"\s*\(?([A-Za-z])(?![A-Za-z])", str(value))
    if not match:
        raise ValueError(f"answer {value!r} is no letter")
    return match[1].upper()


def as_list(value: Any) -> list[str]:
    """A list of texts, also from the text of one ("['A. x', 'B. y']", numpy's without commas, too)."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = ast.literal_eval(re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", value.strip()))
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{value!r} is no list of choices")
    return [str(text) for text in value if text is not None]


def with_letters(texts: Sequence[str]) -> tuple[str, ...]:
    """Choices with a letter in front of each, where they have none."""
    return tuple(
        text if re.match(rf"\s*\(?{LETTERS[n]}[.):]", text) else f"{LETTERS[n]}. {text}" for n, text in enumerate(texts)
    )


def by_letter(options: Mapping[str, Any], answer: str) -> tuple[str, ...]:
    """Choices from texts by letter, from A on; blank ones at the end go, unless the answer is one of them."""
    texts = [str(options.get(name) or "").strip() for name in LETTERS[: len(options)]]
    while texts and not texts[-1] and len(texts) > LETTERS.index(answer) + 1:
        texts.pop()
    return tuple(f"{name}. {text}" for name, text in zip(LETTERS, texts))


def minutes(text: Any) -> float:
    """Minutes in "03:28" or "1:02:03"."""
    seconds = 0.0
    for part in str(text).split(":"):
        seconds = 60 * seconds + float(part)
    return seconds / 60
