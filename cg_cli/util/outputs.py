"""Output never destroys input: what a file may be written over is only what this program wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from cg_cli.errors import UsageError


def check_output(
    option: str,
    path: Path,
    *,
    inputs: Iterable[str | Path] = (),
    is_ours: Callable[[Path], bool] = lambda path: False,
) -> None:
    """Refuse, before anything slow begins, a file that cannot or must not be written.

    Args:
        option: that names it, for the message.
        inputs: what this run reads; none of them may be written, by whatever path, link or spelling it is named.
        is_ours: whether an existing file was written by this program, so that it may be written over.

    Raises:
        UsageError: its folder does not exist, it is a folder or an input, or it is somebody else's file.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: no such folder {path.parent}")
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from error
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder: name a file in it")
    for source in inputs:
        try:
            same = os.path.samestat(status, os.stat(source))
        except (OSError, ValueError):  # ValueError: a NUL in a path
            continue
        if same:
            raise UsageError(f"{option} {path} is an input of this run ({source}): name another file")
    if path.is_file() and not is_replaceable(path, is_ours):
        raise UsageError(f"{option} {path} exists, and cg did not write it: name another file, or move that one away")


def is_replaceable(path: Path, is_ours: Callable[[Path], bool]) -> bool:
    """Whether an existing file may be written over: ``is_ours`` says so, and it can be read at all."""
    try:
        return is_ours(path)
    except (OSError, ValueError):
        return False
