"""The process of one device: jobs on stdin, records on stdout (see ``cg_cli.util.ipc``). Started by ``pool``, never by
hand.

Files are decoded ahead in threads, each with a decode process of its own, so that the model finds the next clip ready.
How many clips wait is up to the parent, which sends no more than that. Answers of several clips are decoded together.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from cg_cli.batch.answerer import Answerer
from cg_cli.batch.job import Job
from cg_cli.engine.attempts import ClipQuestions, answer_together
from cg_cli.engine.session import Reading
from cg_cli.errors import CgError
from cg_cli.media import DecodeWorker
from cg_cli.records import Record, to_line
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
    _Loop(answerer, first["in_flight"], lambda **message: send(out, message)).run(ready, stopping)


def _end(arguments: threading.ExceptHookArgs) -> None:
    """A thread that fails ends the process, which the parent notices; without it the others would wait for ever."""
    sys.excepthook(arguments.exc_type, arguments.exc_value or SystemExit(), arguments.exc_traceback)
    os._exit(1)


class _Loop:
    """What the model does: clips are prefilled until a group of them waits, or no other is ready, and then decoded
    together."""

    def __init__(self, answerer: Answerer, in_flight: int, tell: Callable[..., None]):
        self.answerer, self.in_flight, self.tell = answerer, in_flight, tell
        self.waiting: list[tuple[Job, ClipQuestions, dict[str, float]]] = []

    def run(self, ready: queue.SimpleQueue, stopping: threading.Event) -> None:
        """Takes (job, reading) from ``ready`` until it gives None. What is prefilled is finished in any case."""
        while not stopping.is_set():
            idle = time.perf_counter()
            try:
                got = ready.get(block=not self.waiting)
            except queue.Empty:
                self.decode()
                continue
            if got is None:
                break
            job, reading = got
            timing = {"waited_s": time.perf_counter() - idle, "read_s": reading.seconds}
            if job.alone or self.in_flight == 1 or self.answerer.settings.show_dir:
                self.decode()
                self.answer(job, reading, timing)
            else:
                self.prefill(job, reading, timing)
                full = len(self.waiting) == self.in_flight
                if full or not self.answerer.room([clip for _, clip, _ in self.waiting]):
                    self.decode()
        self.decode()

    def answer(self, job: Job, reading: Reading, timing: dict[str, float]) -> None:
        """A clip by itself."""
        begun = time.perf_counter()
        self.tell(event="begun", number=job.number)
        self.finish(job, self.answerer.answer(job, reading, self._on_stage), timing, begun)

    def finish(self, job: Job, records: Iterator[Record], timing: dict[str, float], begun: float) -> None:
        """Send the records of a clip as they come, and that it is done; ``begun`` is when the model began with it."""
        for record in records:
            self.tell(event="record", number=job.number, record=to_line(record))
        self.tell(event="done", number=job.number, **timing, worked_s=time.perf_counter() - begun)

    def prefill(self, job: Job, reading: Reading, timing: dict[str, float]) -> None:
        """A clip, which then waits to be decoded with others, unless it has failed or shares no prefill."""
        begun = time.perf_counter()
        self.tell(event="begun", number=job.number)
        clip = self.answerer.prefill(job, reading, self._on_stage)
        if clip.kv_bytes is not None or (self.waiting and not clip.wants_memory):  # a failure keeps its place
            self.waiting.append((job, clip, timing | {"worked_s": time.perf_counter() - begun}))
            self.tell(event="waiting", number=job.number)
            return
        if clip.wants_memory:
            self.decode()  # those that wait give theirs back
            self.tell(event="begun", number=job.number)
        self.finish(job, clip.records(together=True), timing, begun)

    def decode(self) -> None:
        """The clips that wait, together."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        self.tell(event="together", numbers=[job.number for job, _, _ in waiting])
        begun = time.perf_counter()
        for at, record in answer_together([clip for _, clip, _ in waiting]):
            self.tell(event="record", number=waiting[at][0].number, record=to_line(record))
        share = (time.perf_counter() - begun) / len(waiting)
        for job, _, timing in waiting:
            self.tell(event="done", number=job.number, **timing | {"worked_s": timing["worked_s"] + share})

    def _on_stage(self, stage: str) -> None:
        self.tell(event="stage", stage=stage)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
