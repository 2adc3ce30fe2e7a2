"""From what a user names (files, folders, globs, manifests, a list on stdin) to clips with their questions.

``.jsonl``, ``.ndjson``, ``.csv`` and ``.tsv`` are manifests, see ``manifests``; ``.txt`` has one path a line, relative
to it, or JSON objects as a manifest. Manifests are UTF-8, or UTF-16 with a byte order mark; paths in a list may be any
bytes.

Whatever is left out is a fault: a row of a manifest, a glob that no file matches, a folder without media, an empty
manifest or list. Where all that was named is empty, that is ``NothingToDo``.
"""

from __future__ import annotations

import codecs
import glob
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cg_cli.batch import textfiles
from cg_cli.batch.manifests import Row, is_path, is_text, json_rows, table_rows
from cg_cli.errors import NothingToDo, UsageError
from cg_cli.media.files import AUDIO_SUFFIXES, VIDEO_SUFFIXES, each_once, locate, walk
from cg_cli.media.opening import web_address
from cg_cli.questions import Collected, Item, Question

_Questions = dict[tuple[str, str | int | None], dict[tuple[str, ...], Question]]  # by text and id, then by choices
_ASK = "give -q QUESTION, --questions FILE, or a manifest with questions"
STDIN = "-"
ROWS, TABLE, LIST = (".jsonl", ".ndjson"), (".csv", ".tsv"), (".txt",)


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
        NothingToDo: every input is empty.
    """
    for text in questions:
        try:
            is_text(text)
        except ValueError as error:
            raise UsageError(f"{error}: give -q QUESTION some text") from error
    search = _Search(stdin, null)
    missing = ""
    by_path: dict[str, tuple[str, _Questions]] = {}
    for name in inputs:
        for row in search.rows(name):
            own = row.questions(questions)
            if not own:
                missing = missing or f"nothing to ask of {row.video}: {_ASK}"
                if row.more is None:
                    raise UsageError(_line(missing))
                search.fault(f"{row.where}: no question, and none by -q or --questions; line left out")
                continue
            _, known = by_path.setdefault(os.path.abspath(row.video), (row.video, {}))
            for question in own:
                _add(known, question)
    if not by_path and missing:
        raise UsageError(_line(missing))
    if not by_path and len(search.faults) == search.empty:
        raise NothingToDo(f"{'; '.join(search.faults)}: nothing to do")
    items = [
        Item(path, tuple(question for alike in known.values() for question in alike.values()))
        for path, known in by_path.values()
    ]
    return Collected(items, search.faults)


def _add(known: _Questions, question: Question) -> None:
    """Take a question of a video unless it is there. One without choices is the same as one with any."""
    alike = known.setdefault((question.text, question.id), {})
    if question.choices:
        alike.pop((), None)
    if question.choices or not alike:
        alike.setdefault(question.choices, question)


def read_questions(path: Path) -> list[str]:
    """The lines of a file that are not blank. UsageError if it cannot be read or has none."""
    text = textfiles.decode(textfiles.read_file(path), str(path))
    lines = [line.strip() for line in textfiles.lines(text) if line.strip()]
    if not lines:
        raise UsageError(f"{path}: no question in it")
    return lines


@dataclass
class _Search:
    """Rows of inputs, with paths that this process can open.

    Attributes:
        faults: a line each about what was left out.
        empty: how many of them are about an input that stands for nothing at all.
    """

    stdin: BinaryIO | None
    null: bool
    faults: list[str] = field(default_factory=list)
    empty: int = 0
    _listings: dict[str, dict[str, str]] = field(default_factory=dict)

    def rows(self, name: str) -> Iterator[Row]:
        """Every row that one input stands for."""
        path = Path(name)
        suffix = path.suffix.lower()
        if (address := web_address(name)) and not os.path.lexists(name):
            raise UsageError(_line(f"{name!r} {address}"))
        if name == STDIN:
            data = textfiles.read_stream(self.stdin, "stdin") if self.stdin else b""
            yield from self._or_empty(self._list(data, "stdin", None, self.null), "stdin: nothing in it")
        elif suffix not in ROWS + TABLE + LIST or path.is_dir():
            yield from self._files(name, name)
        else:
            data = textfiles.read_file(path)
            if suffix in TABLE:
                rows = self._placed(table_rows(textfiles.decode(data, name), name, self.fault), path.parent)
            elif suffix in ROWS:
                rows = self._json(data, name, path.parent)
            else:
                rows = self._list(data, name, path.parent)
            yield from self._or_empty(rows, f"{name}: nothing in it")

    def _or_empty(self, rows: Iterator[Row], message: str) -> Iterator[Row]:
        """``rows``, and a fault if they are none, and there is no other that says why."""
        before, none = len(self.faults), True
        for row in rows:
            none = False
            yield row
        if none and len(self.faults) == before:
            self.fault(message)
            self.empty += 1

    def _files(self, name: str, where: str) -> Iterator[Row]:
        """The files that one word stands for. One that does not exist stands for itself: its record says so."""
        name = locate(name, self._listings)
        paths = [name]
        if os.path.isdir(name):
            paths = self._folder(name)
            yield from self._or_empty((Row(path, where) for path in paths), f"no media file in {name}")
        elif glob.has_magic(name) and not os.path.lexists(name):
            forms = {name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))}
            matches = sorted({match for pattern in forms for match in glob.glob(pattern, recursive=True)})
            paths = each_once(path for match in matches for path in self._expanded(match))
            yield from self._or_empty((Row(path, where) for path in paths), f"{name}: no such file matches")
        else:
            yield Row(name, where)

    def _expanded(self, match: str) -> list[str]:
        return self._folder(match) if os.path.isdir(match) else [match]

    def _folder(self, name: str) -> list[str]:
        unreadable = lambda error: self.fault(f"{error.filename}: {error.strerror}")
        return list(map(str, walk(Path(name), VIDEO_SUFFIXES + AUDIO_SUFFIXES, unreadable)))

    def _list(self, data: bytes, where: str, base: Path | None, null: bool = False) -> Iterator[Row]:
        """A list of paths, or, if it begins as a JSON object, of objects as in a manifest."""
        if _is_json(data):
            yield from self._json(data, where, base)
            return
        text = textfiles.decode_paths(data)
        if null and "\0" not in text and "\n" in text.strip("\n"):
            raise UsageError(f"{where}: no NUL in it, but lines: leave out --null")
        if not null and "\0" in text and "\n" not in text.strip("\n"):
            raise UsageError(f"{where}: {_NULL}")
        for number, line in enumerate(text.split("\0") if null else textfiles.lines(text), start=1):
            if not line.strip():
                continue
            place = f"{where}:{number}"
            try:
                yield from self._files(_from(base, is_path(line)), place)
            except ValueError as error:
                self.fault(f"{place}: {_NULL if chr(0) in line else error}; line left out")

    def _json(self, data: bytes, where: str, base: Path | None) -> Iterator[Row]:
        lines = textfiles.lines(textfiles.decode(data, where))
        yield from self._placed(json_rows(lines, where, self.fault), base)

    def _placed(self, rows: Iterator[Row], base: Path | None) -> Iterator[Row]:
        for row in rows:
            video = locate(_from(base, row.video), self._listings)
            yield Row(video, row.where, row.texts, row.id, row.more)

    def fault(self, message: str) -> None:
        self.faults.append(_line(message))


_NULL = "paths separated by NULs: give them on stdin, with --null"


def _is_json(data: bytes) -> bool:
    """Whether the first character that is not blank opens an object, in any encoding that manifests may have."""
    head = data[:4096]
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head = head.replace(b"\0", b"")
    return head.removeprefix(codecs.BOM_UTF8).lstrip(b"\xff\xfe \t\r\n").startswith(b"{")


def _from(base: Path | None, path: str) -> str:
    """``path`` as seen from ``base``, or from here."""
    return str(base / path) if base is not None else path


def _line(message: str) -> str:
    """A file name may hold line breaks, a message may not."""
    return " ".join(message.splitlines())
