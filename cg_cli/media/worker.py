"""The decode process: requests on stdin, messages on stdout (see ``cg_cli.util.ipc``). Started by DecodeWorker.

It imports PyAV but no torch, so the two cannot hang each other; it may be killed at any time, and ends with its parent.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import av
import numpy as np

from cg_cli.errors import ItemError
from cg_cli.media.clip import NVDEC, DecodeOptions
from cg_cli.media.decoding import decode_clip, probe_file, stated_duration
from cg_cli.media.hardware import failure
from cg_cli.media.opening import media_error
from cg_cli.util.ipc import send, serve

MEMORY_LIMIT = 1 << 30  # bytes of writable memory; a decoder that asks for more gets an error, not the machine's swap


def main() -> None:
    """Serves requests until stdin closes or the parent is gone."""
    out, requests = serve()
    _limit_memory()
    av.logging.set_level(av.logging.ERROR)  # demux.py counts the demuxer's errors
    av.logging.set_skip_repeated(False)
    send(out, {"event": "ready"})
    while True:
        request = requests.get()
        try:
            send(out, {"event": "begun"})
            answer = _serve(request, lambda message, array: send(out, message, array.data.cast("B")))
        except ItemError as error:
            answer = {"event": "error", "kind": error.kind, "message": str(error)}
        except MemoryError:
            answer = _error(
                request, "too_large", "needs more than 1 GiB of memory to decode: scale it down or shorten it first"
            )
        except Exception as error:  # any failure on one file must become its one line, and leave the process usable
            text = " ".join(f"{type(error).__name__}: {error}".split())
            answer = _error(request, "unreadable", f"could not be decoded ({text}): convert it to mp4 first")
            if os.environ.get("CG_DEBUG") == "1":
                sys.excepthook(type(error), error, error.__traceback__)
        send(out, answer)


def _serve(request: dict[str, Any], emit: Callable[[dict[str, Any], np.ndarray], None]) -> dict[str, Any]:
    path, display_path = request["path"], request["display_path"]
    if request["task"] == "probe":
        return {"event": "done", **asdict(probe_file(path, display_path))}
    if request["task"] == "stated_duration":
        return {"event": "done", "seconds": stated_duration(path, display_path)}
    options = DecodeOptions(**request["options"])
    try:
        return {"event": "done", **decode_clip(path, display_path, options, emit, request["max_bytes"])}
    except MemoryError:
        if options.decoder == NVDEC:
            raise failure("the card's driver left too little memory") from None
        raise


def _error(request: dict[str, Any], kind: str, text: str) -> dict[str, Any]:
    return {"event": "error", "kind": kind, "message": str(media_error(kind, request["display_path"], text))}


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the limit is not enforced, or counts address space
        most = resource.getrlimit(resource.RLIMIT_DATA)[1]  # a GPU's driver needs more than that (``hardware``)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, most))


if __name__ == "__main__":
    main()
