"""The process of a worker, as the pool sees it: messages to it and from it, its end, and why. Here one of this
machine."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from typing import Any, Protocol

from cg_cli.util.ipc import Reader, send, start

MODULE = "cg_cli.batch.worker"
STOP_TIMEOUT_S = 5.0
LAST_WORDS = 2000  # bytes of a dead worker's stderr that are looked at

OnMessage = Callable[[dict[str, Any] | None], None]  # None: the process has ended


class WorkerProcess(Protocol):
    """A worker somewhere. Its messages arrive in a thread, in order."""

    def send(self, message: dict[str, Any]) -> None:
        """One message; it is lost where the process has ended."""

    def cause_of_death(self) -> str:
        """Why the process ended, in words."""

    def kill(self) -> None:
        """End the process, whatever it is at, and let go what belongs to it."""


class LocalProcess:
    """A worker process of this machine."""

    def __init__(self, first: dict[str, Any], on_message: OnMessage):
        """Starts it; ``first`` is what it is told at once."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        debug = os.environ.get("CG_DEBUG") == "1"
        self._process = start(MODULE, None if debug else self._stderr, {})
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.send(first)
        self._thread = threading.Thread(target=self._read, args=(on_message,), daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a dead worker's end of the pipe; the reader tells of it
            send(self._stdin, message)

    def cause_of_death(self) -> str:
        """Its exit code or signal, and its last line on stderr."""
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._stderr.seek(max(0, self._stderr.seek(0, 2) - LAST_WORDS))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"{how}: {lines[-1].strip()}" if lines else how

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)
        self._thread.join(STOP_TIMEOUT_S)  # before its pipe is closed
        self._stderr.close()
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def _read(self, on_message: OnMessage) -> None:
        reader = Reader(self._stdout.read)
        with contextlib.suppress(EOFError, OSError, ValueError):  # it ended, or was killed and its pipe closed
            while True:
                on_message(reader.receive()[0])
        on_message(None)
