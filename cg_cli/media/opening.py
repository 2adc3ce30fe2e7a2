"""A regular file, opened for reading, or one clear line: loads no libav, so any process may ask."""

from __future__ import annotations

import os
import re
import shlex
import stat
from typing import BinaryIO

from cg_cli.errors import ItemError
from cg_cli.media.files import AUDIO_SUFFIXES, VIDEO_SUFFIXES

URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")


def quote(path: str) -> str:
    """A file name for a one-line message: quoted, with control characters escaped."""
    return repr(path)


def media_error(kind: str, path: str, text: str) -> ItemError:
    """The error of stage "media" about ``path`` as given by the user."""
    return ItemError("media", f"{quote(path)} {text}", kind)


def web_address(path: str) -> str:
    """What a web address is and what to do with it; "" for anything else."""
    if not URL.match(path):
        return ""
    path = re.sub("^([^/:]+:)/(?!/)", r"\1//", path)  # of a Path, which has one slash less
    plain = path.partition("?")[0].lower().endswith((*VIDEO_SUFFIXES, *AUDIO_SUFFIXES))
    how = f"curl -LO {shlex.quote(path)}" if plain else f"yt-dlp -o 'video.%(ext)s' {shlex.quote(path)}"
    return f"is an address, and only local files are read: download it first, e.g. with {how}"


def open_file(path: str, display_path: str) -> BinaryIO:
    """Opens a regular file for reading, unbuffered; ``display_path`` is its name in messages.

    Raises:
        ItemError: kind not_found, is_directory, not_a_file, empty or no_access.
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
        text = web_address(display_path) or "does not exist: check the name"
        raise media_error("not_found", display_path, text) from None
    except OSError as error:
        raise media_error("no_access", display_path, f"cannot be opened: {error.strerror}") from None
    file = open(descriptor, "rb", buffering=0)  # noqa: SIM115 (the caller closes it)
    if not os.fstat(descriptor).st_size:
        file.close()
        raise media_error("empty", display_path, "is empty (0 bytes): copy or download it again")
    return file
