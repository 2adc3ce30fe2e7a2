"""Where records go: a JSONL file that is its own archive, or a stream.

A run that was killed leaves a file that the next one goes on with: a line torn in the middle of a write is cut off,
what is answered stays, failures are tried again, and the lines that the new attempts replace go when the run ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from cg_cli.batch.history import History, about, about_record, read_lines
from cg_cli.errors import CgError, UsageError
from cg_cli.media.files import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from cg_cli.records import SCHEMA, Answer, Record, from_line, to_line
from cg_cli.util.atomic import atomic_path
from cg_cli.util.lock import lock
from cg_cli.util.outputs import check_output

BEGINNING = f'{{"schema": "{SCHEMA}"'.encode()  # of every line
# What people may expect to get by a suffix, and would not.
OTHER_FORMATS = (".csv", ".tsv", ".parquet", ".xlsx", ".arrow", ".db", ".sqlite", *VIDEO_SUFFIXES, *AUDIO_SUFFIXES)
REASONS = {errno.EPIPE: "whoever read it has left", errno.EBADF: "it is closed"}  # why a stream takes no record
SYNC_S = 5.0  # seconds of records that a power failure may take


class Sink(Protocol):
    """Takes records; ``history`` knows those that were there before."""

    history: History

    def append(self, records: Sequence[Record]) -> None: ...

    def answer(self, key: str) -> Answer | None: ...

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

    def __init__(self, path: Path, videos: Collection[str], *, overwrite: bool = False, retry: bool | None = None):
        self.path = Path(os.path.realpath(path))  # a link stays one when the file behind it is replaced
        self.history = History(videos, retry)
        self._synced = time.monotonic()
        self.torn = 0  # bytes of a torn line that were cut off
        self._new = not self.path.exists()
        self._lost = False
        self._file = self._locked()
        try:
            if overwrite:
                self._file.truncate(0)
            self._size = self._mend()
            for line in read_lines(self.path):
                self.history.add(line)
        except BaseException:
            self._file.close()
            raise

    def append(self, records: Sequence[Record]) -> None:
        """Write ``records``, a line each, at once. CgError, with the file as it was, if it cannot be done."""
        lines = [to_line(record).encode() + b"\n" for record in records]
        data = b"".join(lines)
        self._check(data)
        try:
            self._write(data)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            safe = "the records before are safe; make room, and run the same command again"
            raise CgError(f"cannot write {self.path}: {error.strerror}; {safe}") from error
        offset = self._size
        self._size += len(data)
        self.history.stale |= any(self.history.attempts(about_record(r)) for r in records)
        for record, line in zip(records, lines):
            if record.ok:
                self.history.remember_answer(record.key, offset)
            offset += len(line)

    def answer(self, key: str) -> Answer | None:
        """The answer with ``key`` in the file, whatever its video is called; None if there is none."""
        offset = self.history.answer_at(key)
        if offset is None:
            return None
        self._check()
        with open(self.path, "rb") as file:
            file.seek(offset)
            record = from_line(file.readline())
        return record if isinstance(record, Answer) else None

    def close(self) -> None:
        """Drop the lines that later ones replace, and let the file go. A new file that got no line is not left
        behind."""
        try:
            if self._lost:  # as was said when it was noticed
                return
            self._check()
            os.fsync(self._file.fileno())
            if self.history.stale:
                self._compact()
            elif self._new and not self._size:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise CgError(f"cannot write {self.path}: {error.strerror}") from error
        finally:
            self._file.close()

    def _check(self, more: bytes = b"") -> None:
        """CgError where another program removed, replaced or changed the file: its records and ``more`` are saved in
        one beside it."""
        own = os.fstat(self._file.fileno())
        try:
            same = os.path.samestat(own, os.stat(self.path))
            if same and own.st_size == self._size:
                return
            what = "was changed" if same else "was replaced"
        except OSError:
            same, what = False, "was removed"
        self._lost = True
        # The descriptor still reads a file whose name is gone; one that was changed is where it was.
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            file.seek(0)
            saved = _save_beside(self.path, more if same else file.read() + more)
        raise CgError(f"{self.path} {what} by another program while cg wrote it: {saved}")

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
                file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 (until close)
            except OSError as error:
                raise UsageError(f"-o {self.path}: {error.strerror}") from error
            try:
                locked = lock(file, wait=False)
            except OSError as error:
                file.close()
                raise CgError(f"{self.path} cannot be locked ({error.strerror}): put it on a local disk") from error
            if not locked:
                file.close()
                raise CgError(f"another cg batch is writing {self.path}: wait for it to end, or name another -o")
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
        for last in self._chunks():
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
            raise UsageError(f"{self.path} does not end in a record of cg: name another -o, or mend that line")
        self._file.truncate(whole)
        self.torn = size - whole
        return whole

    def _compact(self) -> None:
        """Rewrite the file without the failures that a later line replaces, in one step."""
        last = {
            about(line.record): line.offset
            for line in read_lines(self.path)
            if self.history.attempts(about(line.record))
        }
        with atomic_path(self.path, sync=True) as temporary, temporary.open("wb") as file:
            for line in read_lines(self.path):
                if line.record["ok"] or last.get(about(line.record), line.offset) == line.offset:
                    file.write(line.data)

    def _chunks(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            yield from file


def _save_beside(path: Path, data: bytes) -> str:
    """Write ``data`` to a new file in the folder of ``path``, or that of temporary files. Returns a clause that names
    it."""
    if not data:
        return "no record is lost"
    for folder in (path.parent, Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            descriptor, name = tempfile.mkstemp(prefix=f"{path.stem}-saved-", suffix=path.suffix, dir=folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            return f"the records are in {name}"
    return f"{len(data):,} bytes of records could not be saved"


class Stream:
    """Records on stdout, or into anything else that is no regular file; nothing is known from before."""

    def __init__(self, path: Path | None = None):
        self.history = History((), retry=None)
        self._name = str(path) if path else "stdout"
        try:
            self._file = open(path, "wb") if path else sys.stdout.buffer  # noqa: SIM115 (until close)
        except OSError as error:
            raise UsageError(f"-o {path}: {error.strerror}") from error

    def append(self, records: Sequence[Record]) -> None:
        """Write ``records`` at once. CgError if it cannot be done."""
        try:
            self._file.write(b"".join(to_line(record).encode() + b"\n" for record in records))
            self._file.flush()
        except OSError as error:
            reason = REASONS.get(error.errno or 0, error.strerror)
            with contextlib.suppress(OSError, ValueError):  # what is still buffered must not be tried again at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            raise CgError(f"cannot write {self._name}: {reason}") from error

    def answer(self, key: str) -> Answer | None:
        """None: what went into a stream cannot be read back."""
        return None

    def close(self) -> None:
        if self._file is not sys.stdout.buffer:
            self._file.close()


def open_sink(
    out: str, videos: Collection[str], *, inputs: Iterable[str | Path] = (), overwrite: bool, retry: bool | None
) -> Archive | Stream:
    """The place that ``-o`` names: ``-`` is stdout. ``inputs`` are read by the run, and never written. Raises as
    ``Archive``."""
    if out == "-":
        return Stream()
    path = Path(out)
    if path.suffix.lower() in OTHER_FORMATS:
        raise UsageError(f"-o {out}: records are JSON, one a line: name a .jsonl file")
    if path.exists() and not path.is_file() and not path.is_dir():
        return Stream(path)
    check_output("-o", path, inputs=[*inputs, *videos], is_ours=lambda path: _begins_as_ours(path) or not overwrite)
    return Archive(path, videos, overwrite=overwrite, retry=retry)


def _begins_as_ours(path: Path) -> bool:
    """Whether a file is empty, or its first line that is not blank begins as a record does: it may be written over."""
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    return not first or first.startswith(BEGINNING)
