"""``cg batch --engine ray``: the workers of a batch on the machines of a Ray cluster (``pip install 'cg-cli[ray]'``).

An actor takes the place on its machine, and runs the same worker process there that a batch without Ray runs here; it
only passes messages on. So ``Pool`` decides here what every worker does, and what becomes of the jobs of one that dies.
Ray itself tries nothing again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cg_cli.batch import decoders
from cg_cli.batch.decoders import AUTO, Decoders
from cg_cli.batch.gpus import gpu_count
from cg_cli.batch.pool import Pool
from cg_cli.batch.process import STOP_TIMEOUT_S, LocalProcess, OnMessage
from cg_cli.errors import UsageError
from cg_cli.settings.table import Settings

ENDED = "ended"  # the event that stands for the end of a worker process, with its cause
RECEIVE = "receive"  # messages are waited for in a thread of their own, beside those that are sent


class Relay:
    """A worker process on the machine of an actor. Messages travel as JSON, which keeps every file name as it is.

    When the actor is killed, its worker ends with it.
    """

    def __init__(self, first: str):
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._process = LocalProcess(json.loads(first), self._messages.put)

    def send(self, message: str) -> None:
        self._process.send(json.loads(message))

    def receive(self) -> str:
        """The messages that have come, at least one: waits for it."""
        messages = [self._messages.get()]
        while not self._messages.empty():
            messages.append(self._messages.get())
        if messages[-1] is None:
            messages[-1] = {"event": ENDED, "cause": self._process.cause_of_death()}
        return json.dumps(messages)


class RayProcess:
    """The driver's side of a Relay: a ``WorkerProcess``."""

    def __init__(self, ray: Any, actor: Any, on_message: OnMessage):
        self._ray, self._actor, self._cause = ray, actor, "it was lost"
        self._thread = threading.Thread(target=self._read, args=(on_message,), daemon=True)
        self._thread.start()

    def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):  # the reader tells of a dead actor
            self._actor.send.remote(json.dumps(message))

    def cause_of_death(self) -> str:
        return self._cause

    def kill(self) -> None:
        self._ray.kill(self._actor)
        self._thread.join(STOP_TIMEOUT_S)

    def _read(self, on_message: OnMessage) -> None:
        receive = self._actor.receive.options(concurrency_group=RECEIVE)
        message: dict[str, Any] = {}
        try:
            while message.get("event") != ENDED:
                for message in json.loads(self._ray.get(receive.remote())):
                    if message["event"] != ENDED:
                        on_message(message)
            self._cause = message["cause"]
        except self._ray.exceptions.RayError as error:  # the actor is gone, or its machine
            self._cause = _last_line(error)
        on_message(None)


class RayEngine(Pool):
    """A pool on ``actors`` actors; by default one on every GPU of the cluster, or on every node if it has none.

    The cluster is the one that RAY_ADDRESS names, or one started on this machine.

    Raises:
        UsageError: ray is not installed, the cluster has not so many GPUs or no place for an actor, or ``decode`` is
            no number.
    """

    def __init__(
        self, settings: Settings, gpus: str | None, in_flight: int, decode: str = AUTO, actors: int | None = None
    ):
        self._ray = ray = _connect()
        available = int(ray.cluster_resources().get("GPU", 0))
        count = available if gpus is None else gpu_count(gpus, available, "in the Ray cluster")
        kind = "GPU" if count and settings.device != "cpu" else "CPU"
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get(kind, 0) >= 1]
        if not nodes:
            raise UsageError("--engine ray: no node of the cluster has a CPU to give")
        actors = actors or (count if kind == "GPU" else len(nodes))
        resources = {"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
        self._relay = ray.remote(scheduling_strategy="SPREAD", concurrency_groups={RECEIVE: 1}, **resources)(Relay)
        super().__init__(
            settings, [settings.device] * actors, _decoders(decode, kind, nodes, actors), in_flight, self._launch
        )

    def prepare(self, tell: Callable[[str], None]) -> None:
        """Nothing: the machines of a cluster have models of their own."""

    def close(self) -> None:
        """End the workers, and leave the cluster, or end it if it was started here."""
        super().close()
        self._ray.shutdown()

    def _launch(self, first: dict[str, Any], on_message: OnMessage) -> RayProcess:
        return RayProcess(self._ray, self._relay.remote(json.dumps(first)), on_message)


def _connect() -> Any:
    """Ray, connected to a cluster. UsageError if it is not installed."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong becomes an error of ours
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--engine ray needs Ray ({error}): pip install 'cg-cli[ray]'") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
    return ray


def _decoders(decode: str, kind: str, nodes: Sequence[Mapping[str, float]], actors: int) -> Decoders:
    """Those of every worker: as many as fit on the node with the fewest cores for each."""
    spread = math.ceil(actors / len(nodes))
    workers = [min(actors, int(node["GPU"])) if kind == "GPU" else spread for node in nodes]
    return min(decoders.parse(decode, int(node.get("CPU", 1)), count) for node, count in zip(nodes, workers))


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
