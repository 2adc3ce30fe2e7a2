"""Workers, one a device: work is shared by a queue, and a worker that dies costs its item one attempt, others none.

This side loads no model and imports no torch, so it outlives whatever happens on a device.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cg_cli.batch.decoders import Decoders
from cg_cli.batch.job import MAX_ATTEMPTS, Job, poisoned
from cg_cli.batch.process import LocalProcess, OnMessage, WorkerProcess
from cg_cli.errors import CgError, ItemError, UsageError
from cg_cli.records import Record, from_line
from cg_cli.settings import models
from cg_cli.settings.table import Settings

LOOK_S = 0.2  # seconds until a request to stop is noticed
IN_FLIGHT = 8  # clips whose questions are decoded together: with more, little is won
MAX_POISONED = 3  # questions of one clip that may kill a worker, until the rest of them are poison, too
MAX_IDLE_DEATHS = 3  # workers for each device that may die one after another without having begun anything


@dataclass(frozen=True)
class Outcome:
    """News of the job with this ``number``.

    Attributes:
        records: of its next questions, in order.
        error: what the question after those ended in; once the job is ``done``, all that are left.
        done: there is no more to come.
        waited_s: how long the model had nothing to do before the job.
        worked_s: how long the model was at it.
        read_s: how long decoding took.
    """

    number: int
    records: tuple[Record, ...] = ()
    error: ItemError | None = None
    done: bool = True
    waited_s: float = 0.0
    worked_s: float = 0.0
    read_s: float = 0.0


@dataclass
class _Task:
    """A job, how many of its questions are settled, how many workers have died at it, and how many of its questions are
    poison."""

    job: Job
    settled: int = 0
    deaths: int = 0
    poisoned: int = 0


@dataclass
class _Worker:
    """One process, and what it has to do.

    Attributes:
        decoders: files that it decodes at a time.
        begun: its model has had something to do.
        stopping: it was told to stop.
        current: numbers of the tasks that the model is at: one, or those decoded together.
    """

    decoders: int
    process: WorkerProcess = field(init=False)
    ready: bool = False
    begun: bool = False
    stopping: bool = False
    tasks: dict[int, _Task] = field(default_factory=dict)
    current: list[int] = field(default_factory=list)
    stage: str = "encode"

    def give(self, task: _Task) -> None:
        self.tasks[task.job.number] = task
        self.process.send({"event": "job", **task.job.to_message()})


@dataclass
class Pool:
    """Answers jobs on ``devices``.

    Attributes:
        settings: what each worker does; its ``device`` is one of ``devices``.
        decoders: files that a worker decodes at a time, ahead of its model.
        in_flight: clips whose questions are decoded together, at most.
        launch: starts a worker, given the first message to it and who takes those from it.
    """

    settings: Settings
    devices: Sequence[str]
    decoders: Decoders
    in_flight: int = IN_FLIGHT
    launch: Callable[[dict[str, Any], OnMessage], WorkerProcess] = LocalProcess
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _events: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    _again: deque[_Task] = field(default_factory=deque)
    _stopping: bool = False
    _idle_deaths: int = 0

    def prepare(self, tell: Callable[[str], None]) -> None:
        """Have the model on this machine, so that no worker waits for another's download; ``tell`` is told of one."""
        models.fetch(self.settings, tell, import_torch=False)

    def start(self) -> dict[str, Any]:
        """Start the workers, and wait for the first to be ready.

        Returns:
            Its message: ``inputs``, what all answers depend on besides video and question, and ``facts`` about it.

        Raises:
            UsageError: the settings cannot be carried out.
            CgError: no worker starts.
            KeyboardInterrupt: ``stop`` was called meanwhile.
        """
        for slot in range(len(self.devices)):
            self._start(slot)
        while True:
            if self._stopping:
                raise KeyboardInterrupt
            worker_slot, message = self._next()
            for _ in self._take(worker_slot, message):
                pass  # nobody has work yet
            if message and message["event"] == "ready":
                return message

    def run(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        """What becomes of ``jobs``, numbered as they come: the records of each in order, its end once."""
        tasks = (_Task(job) for job in jobs)
        while self._feed(tasks):
            slot, message = self._next()
            yield from self._take(slot, message)

    def stop(self) -> None:
        """Begin nothing more: ``run`` ends with what the models are at. Safe in a signal handler."""
        self._stopping = True

    def close(self) -> None:
        """End the workers, whatever they are at."""
        for worker in self._workers.values():
            worker.process.kill()
        self._workers.clear()

    def _start(self, slot: int) -> None:
        self._workers[slot] = worker = _Worker(self.decoders.first)
        settings = replace(self.settings, device=self.devices[slot])
        first = {"settings": asdict(settings), "decoders": self.decoders, "in_flight": self.in_flight}
        worker.process = self.launch(first, lambda message: self._events.put((worker, message)))

    def _next(self) -> tuple[int | None, dict[str, Any] | None]:
        """A worker's number and message (None: it ended), or (None, {}) when it is time to look around."""
        try:
            worker, message = self._events.get(timeout=LOOK_S)
        except queue.Empty:
            return None, {}
        slot = next((s for s, w in self._workers.items() if w is worker), None)
        return (slot, message) if slot is not None else (None, {})  # of a worker that has been replaced

    def _feed(self, tasks: Iterator[_Task]) -> bool:
        """Give every worker enough to do. False when there is nothing left, and nobody at work."""
        if self._stopping:
            for slot, worker in list(self._workers.items()):
                if not worker.ready:
                    worker.process.kill()
                    del self._workers[slot]
                elif not worker.stopping:
                    worker.stopping = True
                    worker.process.send({"event": "stop"})
            return bool(self._workers)
        held = self.in_flight + 1  # those at the model, and one ready
        while idle := [w for w in self._workers.values() if w.ready and len(w.tasks) < w.decoders + held]:
            task = self._again.popleft() if self._again else next(tasks, None)
            if task is None:
                return any(w.tasks for w in self._workers.values())
            min(idle, key=lambda w: len(w.tasks)).give(task)
        return True

    def _take(self, slot: int | None, message: dict[str, Any] | None) -> Iterator[Outcome]:
        if slot is None:
            return
        worker = self._workers[slot]
        match message:
            case None:
                yield from self._on_worker_exit(slot, worker)
            case {"event": "refused"}:
                kind = UsageError if message["exit_code"] == UsageError.exit_code else CgError
                raise kind(message["message"])
            case {"event": "ready"}:
                worker.ready = True
            case {"event": "decoders"}:
                worker.decoders = message["count"]
            case {"event": "begun"}:
                worker.begun, worker.current, worker.stage = True, [message["number"]], "encode"
            case {"event": "waiting"}:
                worker.current = []
            case {"event": "together"}:
                worker.current, worker.stage = list(message["numbers"]), "decode"
            case {"event": "stage"}:
                worker.stage = message["stage"]
            case {"event": "record"}:
                worker.tasks[message["number"]].settled += 1
                yield Outcome(message["number"], (from_line(message["record"]),), done=False)
            case {"event": "done"}:
                self._idle_deaths = 0
                worker.current = [number for number in worker.current if number != message["number"]]
                del worker.tasks[message["number"]]
                timing = {name: message[name] for name in ("waited_s", "worked_s", "read_s")}
                yield Outcome(message["number"], **timing)

    def _on_worker_exit(self, slot: int, worker: _Worker) -> Iterator[Outcome]:
        """A worker ended: the task that its model was at has one attempt less, the others wait for the next worker."""
        del self._workers[slot]
        device, cause = self.devices[slot], worker.process.cause_of_death()
        worker.process.kill()
        if self._stopping:
            return
        blamed = [worker.tasks.pop(number) for number in worker.current]
        self._again.extend(worker.tasks.values())
        if len(blamed) == 1:
            killed = f"{blamed[0].job.video!r} killed its worker on {device} ({cause})"
            yield from self._blame(blamed[0], worker.stage, killed)
        elif blamed:  # nobody knows which of them it was: one by one it shows
            for task in blamed:
                if task.settled == len(task.job.questions):
                    yield Outcome(task.job.number)
                else:
                    self._again.append(_alone(task))
        elif not worker.begun:
            self._idle_deaths += 1
            if self._idle_deaths >= MAX_IDLE_DEATHS * len(self.devices):
                raise CgError(
                    f"the worker on {device} ends before it has begun anything ({cause}): "
                    f"see CG_DEBUG=1 cg ask on one file"
                )
        self._start(slot)

    def _blame(self, task: _Task, stage: str, killed: str) -> Iterator[Outcome]:
        """``task`` killed its worker in ``stage``: it is tried again, and poison the second time.

        A worker that dies while it decodes may have died of one question: they are asked one by one then, and the one
        that kills it again is poison alone. It may have died of the whole clip, which is not asked again.
        """
        number, left = task.job.number, task.job.questions[task.settled :]
        task.deaths += 1
        # With pictures, records come at the end of a clip: which question is in work is not known.
        in_decode = stage == "decode" and len(left) > 1 and not self.settings.show_dir
        if not left:  # it has answered all of them, and died before it could say so
            yield Outcome(number)
        elif task.deaths < MAX_ATTEMPTS or (in_decode and task.job.together):
            job = replace(task.job, questions=left, together=not in_decode, alone=True, check=False)
            self._again.append(replace(task, job=job, settled=0))
        elif not in_decode or task.poisoned + 1 >= MAX_POISONED:
            yield Outcome(number, error=poisoned(stage, killed))
        else:
            yield Outcome(number, error=poisoned(stage, killed), done=False)
            job = replace(task.job, questions=left[1:])
            self._again.append(replace(task, job=job, settled=0, deaths=task.deaths - 1, poisoned=task.poisoned + 1))


def _alone(task: _Task) -> _Task:
    """What is left of a task that others were with when the worker died: it is tried with nobody beside it."""
    job = replace(task.job, questions=task.job.questions[task.settled :], together=False, alone=True, check=False)
    return replace(task, job=job, settled=0, deaths=max(task.deaths, 1))
