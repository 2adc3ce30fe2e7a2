"""DecodeWorker: decoding in a process of its own, so that a timeout or a crash ends that process and nothing else."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Self

import numpy as np
import psutil

from cg_cli.errors import ItemError
from cg_cli.media.clip import CPU, HARDWARE, NVDEC, ON_THE_CPU, Clip, DecodeOptions
from cg_cli.media.metadata import Probe, StreamInfo
from cg_cli.util.ipc import Reader, send, start

START_TIMEOUT_S = 120.0  # a cold disk or a busy machine may take long to import PyAV
PROBE_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
REQUESTS_BEFORE_RENEWAL = 100  # libav's memory grows slowly over many files (PyAV issue 1117)

MEMORY_SHARE = 3  # a clip may take one part in this many of the memory that is free

_DEFAULTS = DecodeOptions()

OnMessage = Callable[[dict[str, Any], bytearray], None]


class DecodeWorker:
    """A decode process, started when first needed, replaced after a timeout, a crash, or many files.

    Use it as a context manager, from one thread at a time.
    """

    def __init__(self) -> None:
        self._process: _Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id; None while no process runs."""
        return self._process.popen.pid if self._process and self._process.popen.poll() is None else None

    def close(self) -> None:
        """Ends the process. The worker can be used again afterwards; it starts a new one."""
        if self._process is not None:
            self._process.kill()  # it holds no state worth saving
            self._process = None

    def decode(self, path: str | os.PathLike[str], options: DecodeOptions = _DEFAULTS) -> Clip:
        """The Clip of a local file.

        Raises:
            ItemError: stage "media"; kind not_found, is_directory, not_a_file, no_access, empty, not_media, encrypted,
                no_streams, no_track, too_large, unreadable, timeout, crashed, or no_decoder (it did not start). The
                worker stays usable.
        """
        try:
            return self._decode(path, options)
        except ItemError as error:
            if options.decoder != NVDEC or error.kind not in (HARDWARE, "crashed"):
                raise
            reason = "the card's driver crashed" if error.kind == "crashed" else str(error)
        clip = self._decode(path, replace(options, decoder=CPU))
        return replace(clip, warnings=(*clip.warnings, ON_THE_CPU + reason))

    def _decode(self, path: str | os.PathLike[str], options: DecodeOptions) -> Clip:
        display_path = os.fspath(path)
        builder = _ClipBuilder(display_path)
        request = {"task": "decode", "options": asdict(options), "max_bytes": _memory_for_a_clip()}
        clip = builder.clip(self._request(request, display_path, options.timeout_s, builder.add))
        return replace(clip, look_once=options.look_once)

    def probe(self, path: str | os.PathLike[str], timeout_s: float = PROBE_TIMEOUT_S) -> Probe:
        """The metadata of a local file, in at most ``timeout_s`` seconds. Raises as ``decode``."""
        display_path = os.fspath(path)
        answer = self._request({"task": "probe"}, display_path, timeout_s)
        streams = tuple(StreamInfo(**stream) for stream in answer.pop("streams"))
        return Probe(**answer | {"streams": streams, "warnings": tuple(answer["warnings"])})

    def stated_duration(self, path: str | os.PathLike[str], timeout_s: float = PROBE_TIMEOUT_S) -> float | None:
        """Seconds that the header of a local file states; None if it states none. Raises as ``decode``."""
        seconds: float | None = self._request({"task": "stated_duration"}, os.fspath(path), timeout_s)["seconds"]
        return seconds

    def _request(
        self, request: dict[str, Any], display_path: str, timeout_s: float, on_message: OnMessage | None = None
    ) -> dict[str, Any]:
        """One request and its answer; ``on_message`` gets the messages before it.

        No failure leaves unread messages in the pipe: where any may be left, the process is ended.
        """
        begun = False
        try:
            process = self._running_process(display_path)
            process.deadline = time.monotonic() + timeout_s
            process.requests += 1
            send(process.stdin, request | {"path": os.path.abspath(display_path), "display_path": display_path})
            while True:
                message, payload = process.reader.receive()
                event = message.pop("event")
                if event == "begun":
                    begun = True
                elif event == "done":
                    return message
                elif event == "error":
                    raise ItemError("media", message["message"], message["kind"])
                elif on_message is not None:
                    on_message(message, payload)
        except ItemError:
            raise
        except TimeoutError:
            self.close()
            text = f"{display_path!r} was not decoded within {timeout_s:g} s: allow more time, or re-encode the file"
            raise ItemError("media", text, "timeout") from None
        except (EOFError, BrokenPipeError):
            self._process = None
            cause = process.exit_cause()
            if not begun and process.requests > 1:  # it died idle: not this file's fault, so a new process gets it
                return self._request(request, display_path, timeout_s, on_message)
            text = f"{display_path!r} crashed the decoder ({cause}): re-encode the file"
            raise ItemError("media", text, "crashed") from None
        except BaseException:  # Ctrl-C in the middle of an answer: the next request must not read its rest
            self.close()
            raise

    def _running_process(self, display_path: str) -> _Process:
        """A process that waits for a request; the present one, unless it has ended or served enough of them."""
        if self._process is not None and (self._process.requests >= REQUESTS_BEFORE_RENEWAL or self.pid is None):
            self.close()
        if self._process is None:
            self._process = process = _Process()
            try:
                process.reader.receive()
            except (EOFError, TimeoutError):
                self._process = None
                remedy = f"run `{sys.executable} -m cg_cli.media.worker` to see why"
                text = f"the decoder for {display_path!r} did not start ({process.exit_cause()}): {remedy}"
                raise ItemError("media", text, "no_decoder") from None
        return self._process


class _Process:
    """A started decode process: its pipes, how many requests it got, and the deadline of the present one."""

    def __init__(self) -> None:
        # One BLAS thread: the pool's buffers would count against the memory limit.
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        stderr = None if os.environ.get("CG_DEBUG") == "1" else subprocess.DEVNULL
        self.popen = start("cg_cli.media.worker", stderr, threads)
        assert self.popen.stdin is not None and self.popen.stdout is not None  # ``start`` opens both
        self.stdin, self._stdout = self.popen.stdin, self.popen.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self.reader = Reader(self._read)
        self.deadline = time.monotonic() + START_TIMEOUT_S
        self.requests = 0

    def kill(self) -> None:
        """Ends the process and closes its pipes."""
        self.popen.kill()
        self.popen.wait(STOP_TIMEOUT_S)
        self._selector.close()
        for pipe in (self.stdin, self._stdout):
            with contextlib.suppress(BrokenPipeError):  # what was still buffered for a dead process
                pipe.close()

    def exit_cause(self) -> str:
        """Why the process ended: its exit code or signal. Waits up to STOP_TIMEOUT_S for it, then kills it."""
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.popen.wait(STOP_TIMEOUT_S)
        self.kill()
        if code is None:
            return "it stopped answering"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _read(self, size: int) -> bytes:
        """Up to ``size`` bytes of the process's output. Raises TimeoutError at the deadline."""
        if not self._selector.select(max(0.0, self.deadline - time.monotonic())):
            raise TimeoutError
        return os.read(self._stdout.fileno(), size)


class _ClipBuilder:
    """Collects the messages of a decode request into a Clip."""

    def __init__(self, display_path: str):
        self.display_path = display_path
        self.pixels = bytearray()
        self.samples = bytearray()
        self.size = (0, 0)
        self.times: list[float] = []
        self.repeats: list[int] = []

    def add(self, message: dict[str, Any], payload: bytearray) -> None:
        """Takes a "frame" message (it has a size) or an "audio" message."""
        if "size" in message:
            self.size = message["size"]
            self.times.append(message["time"])
            self.repeats.append(message["repeats"])
            self.pixels += payload
        else:
            self.samples += payload

    def clip(self, summary: dict[str, Any]) -> Clip:
        """The Clip, from the messages and the summary."""
        frames = times = None
        if self.times:
            width, height = self.size
            frames = np.frombuffer(self.pixels, np.uint8).reshape(len(self.times), height, width, 3)
            if any(count > 1 for count in self.repeats):
                frames = np.repeat(frames, self.repeats, axis=0)
            times = np.repeat(np.asarray(self.times, np.float64), self.repeats)
        used, starts = summary["audio_status"] == "used", summary["grid_starts"]
        return Clip(
            path=self.display_path,
            frames=frames,
            frame_times=times,
            seconds_per_frame=summary["seconds_per_frame"],
            audio=np.frombuffer(self.samples, np.float32) if used else None,
            audio_status=summary["audio_status"],
            duration_s=summary["duration_s"],
            source_width=summary["source_size"][0],
            source_height=summary["source_size"][1],
            audio_track=summary["audio_track"],
            grid_starts=None if starts is None else np.asarray(starts, np.float64),
            complete=summary["complete"],
            warnings=tuple(summary["warnings"]),
        )


def _memory_for_a_clip() -> int:
    """Bytes that a clip's pixels and samples may take, of those that are free now: a third, since frames may be
    copied once, and the model needs room."""
    return psutil.virtual_memory().available // MEMORY_SHARE


def decode(path: str | os.PathLike[str], options: DecodeOptions = _DEFAULTS) -> Clip:
    """The Clip of one local file, through a worker process of its own; see ``DecodeWorker.decode``."""
    with DecodeWorker() as worker:
        return worker.decode(path, options)


def probe(path: str | os.PathLike[str], timeout_s: float = PROBE_TIMEOUT_S) -> Probe:
    """The metadata of one local file, through a worker process of its own; see ``DecodeWorker.probe``."""
    with DecodeWorker() as worker:
        return worker.probe(path, timeout_s)
