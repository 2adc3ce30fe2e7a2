"""``cg batch --engine ray``: the jobs of a batch on the actors of a Ray cluster (Ray Data, ``pip install
'cg-cli[ray]'``).

Ray Data tries a row that kills its actor again for ever, and drops rows that may not be tried again without a word.
Neither happens here: an actor asks a ledger before it begins a job, and gives back the error of one that has killed its
actor twice instead of beginning it a third time. Each job is a block of its own, so that long and short videos balance.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from cg_cli.batch.gpus import gpu_count
from cg_cli.batch.job import MAX_ATTEMPTS, Job, poisoned
from cg_cli.batch.pool import Outcome
from cg_cli.errors import CgError, ItemError, UsageError
from cg_cli.records import from_line, to_line
from cg_cli.settings.table import Settings

AHEAD = 2  # jobs that an actor holds: one in work, one waiting


class Ledger:
    """How often each job was begun and not ended."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}

    def begin(self, number: int) -> int:
        """How often job ``number`` was begun before without an end."""
        before = self._begun.get(number, 0)
        self._begun[number] = before + 1
        return before

    def end(self, number: int) -> None:
        self._begun.pop(number, None)


class Actor:
    """Answers one job after another, with a decode process beside it. What Ray Data calls a callable class."""

    def __init__(self, settings: dict[str, Any], ledger: Any):
        from cg_cli.batch.answerer import Answerer
        from cg_cli.media import DecodeWorker

        self.answerer, self.worker, self.ledger = Answerer(Settings(**settings)), DecodeWorker(), ledger

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": [self._outcome(json.loads(job)) for job in batch["job"]]}

    def _outcome(self, message: dict[str, Any]) -> str:
        import ray

        job = Job.from_message(message)
        number = job.number
        if ray.get(self.ledger.begin.remote(number)) >= MAX_ATTEMPTS:
            error = poisoned("decode", f"{job.video!r} killed its Ray actor")
            return json.dumps({"number": number, "error": [error.stage, str(error), error.kind]})
        reading = self.answerer.read(job, self.worker)
        records = list(self.answerer.answer(job, reading))
        ray.get(self.ledger.end.remote(number))
        return json.dumps(
            {"number": number, "records": [to_line(record) for record in records], "read_s": reading.seconds}
        )


def _look(settings: dict[str, Any]) -> dict[str, Any]:
    """What ``Pool.start`` tells, from a worker of the cluster."""
    from cg_cli.batch.answerer import Answerer

    try:
        answerer = Answerer(Settings(**settings))
    except CgError as error:
        return {"refused": str(error), "exit_code": error.exit_code}
    return answerer.ready


class RayEngine:
    """An engine on ``actors`` actors; by default one on every GPU of the cluster, or on every node if it has none.

    The cluster is the one that RAY_ADDRESS names, or one started on this machine.

    Raises:
        UsageError: ray is not installed, or the cluster has not so many GPUs.
    """

    def __init__(self, settings: Settings, gpus: str | None, actors: int | None = None):
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong becomes an error of ours
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise UsageError(f"--engine ray needs Ray ({error}): pip install 'cg-cli[ray]'") from None
        self._ray, self._settings, self._stopping = ray, asdict(settings), False
        ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        available = int(ray.cluster_resources().get("GPU", 0))
        count = available if gpus is None else gpu_count(gpus, available, "in the Ray cluster")
        self._gpus = 1 if count and settings.device != "cpu" else 0
        self._actors = actors or (count if self._gpus else sum(node["Alive"] for node in ray.nodes()))

    def prepare(self, tell: Callable[[str], None]) -> None:
        """Nothing: the machines of a cluster have models of their own."""

    def start(self) -> dict[str, Any]:
        """As ``Pool.start``."""
        look = self._ray.remote(num_gpus=self._gpus, max_calls=1, max_retries=1)(_look)
        pending = look.remote(self._settings)
        while not self._ray.wait([pending], timeout=0.2)[0]:
            if self._stopping:
                raise KeyboardInterrupt
        try:
            ready = self._ray.get(pending)
        except self._ray.exceptions.RayError as error:
            raise CgError(f"no model on the Ray cluster: {_first_line(error)}") from error
        if "refused" in ready:
            raise (UsageError if ready["exit_code"] == UsageError.exit_code else CgError)(ready["refused"])
        return ready

    def run(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        """As ``Pool.run``. CgError if the cluster gives up or loses a job."""
        work = list(jobs)
        rows = [{"job": json.dumps(job.to_message())} for job in work]
        left = {job.number for job in work}
        if not rows or self._stopping:
            return
        ledger = self._ray.remote(num_cpus=0)(Ledger).remote()
        answers = self._ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Actor,
            fn_constructor_args=(self._settings, ledger),
            batch_size=1,
            num_gpus=self._gpus or None,
            num_cpus=None if self._gpus else 1,
            compute=self._ray.data.ActorPoolStrategy(
                size=min(self._actors, len(rows)), max_tasks_in_flight_per_actor=AHEAD
            ),
        )
        try:
            for row in answers.iter_rows():
                outcome = _outcome(json.loads(row["outcome"]))
                left.discard(outcome.number)
                yield outcome
                if self._stopping:
                    return
        except self._ray.exceptions.RayError as error:
            raise CgError(f"Ray gave up: {_first_line(error)}") from error
        if left:
            raise CgError(f"Ray lost {len(left)} videos: run the same command again")

    def stop(self) -> None:
        """As ``Pool.stop``; what other actors are at is left for the next run."""
        self._stopping = True

    def close(self) -> None:
        """Leave the cluster, or end it if it was started here."""
        self._ray.shutdown()


def _outcome(message: dict[str, Any]) -> Outcome:
    if "error" in message:
        return Outcome(message["number"], error=ItemError(*message["error"]))
    return Outcome(message["number"], tuple(map(from_line, message["records"])), read_s=message["read_s"])


def _first_line(error: Exception) -> str:
    return next(
        (line for line in reversed(str(error).strip().splitlines()) if line.strip()), type(error).__name__
    ).strip()
