"""Files that are whole or not there: the one way in which this package replaces a file."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A new, empty file beside ``path`` to write to. It takes the place of ``path`` when the block ends, and is removed
    when the block raises. Its name cannot be guessed, and it has the mode of the file that it replaces. A
    link at ``path`` is replaced, not followed.

    Args:
        sync: have the data on the disk before the file is replaced, so that a power failure leaves one of the two.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}{path.suffix}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        with contextlib.suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):  # a link is replaced, and says nothing
                os.fchmod(descriptor, mode & 0o777)
        yield temporary
        if sync:
            written = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(written)
            finally:
                os.close(written)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes | str, *, sync: bool = False) -> None:
    """Make ``path`` hold ``data`` (text as UTF-8), in one step for whoever reads it. OSError as for any write."""
    with atomic_path(path, sync=sync) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
