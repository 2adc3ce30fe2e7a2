"""Waiting for what a process does, instead of for a while."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable
from typing import IO, TypeVar

import psutil

T = TypeVar("T")

TIMEOUT_S = 60.0  # of a machine that is busy with other things
POLL_S = 0.01


def wait_until(predicate: Callable[[], T], timeout_s: float = TIMEOUT_S) -> T:
    """The first value of ``predicate`` that is true. AssertionError after ``timeout_s`` seconds without one."""
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        time.sleep(POLL_S)
    return value


def wait_for_line(process: subprocess.Popen[str], text: str, timeout_s: float = TIMEOUT_S) -> str:
    """The stderr of ``process``, a text pipe, up to its first line that holds ``text``. Read the rest from
    ``process.stderr``: ``communicate`` loses what was read ahead.

    Raises:
        AssertionError: the process ended without it, or was killed since it took longer than ``timeout_s``.
    """
    assert process.stderr is not None
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if text in line:
                return "".join(lines)
    finally:
        timer.cancel()
    raise AssertionError(f"no line with {text!r} in {''.join(lines)!r}")


def wait_for_output(stream: int | IO[str] | IO[bytes], timeout_s: float = TIMEOUT_S) -> None:
    """Until something can be read from ``stream``, which is left there."""
    assert select.select([stream], [], [], timeout_s)[0], f"no output within {timeout_s:g} s"


def drain(terminal: int) -> None:
    """Read from the end ``terminal`` of a pseudo-terminal until the other end is closed, and close it: a process cannot
    end while nobody reads what it has written."""
    with contextlib.suppress(OSError):  # how Linux tells the end
        while os.read(terminal, 4096):
            pass
    os.close(terminal)


def children(pid: int, module: str) -> list[int]:
    """The running children of process ``pid`` whose command line holds ``module``; none if it has ended."""
    matches = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if module in " ".join(child.cmdline()):
                    matches.append(child.pid)
    return matches
