"""Reading files that somebody else may have made: regular ones of a bounded size, and JSON of a bounded depth."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

JSON_BYTES = 16 << 20  # the index of a checkpoint takes a few MiB at most


def read_bounded(path: Path, limit: int) -> bytes:
    """All bytes of a regular file of at most ``limit`` bytes. OSError for any other: it is not read, nor waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO without a writer opens at once
    except ValueError as error:  # a NUL, or half of a surrogate pair
        raise OSError(errno.EINVAL, "no name that a file can have", str(path)) from error
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit >> 20} MiB", str(path))
    return data


def read_json(path: Path, limit: int = JSON_BYTES) -> Any:
    """The JSON value in a file. OSError as for ``read_bounded``; ValueError for what is no JSON, or too deep."""
    try:
        return json.loads(read_bounded(path, limit).decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
