"""DecodeWorker: decoding in a process of its own, that a deadline or a crash can take away and nothing else."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any, Self

import numpy as np

from cg_cli.errors import ItemError
from cg_cli.media.clip import Clip, DecodeOptions
from cg_cli.media.facts import Probe, StreamFacts
from cg_cli.util.ipc import Reader, send, start

START_TIMEOUT_S = 120.0  # a cold disk or a busy machine may take long to import PyAV
PROBE_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
REQUESTS_BEFORE_RENEWAL = 100  # libav's memory grows slowly over many files (PyAV issue 1117)


class DecodeWorker:
    """A decode process, started when first needed, replaced after a timeout, a crash, or many files.

    Use it as a context manager, from one thread at a time.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._reader: Reader | None = None
        self._selector: selectors.BaseSelector | None = None
        self._deadline = 0.0
        self._served = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id; None while no process runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def close(self) -> None:
        """Ends the process. The worker can be used again afterwards; it starts a new one."""
        if self._process is None:
            return
        self._process.kill()  # it holds no state worth saving
        self._process.wait(STOP_TIMEOUT_S)
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # what was still buffered for a dead process
                pipe.close()
        self._process = None

    def decode(self, path: str | os.PathLike[str], options: DecodeOptions = DecodeOptions()) -> Clip:
        """The Clip of a local file.

        Raises:
            ItemError: stage "media"; kind not_found, is_directory, not_a_file, empty, not_media, no_streams, too_large,
                unreadable, timeout, crashed, or no_decoder (it did not start). The worker stays usable.
        """
        shown = os.fspath(path)
        parts = _ClipParts(shown)
        request = {"task": "decode", "options": asdict(options)}
        return parts.clip(self._ask(request, shown, options.timeout_s, parts.add))

    def probe(self, path: str | os.PathLike[str], timeout_s: float = PROBE_TIMEOUT_S) -> Probe:
        """What a local file holds. Raises as ``decode``."""
        shown = os.fspath(path)
        answer = self._ask({"task": "probe"}, shown, timeout_s)
        streams = tuple(StreamFacts(**stream) for stream in answer.pop("streams"))
        return Probe(**answer | {"streams": streams, "warnings": tuple(answer["warnings"])})

    def _ask(self, request: dict[str, Any], shown: str, timeout_s: float, take=None) -> dict[str, Any]:
        """One request and its answer; ``take`` gets the messages before it. No failure leaves a rest in the pipe."""
        begun = False
        try:
            self._ready(shown)
            self._deadline = time.monotonic() + timeout_s
            self._served += 1
            send(self._process.stdin, request | {"path": os.path.abspath(shown), "shown": shown})
            while True:
                message, payload = self._reader.receive()
                event = message.pop("event")
                if event == "begun":
                    begun = True
                    continue
                if event == "done":
                    return message
                if event == "error":
                    raise ItemError("media", message["message"], message["kind"])
                take(message, payload)
        except ItemError:
            raise
        except TimeoutError:
            self.close()
            text = f"{shown!r} was not decoded within {timeout_s:g} s: allow more time, or re-encode the file"
            raise ItemError("media", text, "timeout") from None
        except (EOFError, BrokenPipeError):
            cause = self._cause_of_death()
            if not begun and self._served > 1:  # it died idle: not this file's fault, and a new process has served none
                return self._ask(request, shown, timeout_s, take)
            raise ItemError(
                "media", f"{shown!r} crashed the decoder ({cause}): re-encode the file", "crashed"
            ) from None
        except BaseException:  # Ctrl-C in the middle of an answer: the next request must not read its rest
            self.close()
            raise

    def _ready(self, shown: str) -> None:
        """Makes sure that a process waits for a request."""
        if self._served >= REQUESTS_BEFORE_RENEWAL or self.pid is None:
            self.close()
        if self._process is not None:
            return
        self._process, self._served = _start(), 0
        self._reader = Reader(self._read)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._deadline = time.monotonic() + START_TIMEOUT_S
        try:
            self._reader.receive()
        except (EOFError, TimeoutError):
            cause = self._cause_of_death()
            remedy = f"run `{sys.executable} -m cg_cli.media.worker` to see why"
            text = f"the decoder for {shown!r} did not start ({cause}): {remedy}"
            raise ItemError("media", text, "no_decoder") from None

    def _read(self, size: int) -> bytes:
        """Up to ``size`` bytes of the process's output. Raises TimeoutError at the deadline."""
        if not self._selector.select(max(0.0, self._deadline - time.monotonic())):
            raise TimeoutError
        return os.read(self._process.stdout.fileno(), size)

    def _cause_of_death(self) -> str:
        """Why the process ended, in words; forgets the process."""
        process = self._process
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        if code is None:
            return "it stopped answering"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _start() -> subprocess.Popen:
    # One BLAS thread: the pool's buffers would count against the memory limit.
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return start("cg_cli.media.worker", None if os.environ.get("CG_DEBUG") == "1" else subprocess.DEVNULL, threads)


class _ClipParts:
    """Collects the messages of a decode request."""

    def __init__(self, shown: str):
        self.shown = shown
        self.pixels = bytearray()
        self.sound = bytearray()
        self.size = (0, 0)
        self.times: list[float] = []
        self.serves: list[int] = []

    def add(self, message: dict[str, Any], payload: bytearray) -> None:
        """Takes a "frame" (it has a size) or "sound" message."""
        if "size" in message:
            self.size = message["size"]
            self.times.append(message["time"])
            self.serves.append(message["serves"])
            self.pixels += payload
        else:
            self.sound += payload

    def clip(self, summary: dict[str, Any]) -> Clip:
        """The Clip, from the parts and the summary."""
        frames = times = None
        if self.times:
            width, height = self.size
            frames = np.frombuffer(self.pixels, np.uint8).reshape(len(self.times), height, width, 3)
            frames = np.repeat(frames, self.serves, axis=0)
            times = np.repeat(np.asarray(self.times, np.float64), self.serves)
        used = summary["audio_status"] == "used"
        return Clip(
            path=self.shown,
            frames=frames,
            frame_times=times,
            seconds_per_frame=summary["seconds_per_frame"],
            audio=np.frombuffer(self.sound, np.float32) if used else None,
            audio_status=summary["audio_status"],
            duration_s=summary["duration_s"],
            source_width=summary["source_size"][0],
            source_height=summary["source_size"][1],
            complete=summary["complete"],
            warnings=tuple(summary["warnings"]),
        )


def decode(path: str | os.PathLike[str], options: DecodeOptions = DecodeOptions()) -> Clip:
    """The Clip of one local file, through a worker process of its own; see ``DecodeWorker.decode``."""
    with DecodeWorker() as worker:
        return worker.decode(path, options)


def probe(path: str | os.PathLike[str], timeout_s: float = PROBE_TIMEOUT_S) -> Probe:
    """What one local file holds, through a worker process of its own; see ``DecodeWorker.probe``."""
    with DecodeWorker() as worker:
        return worker.probe(path, timeout_s)
