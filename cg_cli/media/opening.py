"""A regular file, opened for reading, or one clear line: loads no libav, so any process may ask."""

from __future__ import annotations

import os
import re
import stat
from typing import BinaryIO

from cg_cli.errors import ItemError

URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")


def quote(path: str) -> str:
    """A file name for a one-line message: quoted, with control characters escaped."""
    return repr(path)


def media_error(kind: str, path: str, text: str) -> ItemError:
    """The error of stage "media" about ``path`` as given by the user."""
    return ItemError("media", f"{quote(path)} {text}", kind)


def open_file(path: str, display_path: str) -> BinaryIO:
    """Opens a regular file for reading, unbuffered; ``display_path`` is its name in messages.

    Raises:
        ItemError: kind not_found, is_directory, not_a_file, empty or unreadable.
    """
    try:
        if not display_path:
            raise FileNotFoundError
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise media_error(
                "is_directory", display_path, "is a directory: name a file in it, or give the directory to `cg batch`"
            )
        if not stat.S_ISREG(status.st_mode):
            raise media_error(
                "not_a_file", display_path, "is a pipe, socket or device: copy it to a regular file first"
            )
        # Not blocking: the file may have become a pipe since.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        remedy = ": only local files are read, so download it first" if URL.match(display_path) else ": check the name"
        raise media_error("not_found", display_path, f"does not exist{remedy}") from None
    except OSError as error:
        raise media_error("unreadable", display_path, f"cannot be opened: {error.strerror}") from None
    file = open(descriptor, "rb", buffering=0)  # noqa: SIM115 (the caller closes it)
    if not os.fstat(descriptor).st_size:
        file.close()
        raise media_error("empty", display_path, "is empty (0 bytes): copy or download it again")
    return file
