"""Worker processes here and behind a Ray actor, without Ray: messages, and why they end. The worker is the decode
process, which speaks the same protocol and loads no model."""

from __future__ import annotations

import json
import os
import queue
import signal
from types import SimpleNamespace

import pytest
from helpers import SAMPLES

from cg_cli.batch import process, ray_engine
from cg_cli.batch.process import LocalProcess
from cg_cli.batch.ray_engine import RayProcess, Relay

TASK = {"task": "stated_duration", "path": str(SAMPLES / "drum.mp4"), "display_path": "drum\udcff.mp4"}


class RayError(Exception):
    """Of a lost actor."""


class Method:
    """A method of an actor, called in the thread that asks for its result, or at once."""

    def __init__(self, call):
        self.call = call

    def options(self, concurrency_group: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda: self.call)

    def remote(self, message: str) -> None:
        self.call(message)


@pytest.fixture
def messages(monkeypatch) -> queue.SimpleQueue:
    monkeypatch.setattr(process, "MODULE", "cg_cli.media.worker")
    return queue.SimpleQueue()


def relayed(messages: queue.SimpleQueue) -> tuple[RayProcess, LocalProcess]:
    """A process behind an actor, and the process itself."""
    relay = Relay(json.dumps(TASK))
    ray = SimpleNamespace(
        get=lambda call: call(),
        kill=lambda actor: relay._process.kill(),
        exceptions=SimpleNamespace(RayError=RayError),
    )
    actor = SimpleNamespace(send=Method(relay.send), receive=Method(relay.receive))
    return RayProcess(ray, actor, messages.put), relay._process


@pytest.mark.parametrize("behind_ray", [False, True])
def test_messages_go_both_ways_and_an_end_has_its_cause(messages, behind_ray):
    if behind_ray:
        subject, local = relayed(messages)
    else:
        subject = local = LocalProcess(TASK, messages.put)
    try:
        subject.send({**TASK, "path": "gone\udcff.mp4"})
        answers = [messages.get(timeout=60) for _ in range(5)]
        assert [answer["event"] for answer in answers] == ["ready", "begun", "done", "begun", "error"]
        assert answers[2]["seconds"] == pytest.approx(8, abs=0.5) and r"drum\udcff.mp4" in answers[4]["message"]
        os.kill(local.pid, signal.SIGKILL)
        assert messages.get(timeout=60) is None and subject.cause_of_death() == "SIGKILL"
        subject.send(TASK)  # is lost
    finally:
        subject.kill()


def test_a_lost_actor_is_an_end_whose_cause_is_what_ray_says(messages):
    def lost():
        raise RayError("The actor died.\n  its node was lost\n")

    ray = SimpleNamespace(get=lambda call: call(), exceptions=SimpleNamespace(RayError=RayError))
    subject = RayProcess(ray, SimpleNamespace(receive=Method(lost)), messages.put)
    assert messages.get(timeout=60) is None and subject.cause_of_death() == "its node was lost"


@pytest.mark.parametrize(
    "kind, nodes, actors, expected",
    [
        ("CPU", [{"CPU": 16}, {"CPU": 8}], 2, (4, 7)),
        ("CPU", [{"CPU": 9}], 2, (4, 4)),
        ("GPU", [{"CPU": 64, "GPU": 8}, {"CPU": 16, "GPU": 1}], 9, (4, 7)),
        ("GPU", [{"CPU": 64, "GPU": 8}], 2, (4, 31)),
        ("GPU", [{"GPU": 1}], 1, (1, 1)),
    ],
)
def test_workers_of_a_cluster_decode_as_many_files_as_its_smallest_node_can(kind, nodes, actors, expected):
    assert ray_engine._decoders("auto", kind, nodes, actors) == expected
