"""One lock for processes on an open file: the kernel takes it back when its holder ends, however that happens."""

from __future__ import annotations

import fcntl
from typing import IO, Any


def lock(file: IO[Any], *, wait: bool) -> bool:
    """Lock an open file for this process alone, until it is closed.

    Returns:
        Whether it is locked; False only without ``wait``, where another process holds it.

    Raises:
        OSError: the file system knows no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
