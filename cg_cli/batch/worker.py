"""The process of one device: jobs on stdin, records on stdout (see ``cg_cli.util.ipc``). Started by ``process``, never
by hand.

Files are decoded ahead in threads, each with a decode process of its own, so that the model finds the next clip ready.
There are more of them once the model waits. How many clips are ahead is up to the parent, which sends no more than
that.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import IO, Any

import psutil

from cg_cli.batch.answerer import Answerer
from cg_cli.batch.decoders import Decoders, Demand
from cg_cli.batch.job import Job
from cg_cli.batch.loop import Loop
from cg_cli.errors import CgError
from cg_cli.media import DecodeWorker
from cg_cli.settings.table import Settings
from cg_cli.util.ipc import send, serve


def main() -> None:
    """Serves until told to stop, or until the parent is gone."""
    out, requests = serve()
    threading.excepthook = _end
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a scheduler warns the whole group; the parent tells what to do
    first = requests.get()
    try:
        answerer = Answerer(Settings(**first["settings"]))
    except CgError as error:
        send(out, {"event": "refused", "message": str(error), "exit_code": error.exit_code})
        return
    send(out, {"event": "ready", **answerer.ready})
    _Worker(answerer, Decoders(*first["decoders"]), first["in_flight"], out).run(requests)


def _end(arguments: threading.ExceptHookArgs) -> None:
    """A thread that fails ends the process, which the parent notices; without it the others would wait for ever."""
    sys.excepthook(arguments.exc_type, arguments.exc_value or SystemExit(), arguments.exc_traceback)
    os._exit(1)


class _Worker:
    """The threads around a model: one takes the parent's messages, others decode files."""

    def __init__(self, answerer: Answerer, decoders: Decoders, in_flight: int, out: IO[bytes]):
        self.answerer, self.out = answerer, out
        self.demand = Demand(decoders.first, decoders.most)
        self.loop = Loop(answerer, in_flight, self.tell)
        self.todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.ready: queue.SimpleQueue = queue.SimpleQueue()
        self.stopping = threading.Event()

    def run(self, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
        """Until told to stop."""
        threading.Thread(target=self._receive, args=(requests,), daemon=True).start()
        self._decode_in(self.demand.count)
        self.loop.run(self.ready, self.stopping)

    def tell(self, **message: Any) -> None:
        """Send what the loop tells, and see whether its model lacks files."""
        send(self.out, message)
        if message["event"] != "done":
            return
        self.demand.add(message["waited_s"], message["worked_s"], starved=message["starved"])
        # With no file left to begin, more would have nothing to do.
        if not self.todo.empty() and (more := self.demand.grow(psutil.virtual_memory().available)):
            self._decode_in(more)
            send(self.out, {"event": "decoders", "count": self.demand.count})

    def _decode_in(self, threads: int) -> None:
        for _ in range(threads):
            threading.Thread(target=self._decode, daemon=True).start()

    def _decode(self) -> None:
        with DecodeWorker() as worker:
            while True:
                job = self.todo.get()
                self.ready.put((job, self.answerer.read(job, worker)))

    def _receive(self, requests: queue.SimpleQueue[dict[str, Any]]) -> None:
        while True:
            message = requests.get()
            if message["event"] == "stop":
                self.stopping.set()
                self.ready.put(None)
                return
            self.todo.put(Job.from_message(message))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
