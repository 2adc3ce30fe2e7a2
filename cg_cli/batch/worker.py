"""The process of one device: jobs on stdin, records on stdout (see ``cg_cli.util.ipc``). Started by ``pool``, never by
hand.

Decoding runs ahead in threads, each with a decode process of its own, so that the model finds the next clip ready.
How many clips wait is up to the parent, which sends no more than that.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from typing import Any

from cg_cli.batch.answerer import Answerer
from cg_cli.batch.job import Job
from cg_cli.errors import CgError
from cg_cli.media import DecodeWorker
from cg_cli.records import to_line
from cg_cli.settings.table import Settings
from cg_cli.util.ipc import send, serve


def main() -> None:
    """Serves until told to stop, or until the parent is gone."""
    out, requests = serve()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a scheduler warns the whole group; the parent tells what to do
    first = requests.get()
    try:
        answerer = Answerer(Settings(**first["settings"]))
    except CgError as error:
        send(out, {"event": "refused", "message": str(error), "exit_code": error.exit_code})
        return
    send(out, {"event": "ready", **answerer.ready})

    todo: queue.SimpleQueue = queue.SimpleQueue()
    ready: queue.SimpleQueue = queue.SimpleQueue()
    stopping = threading.Event()

    def receive() -> None:
        while True:
            message = requests.get()
            if message["event"] == "stop":
                stopping.set()
                ready.put(None)
                return
            todo.put(Job.from_message(message))

    def decode() -> None:
        with DecodeWorker() as worker:
            while True:
                job = todo.get()
                ready.put((job, answerer.read(job, worker)))

    for run in (receive, *[decode] * first["decoders"]):
        threading.Thread(target=run, daemon=True).start()
    while True:
        idle = time.perf_counter()
        got = ready.get()
        if got is None or stopping.is_set():
            return
        begun = time.perf_counter()
        job, reading = got
        send(out, {"event": "begun", "number": job.number})
        for record in answerer.answer(job, reading, lambda stage: send(out, {"event": "stage", "stage": stage})):
            send(out, {"event": "record", "number": job.number, "record": to_line(record)})
        timing: dict[str, Any] = {
            "waited_s": begun - idle,
            "worked_s": time.perf_counter() - begun,
            "read_s": reading.seconds,
        }
        send(out, {"event": "done", "number": job.number, **timing})


if __name__ == "__main__":
    main()
    sys.stdout.flush()
