"""Manifests: rows of questions about videos, as JSON lines or as a table.

A row has these fields. Their names may be written in any case and with spaces (``Video``, `` question``); of several
names for one field the first that the row has counts, and the others are passed on.

    video      a path, relative to the manifest; also ``path``, ``file``, ``filename``
    question   a text; also ``prompt``, ``query``
    questions  several of them: a list, in a table as JSON (``["What?", "Who?"]``)
    id         text or a number
    answer     the right one, in records ``expected``; also ``expected``, ``label``
    choices    two texts or more: a list, or a text that holds a JSON or Python list, or texts separated by ``|``, or
               else by ``;`` (``drum;clock``); also ``options``, ``candidates``

Any other key is passed on into the records of the row. Where it is one that records have themselves (``RESERVED``),
it is called ``manifest_KEY`` there: ``"correct": "B"`` becomes ``"manifest_correct": "B"``.

A fault of a row costs that row and is told by its line: no path, or one that cannot be one (a NUL); a number beyond
floats; nesting deeper than MAX_DEPTH; a key that stands twice; a lone surrogate; an id, question or choices of another
type; a table's row with more or fewer cells than its header. Where the rows themselves cannot be told apart, in
another encoding or after a quote that is not closed, the file is refused by that line.

Tables: the header tells the delimiter, a comma, semicolon, tab or ``|``; quotes as in RFC 4180; an empty cell is an
absent one; so is a column without a name if nothing stands in it, or if it is the first (an index).
"""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.questions import GOLD, Question
from cg_cli.records import Answer, Failure

ALIASES = {
    "video": ("video", "path", "file", "filename"),
    "question": ("question", "prompt", "query"),
    "questions": ("questions",),
    "id": ("id",),
    "answer": ("answer", "expected", "label"),
    "choices": ("choices", "options", "candidates"),
}
OWN_KEYS = ("video", "question", "questions", "id")  # never passed on
RESERVED = frozenset(
    {*Answer.model_fields, *Failure.model_fields, "schema", GOLD, "choices"}
    | {"correct", "copied_from", "shown", "benchmark"}
)
DELIMITERS = ",;\t|"
MAX_DEPTH = 32  # of lists and objects in a row
MAX_LIST = 10_000  # characters of a list of choices in a cell

Fault = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One row: the path in it, the line that it stands in (for messages), its own ``texts`` if it asks something, and
    what its questions have in common."""

    video: str
    where: str
    texts: tuple[str, ...] = ()
    id: str | int | None = None
    more: Mapping[str, Any] | None = None

    def questions(self, texts: Iterable[str]) -> list[Question]:
        """Its questions, or else ``texts``."""
        return [Question(text, self.id, self.more or {}) for text in self.texts or texts]


def json_rows(lines: Iterable[str], where: str, fault: Fault) -> Iterator[Row]:
    """The rows of JSON lines; ``fault`` gets a line about each that is none."""
    for number, line in enumerate(lines, start=1):
        line = line.strip().removeprefix("\ufeff")  # inside, where files were joined
        if not line:
            continue
        place = f"{where}:{number}"
        try:
            value = json.loads(line, parse_constant=_refuse, parse_float=_float, object_pairs_hook=_object)
        except RecursionError:
            fault(f"{place}: nested deeper than {MAX_DEPTH}; line left out")
        except ValueError as error:
            fault(f"{place}: not JSON ({error}); line left out")
        else:
            yield from _row(value, place, fault)


def table_rows(text: str, where: str, fault: Fault) -> Iterator[Row]:
    """The rows of a table.

    Raises:
        UsageError: its header names no video or a column twice, or a quote is not closed.
    """
    delimiter, spaced = _dialect(text, where)
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=spaced)
    try:
        names = [name.strip() for name in next(records)]
    except csv.Error as error:  # a space before a quote
        raise UsageError(f"{where}:1: {error}") from error
    if twice := _twice(_plain(name) for name in names if name):
        raise UsageError(f"{where}:1: two columns are called {twice!r}")
    while True:
        number = records.line_num + 1
        place = f"{where}:{number}"
        try:
            cells = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            at_end = str(error) == "unexpected end of data"
            if at_end or records.line_num > number:
                raise UsageError(_unclosed(text, where, number, delimiter)) from error
            advice = " (quotes in a quoted cell are doubled)" if "expected after" in str(error) else ""
            fault(f"{place}: {error}{advice}; line left out")
            continue
        if spaced:
            cells = [cell.strip() for cell in cells]
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            advice = f"a cell with {_name(delimiter)} in it needs quotes"
            fault(f"{place}: {len(cells)} cells under {len(names)} columns ({advice}); line left out")
        elif any(cell.startswith(" ") and cell.lstrip(" ").startswith('"') for cell in cells):
            fault(f"{place}: a space before a quote; line left out")
        elif any(cell.strip() and not name for name, cell in list(zip(names, cells))[1:]):
            fault(f"{place}: a cell under a column without a name; line left out")
        else:
            row: dict[str, Any] = {name: cell for name, cell in zip(names, cells) if name and cell}
            yield from _row(row, place, fault, table=True)


def is_path(path: str) -> str:
    """``path``, if it can be one. ValueError else."""
    if "\0" in path:
        raise ValueError("a NUL in a path")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError("a path with a lone surrogate") from None
    return path


def is_text(text: str) -> str:
    """``text``, if it is a question. ValueError if it is blank or no tokenizer can read it."""
    if not text.strip():
        raise ValueError("a question without text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate in a text") from None
    return text


def _row(value: Any, where: str, fault: Fault, table: bool = False) -> Iterator[Row]:
    try:
        if not isinstance(value, dict):
            raise ValueError("no 'video' (a path)")
        if _depth(value) > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        fields, more = _fields(value)
        video = fields.get("video")
        if not isinstance(video, str) or not video.strip():
            raise ValueError("no 'video' (a path)")
        is_path(video)
        texts = _texts(fields, table)
        if "answer" in fields:
            more[GOLD] = fields["answer"]
        if "choices" in fields:
            more["choices"] = _choices(fields["choices"])
            if isinstance(more.get(GOLD), list | dict):
                raise ValueError("'answer' to choices must be text")
        identity = _identity(fields.get("id"))
        try:
            json.dumps([texts, identity, more], ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a lone surrogate in a text") from None
    except ValueError as error:
        fault(f"{where}: {error}; line left out")
    else:
        yield Row(video, where, texts, identity, more)


def _fields(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that a row has, by their first names, and what is passed on."""
    keys: dict[str, str] = {}  # plain name -> key
    for key in row:
        plain = _plain(key)
        if key == plain or plain not in keys:
            keys[plain] = key
    fields: dict[str, Any] = {}
    used = set()
    for field, aliases in ALIASES.items():
        for key in (keys[alias] for alias in aliases if alias in keys):
            if row[key] is not None:
                fields[field] = row[key]
                used.add(key)
                break
    more = {}
    for key, value in row.items():
        if key in used or key in OWN_KEYS or (key in ALIASES and value is None):
            continue
        name = key
        while name in RESERVED or (name != key and name in row):
            name = f"manifest_{name}"
        more[name] = value
    return fields, more


def _texts(fields: Mapping[str, Any], table: bool) -> tuple[str, ...]:
    """The questions that a row asks itself, if any."""
    value = fields.get("questions", fields.get("question"))
    if value is None:
        return ()
    if table and "questions" in fields and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("'questions' begins as a list, and is no JSON") from None
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("'question' must be text, 'questions' a list of texts")
    return tuple(text.strip() for text in texts)


def _identity(value: Any) -> str | int | None:
    if isinstance(value, float):  # as pandas writes a column of numbers with a gap
        return json.dumps(value)
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return value
    raise ValueError("'id' must be text or a number")


def _choices(value: Any) -> list[str]:
    if isinstance(value, str):
        value = _listed_choices(value.strip())
    valid = isinstance(value, list) and all(
        isinstance(text, str | int | float) and not isinstance(text, bool) and str(text).strip() for text in value
    )
    if not valid or len(value) < 2:
        raise ValueError("'choices' must be two texts or more: a list, or separated by | or ;")
    return [str(text) for text in value]


def _listed_choices(text: str) -> Any:
    if text.startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
        try:  # ['drum', 'clock']: how pandas writes a column of lists
            with warnings.catch_warnings(action="ignore"):  # about backslashes
                return ast.literal_eval(text) if len(text) <= MAX_LIST else None
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return None
    separator = "|" if "|" in text else ";"
    return [choice.strip() for choice in text.strip(separator + " ").split(separator)]


def _depth(value: Any) -> int:
    """How deeply lists and objects are nested in ``value``."""
    depth, level = 0, [value]
    while level := [entry for entry in level if isinstance(entry, dict | list)]:
        depth += 1
        level = [child for entry in level for child in (entry.values() if isinstance(entry, dict) else entry)]
    return depth


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is beyond numbers")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError(f"{_twice(name for name, _ in pairs)!r} stands twice")
    return result


def _twice(names: Iterable[str]) -> str | None:
    """The first of ``names`` that came before."""
    before: set[str] = set()
    for name in names:
        if name in before:
            return name
        before.add(name)
    return None


def _plain(name: str) -> str:
    return "".join(name.split()).casefold()


def _dialect(text: str, where: str) -> tuple[str, bool]:
    """The delimiter under which the first line has most columns, one of them the video; and whether there are spaces
    after it ("video, question"), which then are no part of cells."""
    best = ","
    columns: list[str] = []
    errors = 0
    for delimiter in DELIMITERS:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
        except csv.Error:
            errors += 1
            continue
        if set(map(_plain, header)) & set(ALIASES["video"]) and len(header) > len(columns):
            best, columns = delimiter, header
    if errors == len(DELIMITERS):
        raise UsageError(_unclosed(text, where, 1, best))
    if not columns:
        names = ", ".join(ALIASES["video"][1:])
        raise UsageError(f"{where}: its first line must name the columns, and one of them 'video' (or {names})")
    return best, any(name != name.strip() for name in columns)


def _unclosed(text: str, where: str, number: int, delimiter: str) -> str:
    """What to say of the record that begins in line ``number``, one of whose quotes is not closed, or not at the end
    of its cell but lines after it began."""
    record = "".join(list(io.StringIO(text, newline=""))[number - 1 :])
    ends = rf"(?:{re.escape(delimiter)}|\r\n|\r|\n|\Z)"
    cell = re.compile(rf'(?: *"(?:[^"]+|"")*+"|(?! *")[^{re.escape(delimiter)}\r\n]*){ends}')
    at = 0
    while (match := cell.match(record, at)) and match.end() > at:
        at = match.end()
    line = number + len(list(io.StringIO(record[:at], newline="")))
    line -= bool(at) and record[at - 1] not in "\r\n"
    return (
        f"{where}:{line}: the quote that begins here is not closed where its cell ends: nothing of this file was used"
    )


def _name(delimiter: str) -> str:
    return "a tab" if delimiter == "\t" else f"'{delimiter}'"
