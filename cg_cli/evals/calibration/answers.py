"""The answers of a calibration in a JSONL file, a line a clip, as they are made: a run that was killed goes on from
there.

Every answer is under the key of the record that it would have (``engine.inputs``). So another model, predictor, pruner
or way of reading finds none of them, and what is asked again beside others is not asked twice. The file remembers, too,
what was tested on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cg_cli.errors import CgError, UsageError

SCHEMA = "cg.calibration/1"


def is_ours(path: Path) -> bool:
    """Whether a file begins as one of these, or is empty. OSError if it cannot be read; ValueError for what is no
    JSON."""
    with path.open("rb") as file:
        first = file.readline()
    return not first or json.loads(first).get("schema") == SCHEMA


class Answers:
    """The answers in ``file``.

    Attributes:
        damaged: lines that cannot be read; what they had is measured again.

    Raises:
        UsageError: it is a link, or cannot be opened.
    """

    def __init__(self, file: Path):
        self.file, self.damaged = file, 0
        self._cells: dict[tuple[str, str], dict[str, Any]] = {}  # by the key of an answer, and how it was asked
        self._tests: list[dict[str, Any]] = []
        if file.is_symlink():
            raise UsageError(f"{file} is a link: remove it, or name another -o")
        try:
            text = file.read_bytes() if file.exists() else b""
            if text and not text.endswith(b"\n"):  # a kill tore the last line
                text = text[: text.rfind(b"\n") + 1]
                os.truncate(file, len(text))
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from error
        for line in text.splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.damaged += 1

    def get(self, keys: Sequence[str], how: str) -> tuple[list[str], dict[str, float]] | None:
        """The texts under ``keys``, questions on one clip, and the seconds of each stage; None unless all are there."""
        cells = [self._cells.get((key, how)) for key in keys]
        if any(cell is None for cell in cells):
            return None
        found = [cell for cell in cells if cell is not None]
        return [cell["text"] for cell in found], found[0]["seconds"]

    def add(self, video: str, cells: Sequence[Mapping[str, Any]]) -> None:
        """Write what was measured on one clip: in each cell ``how`` it was asked, the ``keys``, the ``answers`` and the
        ``seconds``. CgError if it cannot be written."""
        if cells:
            self._write({"schema": SCHEMA, "video": video, "cells": list(cells)})

    def tested_before(self, test: Mapping[str, Any]) -> int:
        """How many other tests answers of the same ``whole`` were put to before this one, of which note is taken."""
        if test not in self._tests:
            self._write({"schema": SCHEMA, "test": dict(test)})
        before = self._tests[: self._tests.index(dict(test))]
        return sum(other["whole"] == test["whole"] for other in before)

    def _write(self, line: dict[str, Any]) -> None:
        try:
            with self.file.open("ab", buffering=0) as file:
                file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise CgError(f"cannot write {self.file}: {error.strerror}") from error
        self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        if line["schema"] != SCHEMA:
            raise ValueError("of another version")
        if "test" in line:
            if not isinstance(line["test"]["whole"], str):
                raise ValueError("no test")
            self._tests.append(dict(line["test"]))
            return
        cells = {
            (str(key), str(cell["how"])): {"text": text, "seconds": cell["seconds"]}
            for cell in line["cells"]
            for key, text in zip(cell["keys"], cell["answers"], strict=True)
        }
        if not all(isinstance(c["text"], str) and isinstance(c["seconds"], dict) for c in cells.values()):
            raise ValueError("no answers")
        self._cells |= cells
