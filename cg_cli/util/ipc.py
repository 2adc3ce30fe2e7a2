"""Messages between this process and its workers: a header, a JSON object, and raw bytes that belong to it.

A worker is a Python module run as a process of its own. It reads its stdin, writes its stdout, and ends with its
parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

HEADER = struct.Struct("<IQ")  # bytes of JSON, bytes of payload
PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
PARENT_CHECK_S = 1.0


def send(stream: IO[bytes], message: dict[str, Any], payload: memoryview | bytes = b"") -> None:
    """Writes one message and flushes. Raises BrokenPipeError where the other side is gone."""
    text = json.dumps(message).encode()  # ASCII: undecodable file names travel as escaped surrogates
    size = memoryview(payload).nbytes
    stream.write(HEADER.pack(len(text), size) + text)
    if size:
        stream.write(payload)
    stream.flush()


class Reader:
    """Takes messages off a byte source.

    Args:
        read: returns between 1 and n bytes for ``read(n)``, b"" at the end of the source.
    """

    def __init__(self, read: Callable[[int], bytes]):
        self._read = read

    def receive(self) -> tuple[dict[str, Any], bytearray]:
        """The next message. Raises EOFError when the source ends, also in the middle of a message."""
        text_size, payload_size = HEADER.unpack(self._exactly(HEADER.size))
        message = json.loads(bytes(self._exactly(text_size)))
        return message, self._exactly(payload_size)

    def _exactly(self, size: int) -> bytearray:
        data = bytearray()
        while len(data) < size:
            part = self._read(size - len(data))
            if not part:
                raise EOFError("the other side closed the pipe")
            data += part
        return data


def start(module: str, stderr: int | IO[bytes] | None, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start ``module`` as a worker; ``environment`` is added to this process's."""
    paths = [PACKAGE_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        # -P: a file named av.py in the current folder must not be imported.
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        start_new_session=True,  # Ctrl-C in the terminal is the parent's business
    )


@contextlib.contextmanager
def safe_path() -> Iterator[None]:
    """Processes that multiprocessing starts meanwhile do not import from the current folder, as ``start`` has it."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def serve() -> tuple[IO[bytes], queue.SimpleQueue[dict[str, Any]]]:
    """A worker's own side: where its messages go, and the queue in which its parent's arrive.

    Whatever else the process prints goes where its stderr goes. The process ends, whatever it is doing, when the parent
    closes the pipe or is gone.
    """
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests, os.getppid()), daemon=True).start()
    return out, requests


def _read_requests(requests: queue.SimpleQueue[dict[str, Any]], parent: int) -> None:
    def read(size: int) -> bytes:
        while not select.select([0], [], [], PARENT_CHECK_S)[0]:
            if os.getppid() != parent:  # a sibling may hold the pipe open
                os._exit(0)
        return os.read(0, size)

    reader = Reader(read)
    try:
        while True:
            requests.put(reader.receive()[0])
    except EOFError:
        os._exit(0)
