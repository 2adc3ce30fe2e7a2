"""What a worker's model does: from files that are read to records, several clips at a time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from cg_cli.batch.answerer import Answerer
from cg_cli.batch.check import Whole, with_check
from cg_cli.batch.job import Job
from cg_cli.engine.attempts import ClipQuestions, answer_together
from cg_cli.engine.session import Reading
from cg_cli.records import Record, to_line


class Loop:
    """Clips are prefilled until a group of them waits, or no other is ready, and then decoded together.

    What happens is told as events: "begun", "stage", "record" and "done" of one job, "waiting" once it is prefilled,
    and "together" of the jobs that are decoded. "done" says how long the model waited for the job and was at it, how
    long decoding its file took, and whether it was "starved": decoded before its group was full, as no other was ready.
    """

    def __init__(self, answerer: Answerer, in_flight: int, tell: Callable[..., None]):
        self.answerer, self.in_flight, self.tell = answerer, in_flight, tell
        self.waiting: list[tuple[Job, ClipQuestions, dict[str, float], float]] = []  # with the seconds of the prefill
        self.whole: dict[int, Whole] = {}  # of jobs in work that are checked

    def run(self, ready: queue.SimpleQueue, stopping: threading.Event) -> None:
        """Takes (job, reading) from ``ready`` until it gives None. What is prefilled is finished in any case."""
        while not stopping.is_set():
            idle = time.perf_counter()
            try:
                got = ready.get(block=not self.waiting)
            except queue.Empty:
                self.decode(starved=True)
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
                if full or not self.answerer.room([clip for _, clip, *_ in self.waiting]):
                    self.decode()
        self.decode()

    def answer(self, job: Job, reading: Reading, timing: dict[str, float]) -> None:
        """A clip by itself."""
        begun = time.perf_counter()
        self.tell(event="begun", number=job.number)
        self.check(job, reading)
        self.finish(job, self.answerer.answer(job, reading, self._on_stage), timing, begun)

    def check(self, job: Job, reading: Reading) -> None:
        """The whole clip, if it is to be answered, too: before the job itself, and gone before that needs memory."""
        if job.check:
            self.whole[job.number] = self.answerer.check(job, reading, self._on_stage)

    def finish(self, job: Job, records: Iterator[Record], timing: dict[str, float], begun: float) -> None:
        """Send the records of a clip as they come, and that it is done; ``begun`` is when the model began with it."""
        for record in records:
            self.record(job, record)
        self.done(job, timing, time.perf_counter() - begun)

    def record(self, job: Job, record: Record) -> None:
        self.tell(event="record", number=job.number, record=to_line(with_check(record, self.whole.get(job.number))))

    def done(self, job: Job, timing: dict[str, float], worked_s: float, *, starved: bool = False) -> None:
        self.whole.pop(job.number, None)
        self.tell(event="done", number=job.number, **timing, worked_s=worked_s, starved=starved)

    def prefill(self, job: Job, reading: Reading, timing: dict[str, float]) -> None:
        """A clip, which then waits to be decoded with others, unless it has failed or shares no prefill."""
        if job.check:
            self.decode()  # those that wait give their memory to the whole clip
        begun = time.perf_counter()
        self.tell(event="begun", number=job.number)
        self.check(job, reading)
        clip = self.answerer.prefill(job, reading, self._on_stage)
        if clip.kv_bytes is not None or (self.waiting and not clip.wants_memory):  # a failure keeps its place
            self.waiting.append((job, clip, timing, time.perf_counter() - begun))
            self.tell(event="waiting", number=job.number)
            return
        if clip.wants_memory:
            self.decode()  # those that wait give theirs back
            self.tell(event="begun", number=job.number)
        self.finish(job, clip.records(together=True), timing, begun)

    def decode(self, *, starved: bool = False) -> None:
        """The clips that wait, together."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        self.tell(event="together", numbers=[job.number for job, *_ in waiting])
        begun = time.perf_counter()
        for at, record in answer_together([clip for _, clip, *_ in waiting]):
            self.record(waiting[at][0], record)
        share = (time.perf_counter() - begun) / len(waiting)
        for job, _, timing, prefill_s in waiting:
            self.done(job, timing, prefill_s + share, starved=starved)

    def _on_stage(self, stage: str) -> None:
        self.tell(event="stage", stage=stage)
