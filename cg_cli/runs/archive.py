"""Where records go: a JSONL file that is its own archive, or a stream.

A run that was killed leaves a file that the next one goes on with: a line torn in the middle of a write is cut off, what is
answered stays, failures are tried again, and the lines that the new attempts replace go when the run ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..errors import CgError, UsageError
from ..records import SCHEMA, Record, to_line
from .job import POISON

BEGINNING = f'{{"schema": "{SCHEMA}"'.encode()  # of every line
SYNC_S = 5.0  # seconds of records that a power failure may take


class Sink(Protocol):
    """Takes records, and knows those that were there before."""

    def claim(self, key: str, video: str) -> bool | None: ...

    def attempts(self, video: str, question: str, id: Any) -> int: ...

    def append(self, records: Sequence[Record]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _Settled:
    """A record that no run makes again."""

    video: str
    ok: bool


class Archive:
    """``path``, locked for this process until ``close``.

    Args:
        path: a regular file, or one that is not there yet; its folder exists.
        videos: paths of all files of this run. A settled record of another path counts for a file with its key: the file moved.
        overwrite: start from nothing.
        retry: try failures again.

    Raises:
        UsageError: the file holds something else than records.
        CgError: another process writes it, or it cannot be written.
    """

    def __init__(self, path: Path, videos: Collection[str], *, overwrite: bool = False, retry: bool = True):
        self.path = Path(os.path.realpath(path))  # a link stays one when the file behind it is replaced
        self._videos, self._retry = videos, retry
        self._settled: dict[str, list[_Settled]] = defaultdict(list)
        self._failed: dict[tuple[str, str, Any], int] = {}  # attempts of the failures in the file, by whom they are about
        self._stale = False  # whether a failure in the file has been tried again
        self._synced = time.monotonic()
        self.torn = 0  # bytes of a torn line that were cut off
        self._file = self._locked()
        try:
            if overwrite:
                self._file.truncate(0)
            self._size = self._mend()
            self._load()
        except BaseException:
            self._file.close()
            raise

    def claim(self, key: str, video: str) -> bool | None:
        """Whether the file has a record with ``key`` that is settled: True for an answer, False for a failure, None for neither.
        Each record is claimed once, so that two copies of a file have a record each."""
        known = self._settled.get(key, [])
        moved = [entry for entry in known if entry.video not in self._videos]
        for entry in [entry for entry in known if entry.video == video] + moved:
            known.remove(entry)
            return entry.ok
        return None

    def attempts(self, video: str, question: str, id: Any) -> int:
        """How often this failed before."""
        return self._failed.get((video, question, id), 0)

    def append(self, records: Sequence[Record]) -> None:
        """Write ``records``, a line each, at once. CgError, with the file as it was, if it cannot be done."""
        data = b"".join(to_line(record).encode() + b"\n" for record in records)
        try:
            self._write(data)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise CgError(f"cannot write {self.path}: {error.strerror}; the records before are safe") from error
        self._size += len(data)
        self._stale |= any((r.video, r.question, r.id) in self._failed for r in records)

    def close(self) -> None:
        """Drop the lines that later ones replace, and let the file go."""
        try:
            os.fsync(self._file.fileno())
            if self._stale:
                self._compact()
        except OSError as error:
            raise CgError(f"cannot write {self.path}: {error.strerror}") from error
        finally:
            self._file.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file.fileno(), view) :]
        if time.monotonic() - self._synced > SYNC_S:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def _locked(self) -> BinaryIO:
        """The file, open for reading and appending, with a lock that the kernel takes back when this process ends."""
        while True:
            try:
                file = open(self.path, "ab+", buffering=0)
            except OSError as error:
                raise UsageError(f"-o {self.path}: {error.strerror}") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise CgError(f"another cg batch is writing {self.path}: wait for it to end, or name another -o") from None
            except OSError as error:
                file.close()
                raise CgError(f"{self.path} cannot be locked ({error.strerror}): put it on a local disk") from error
            # The process that held the lock may have put a new file in the place of the one just opened.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                    return file
            file.close()

    def _mend(self) -> int:
        """End the file with a whole line. Returns its size in bytes."""
        self._file.seek(0)
        size = whole = 0
        last = b""
        for last in self._file_lines():
            size += len(last)
            whole = size if last.endswith(b"\n") else whole
        if size == whole:
            return size
        tail = last.strip(b"\0")  # what a file system may leave after a power failure
        with contextlib.suppress(ValueError):
            if json.loads(tail).get("schema") == SCHEMA and len(tail) == len(last):
                self._write(b"\n")
                return size + 1
        if not (tail.startswith(BEGINNING) or BEGINNING.startswith(tail)):
            raise UsageError(f"{self.path} does not end in a record of cg: name another -o, or --overwrite it")
        self._file.truncate(whole)
        self.torn = size - whole
        return whole

    def _load(self) -> None:
        for number, line in enumerate(self._file_lines(), start=1):
            if not line.strip():
                continue
            record = self._parsed(number, line)
            self._stale |= _about(record) in self._failed
            if record["ok"]:
                self._settled[record["key"]].append(_Settled(record["video"], True))
                continue
            if record["error"]["type"] == POISON or not self._retry:
                self._settled[record["key"]].append(_Settled(record["video"], False))
            self._failed[_about(record)] = max(self._failed.get(_about(record), 0), record.get("attempts", 1))

    def _compact(self) -> None:
        """Rewrite the file without the failures that a later line replaces, in one step."""
        lines = lambda: ((line, json.loads(line)) for line in self._file_lines() if line.strip())  # noqa: E731
        last = {_about(record): number for number, (_, record) in enumerate(lines()) if _about(record) in self._failed}
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                os.fchmod(file.fileno(), os.fstat(self._file.fileno()).st_mode & 0o7777)
                for number, (line, record) in enumerate(lines()):
                    if record["ok"] or last[_about(record)] == number:
                        file.write(line)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _file_lines(self):
        with open(self.path, "rb") as file:
            yield from file

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if record["schema"] != SCHEMA or not (record["ok"] or record["error"]["type"]):
                raise ValueError
            record["key"], record["video"], record["question"]
        except (ValueError, TypeError, KeyError):
            raise UsageError(
                f"{self.path}:{number} is no record of cg: name another -o, --overwrite it, or remove that line"
            ) from None
        return record


def _about(record: dict[str, Any]) -> tuple[str, str, Any]:
    return record["video"], record["question"], record.get("id")


class Stream:
    """Records on stdout, or into anything else that is no regular file; nothing is known from before."""

    def __init__(self, path: Path | None = None):
        self._name = str(path) if path else "stdout"
        try:
            self._file = open(path, "wb") if path else sys.stdout.buffer
        except OSError as error:
            raise UsageError(f"-o {path}: {error.strerror}") from error

    def claim(self, key: str, video: str) -> None:
        return None

    def attempts(self, video: str, question: str, id: Any) -> int:
        return 0

    def append(self, records: Sequence[Record]) -> None:
        """Write ``records`` at once. CgError if it cannot be done."""
        try:
            self._file.write(b"".join(to_line(record).encode() + b"\n" for record in records))
            self._file.flush()
        except OSError as error:
            reason = "whoever read it has left" if isinstance(error, BrokenPipeError) else error.strerror
            with contextlib.suppress(OSError, ValueError):  # what is still buffered must not be tried again at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            raise CgError(f"cannot write {self._name}: {reason}") from error

    def close(self) -> None:
        if self._file is not sys.stdout.buffer:
            self._file.close()


def open_sink(out: str, videos: Collection[str], *, overwrite: bool, retry: bool) -> Archive | Stream:
    """The place that ``-o`` names: ``-`` is stdout. Raises as ``Archive``."""
    if out == "-":
        return Stream()
    path = Path(out)
    if path.exists() and not path.is_file() and not path.is_dir():
        return Stream(path)
    if not path.parent.is_dir():
        raise UsageError(f"-o {out}: no such folder {path.parent}")
    return Archive(path, videos, overwrite=overwrite, retry=retry)
