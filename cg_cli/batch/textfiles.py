"""Text that a user wrote, from a file or stdin: its kind and size are checked before it is read, its encoding after."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path
from typing import BinaryIO

from cg_cli.errors import UsageError

MAX_BYTES = 512 << 20  # of one manifest, list or file of questions

_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def read_file(path: Path) -> bytes:
    """All bytes of a regular file. UsageError if it is another kind of file, too large, or cannot be read."""
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):  # opening or reading a pipe or a device may never end
            kind = _KINDS.get(stat.S_IFMT(state.st_mode), "a device")
            raise UsageError(f"{path} is {kind}, not a file of text")
        if state.st_size > MAX_BYTES:
            raise UsageError(f"{path} has {state.st_size:,} bytes, and at most {MAX_BYTES:,} are read: split it")
        with path.open("rb") as file:
            return read_stream(file, str(path))
    except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in the path
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def read_stream(stream: BinaryIO, where: str) -> bytes:
    """All bytes of ``stream``. UsageError if they are too many or cannot be read."""
    try:
        data = stream.read(MAX_BYTES + 1)
    except OSError as error:  # of a folder, for one
        raise UsageError(f"{where}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{where}: more than {MAX_BYTES:,} bytes: split it")
    return data


def decode(data: bytes, where: str) -> str:
    """The text in ``data``: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises:
        UsageError: any other encoding, by the first line that shows it.
    """
    if data.startswith(_UTF32):
        raise UsageError(f"{where}:1: UTF-32: convert it, as by iconv -f UTF-32 -t UTF-8")
    encoding = _UTF16.get(data[:2], "utf-8")
    body = data.removeprefix(codecs.BOM_UTF8) if encoding == "utf-8" else data[2:]
    if encoding == "utf-8" and body[:64].count(0) > len(body[:64]) // 3:
        raise UsageError(f"{where}:1: UTF-16 without its mark: convert it, as by iconv -f UTF-16LE -t UTF-8")
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        line = body[: error.start].decode(encoding, "ignore").count("\n") + 1
        if encoding != "utf-8":
            raise UsageError(f"{where}:{line}: UTF-16 that is damaged here") from error
        byte = f"0x{body[error.start]:02x}"
        advice = "convert it, as by iconv -f WINDOWS-1252 -t UTF-8"
        raise UsageError(f"{where}:{line}: not UTF-8 (byte {byte}): {advice}") from error


def decode_paths(data: bytes) -> str:
    """The same for a list of paths: bytes that are no text stay what they are, as in ``os.fsdecode``, since a name may
    hold any."""
    if data[:2] in _UTF16 and not len(data) % 2:
        return decode(data, "list")
    return os.fsdecode(data.removeprefix(codecs.BOM_UTF8))


def lines(text: str) -> list[str]:
    """Only newlines end a line: JSON may hold other separators in its strings."""
    return [line.removesuffix("\r") for line in text.split("\n")]
