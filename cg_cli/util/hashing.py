"""Hashes of whole files, remembered by path, size and times, so that a large file is read for its hash once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from pathlib import Path

from cg_cli.util.atomic import write_atomic
from cg_cli.util.folders import cache_dir

SMALL = 1 << 20  # bytes; below that hashing costs less than looking the hash up


def file_sha256(path: str | Path) -> str:
    """SHA-256 in hex of all bytes of a regular file. OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_sha256(path: str | Path) -> str:
    """``file_sha256``, from the cache where the file is as it was: same path, inode, size, and times of both the last
    write and the last change of its inode, which no program can set back. OSError if it cannot be read, or is not a
    regular file."""
    real = Path(os.path.realpath(path))
    before = os.stat(real)
    if not stat.S_ISREG(before.st_mode):
        raise OSError(f"{path} is not a regular file")
    if before.st_size < SMALL:
        return file_sha256(real)
    entry = cache_dir() / "sha256" / f"{hashlib.sha256(os.fsencode(real)).hexdigest()[:32]}.json"
    state = [before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(entry.read_text(encoding="utf-8"))
        if known["state"] == state:
            return str(known["sha256"])
    digest = file_sha256(real)
    after = os.stat(real)
    if state == [after.st_dev, after.st_ino, after.st_size, after.st_mtime_ns, after.st_ctime_ns]:
        with contextlib.suppress(OSError):  # a cache that cannot be written is no reason to fail
            entry.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(entry, json.dumps({"state": state, "sha256": digest}))
    return digest
