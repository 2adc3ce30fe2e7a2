"""Messages between DecodeWorker and its process: a header, a JSON object, and raw bytes that belong to it."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

HEADER = struct.Struct("<IQ")  # bytes of JSON, bytes of payload


def send(stream: BinaryIO, message: dict[str, Any], payload: memoryview | bytes = b"") -> None:
    """Writes one message and flushes."""
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

    def __init__(self, read):
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
