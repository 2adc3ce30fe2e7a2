"""Where records go: a JSONL file that is its own archive, or a stream.

A run that was killed leaves a file that the next one goes on with: a line torn in the middle of a write is cut off,
what is answered stays, failures are tried again, and the lines that the new attempts replace go when the run ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from cg_cli.batch.history import History, about, parse
from cg_cli.errors import CgError, UsageError
from cg_cli.records import SCHEMA, Record, to_line

BEGINNING = f'{{"schema": "{SCHEMA}"'.encode()  # of every line
SYNC_S = 5.0  # seconds of records that a power failure may take


class Sink(Protocol):
    """Takes records; ``history`` knows those that were there before."""

    history: History

    def append(self, records: Sequence[Record]) -> None: ...

    def close(self) -> None: ...


class Archive:
    """``path``, locked for this process until ``close``.

    Args:
        path: a regular file, or one that is not there yet; its folder exists.
        videos, retry: as for ``History``.
        overwrite: start from nothing.

    Raises:
        UsageError: the file holds something else than records.
        CgError: another process writes it, or it cannot be written.
    """

    def __init__(self, path: Path, videos: Collection[str], *, overwrite: bool = False, retry: bool = True):
        self.path = Path(os.path.realpath(path))  # a link stays one when the file behind it is replaced
        self.history = History(videos, retry)
        self._synced = time.monotonic()
        self.torn = 0  # bytes of a torn line that were cut off
        self._new = not self.path.exists()
        self._file = self._locked()
        try:
            if overwrite:
                self._file.truncate(0)
            self._size = self._mend()
            self._load()
        except BaseException:
            self._file.close()
            raise

    def append(self, records: Sequence[Record]) -> None:
        """Write ``records``, a line each, at once. CgError, with the file as it was, if it cannot be done."""
        data = b"".join(to_line(record).encode() + b"\n" for record in records)
        try:
            self._write(data)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            safe = "the records before are safe; make room, and run the same command again"
            raise CgError(f"cannot write {self.path}: {error.strerror}; {safe}") from error
        self._size += len(data)
        self.history.stale |= any(self.history.attempts((r.video, r.question, r.id)) for r in records)

    def close(self) -> None:
        """Drop the lines that later ones replace, and let the file go. A new file that got no line is not left
        behind."""
        try:
            os.fsync(self._file.fileno())
            if self.history.stale:
                self._compact()
            elif self._new and not self._size:
                self.path.unlink(missing_ok=True)
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
                raise CgError(
                    f"another cg batch is writing {self.path}: wait for it to end, or name another -o"
                ) from None
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
        with contextlib.suppress(ValueError, AttributeError):
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
            if line.strip():
                self.history.add(parse(line, f"{self.path}:{number}"))

    def _compact(self) -> None:
        """Rewrite the file without the failures that a later line replaces, in one step."""
        lines = lambda: ((line, json.loads(line)) for line in self._file_lines() if line.strip())
        last = {
            about(record): number for number, (_, record) in enumerate(lines()) if self.history.attempts(about(record))
        }
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                os.fchmod(file.fileno(), os.fstat(self._file.fileno()).st_mode & 0o7777)
                for number, (line, record) in enumerate(lines()):
                    if record["ok"] or last.get(about(record), number) == number:
                        file.write(line)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _file_lines(self):
        with open(self.path, "rb") as file:
            yield from file


class Stream:
    """Records on stdout, or into anything else that is no regular file; nothing is known from before."""

    def __init__(self, path: Path | None = None):
        self.history = History((), retry=True)
        self._name = str(path) if path else "stdout"
        try:
            self._file = open(path, "wb") if path else sys.stdout.buffer
        except OSError as error:
            raise UsageError(f"-o {path}: {error.strerror}") from error

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
