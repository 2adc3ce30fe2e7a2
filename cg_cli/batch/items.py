"""From what a user names (files, folders, globs, manifests, a list on stdin) to clips with their questions.

A manifest has one item a line: ``.jsonl`` objects with ``video``, ``question`` or ``questions``, an optional ``id``,
and any other keys; ``.csv`` with a header of the same names; ``.txt`` with one path a line. Paths in it are relative to
it.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from cg_cli.errors import NothingToDo, UsageError
from cg_cli.media.files import AUDIO_SUFFIXES, VIDEO_SUFFIXES, walk
from cg_cli.questions import GOLD, Collected, Item, Question

STDIN = "-"
ROWS, TABLE, LIST = (".jsonl", ".ndjson"), (".csv",), (".txt",)
OWN_KEYS = ("video", "question", "questions", "id")


def collect(
    inputs: Sequence[str], questions: Sequence[str], *, stdin: BinaryIO | None = None, null: bool = False
) -> Collected:
    """What ``inputs`` name, with their own questions or else ``questions``.

    Args:
        inputs: paths, glob patterns, manifests, or ``-`` for a list of paths (or of JSON objects) on ``stdin``.
        questions: for every file that brings none of its own.
        null: the list on stdin ends each path with a NUL instead of a newline.

    Raises:
        UsageError: a manifest that cannot be read, or files and nothing to ask them.
        NothingToDo: no file at all.
    """
    faults: list[str] = []
    by_path: dict[str, tuple[str, dict[tuple[str, Any], Question]]] = {}
    for video, where, row in _rows(inputs, stdin, null, faults.append):
        try:
            own = _questions(row) or [Question(text, *_id_and_more(row)) for text in questions]
        except ValueError as error:
            faults.append(f"{where}: {error}; line left out")
            continue
        if not own:
            raise UsageError(
                f"nothing to ask of {video}: give -q QUESTION, --questions FILE, or a manifest with questions"
            )
        _, known = by_path.setdefault(os.path.abspath(video), (video, {}))
        for question in own:
            known.setdefault((question.text, question.id), question)
    if not by_path and not faults:
        raise NothingToDo(f"no media file in {', '.join(inputs)}: nothing to do")
    return Collected([Item(path, tuple(known.values())) for path, known in by_path.values()], faults)


def read_questions(path: Path) -> list[str]:
    """The lines of a file that are not blank. UsageError if it cannot be read or has none."""
    lines = [line.strip() for line in _lines(_text(path)) if line.strip()]
    if not lines:
        raise UsageError(f"{path}: no question in it")
    return lines


Named = tuple[str, str, Mapping[str, Any]]  # a path, the line that names it (for messages), and its row of the manifest
Fault = Callable[[str], None]


def _rows(inputs: Sequence[str], stdin: BinaryIO | None, null: bool, fault: Fault) -> Iterator[Named]:
    """Every file named."""
    for name in inputs:
        path = Path(name)
        suffix = path.suffix.lower()
        if name == STDIN:
            yield from _listed(_stdin_lines(stdin, null), "stdin", None, fault)
        elif suffix not in ROWS + TABLE + LIST or path.is_dir():
            yield from _files(name, fault)
        elif suffix in TABLE:
            yield from _table_rows(_text(path), name, path.parent, fault)
        else:
            read = _json_rows if suffix in ROWS else _listed
            yield from read(_lines(_text(path)), name, path.parent, fault)


def _files(name: str, fault: Fault) -> Iterator[Named]:
    """The files that one word stands for. One that does not exist stands for itself: its record says so."""
    if os.path.isdir(name):
        paths = walk(Path(name), VIDEO_SUFFIXES + AUDIO_SUFFIXES, lambda e: fault(f"{e.filename}: {e.strerror}"))
        yield from ((str(path), name, {}) for path in paths)
    elif glob.has_magic(name) and not os.path.lexists(name):
        matched = sorted(glob.glob(name, recursive=True))
        if not matched:
            fault(f"{name}: no such file matches")
        for path in matched:
            yield from _files(path, fault)
    else:
        yield name, name, {}


def _listed(lines: list[str], where: str, base: Path | None, fault: Fault) -> Iterator[Named]:
    """A list of paths, or, if its first line is a JSON object, of objects as in a manifest."""
    if next((line for line in lines if line.strip()), "").lstrip().startswith("{"):
        yield from _json_rows(lines, where, base, fault)
        return
    for line in lines:
        if line.strip():
            yield from _files(_from(base, line), fault)


def _json_rows(lines: Iterable[str], where: str, base: Path | None, fault: Fault) -> Iterator[Named]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            fault(f"{where}:{number}: not JSON ({error}); line left out")
            continue
        yield from _placed(row, f"{where}:{number}", base, fault)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _table_rows(text: str, where: str, base: Path, fault: Fault) -> Iterator[Named]:
    table = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if "video" not in (table.fieldnames or ()):
            raise UsageError(f"{where}: its first line must name the columns, and one of them 'video'")
        for row in table:
            cells = {key: cell for key, cell in row.items() if key is not None and cell}
            yield from _placed(cells, f"{where}:{table.line_num}", base, fault)
    except csv.Error as error:
        raise UsageError(f"{where}:{table.line_num}: {error}") from error


def _placed(row: Any, where: str, base: Path | None, fault: Fault) -> Iterator[Named]:
    if isinstance(row, dict) and isinstance(row.get("video"), str) and row["video"]:
        yield _from(base, row["video"]), where, row
    else:
        fault(f"{where}: no 'video' (a path); line left out")


def _questions(row: Mapping[str, Any]) -> list[Question]:
    """The questions that a row of a manifest asks itself, if any. ValueError for what is no question."""
    value = row.get("questions", row.get("question"))
    if value is None:
        return []
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("'question' must be text, 'questions' a list of texts")
    return [Question(text.strip(), *_id_and_more(row)) for text in texts]


def _id_and_more(row: Mapping[str, Any]) -> tuple[str | int | None, dict[str, Any]]:
    """The id of a row, and what else goes into the records of its questions."""
    identity = row.get("id")
    more = {key: value for key, value in row.items() if key not in OWN_KEYS}
    if "answer" in more:
        more[GOLD] = more.pop("answer")
    plain = identity is None or (isinstance(identity, str | int) and not isinstance(identity, bool))
    return identity if plain else json.dumps(identity), more


def _from(base: Path | None, path: str) -> str:
    """``path`` as seen from ``base``, or from here."""
    return str(base / path) if base is not None else path


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:  # a cell may hold a \r
            return file.read()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _lines(text: str) -> list[str]:
    """Only newlines end a line: JSON may hold other separators in its strings."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _stdin_lines(stdin: BinaryIO | None, null: bool) -> list[str]:
    text = os.fsdecode(stdin.read() if stdin else b"")
    return text.split("\0") if null else _lines(text)
