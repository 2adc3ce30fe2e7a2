"""How many files a worker decodes at a time."""

from __future__ import annotations

import io
import queue
import threading
import time
from types import SimpleNamespace

import pytest

from cg_cli.batch import decoders, worker
from cg_cli.batch.decoders import CLIPS, DECODER_BYTES, Decoders, Demand, parse
from cg_cli.batch.job import Job
from cg_cli.errors import UsageError

PLENTY = 64 * DECODER_BYTES
CLIPS_READ = 50


def after(clips: int, waited_s: float, worked_s: float, *, demand: Demand, free: int = PLENTY, starved=False) -> int:
    """How many decode processes are added after so many clips."""
    added = 0
    for _ in range(clips):
        demand.add(waited_s, worked_s, starved=starved)
        added += demand.grow(free)
    return added


@pytest.mark.parametrize(
    "value, cores, workers, expected",
    [
        ("auto", 1, 1, (1, 1)),
        ("auto", 2, 1, (1, 1)),
        ("auto", 4, 1, (3, 3)),
        ("auto", 16, 1, (4, 15)),
        ("auto", 16, 8, (1, 1)),
        ("auto", 96, 8, (4, 11)),
        ("6", 2, 2, (6, 6)),
    ],
)
def test_the_option_means_a_number_or_a_share_of_the_cores(value, cores, workers, expected):
    assert parse(value, cores, workers) == expected


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "²", ""])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(UsageError, match="--decoders"):
        parse(value, 4, 1)


def test_a_model_that_does_not_wait_needs_no_more():
    demand = Demand(2, 8)
    assert after(100, 0.04, 1.0, demand=demand) == 0 and demand.count == 2


@pytest.mark.parametrize("waited_s, added", [(0.2, 1), (1.0, 4), (9.0, 4)])
def test_a_model_that_waits_gets_as_many_as_would_keep_it_busy_but_not_twice_as_many_more(waited_s, added):
    demand = Demand(4, 32)
    assert after(CLIPS, waited_s, 1.0, demand=demand) == 0  # the first clip of all is not counted
    assert after(1, waited_s, 1.0, demand=demand) == added and demand.count == 4 + added
    assert after(CLIPS - 1, waited_s, 1.0, demand=demand) == 0  # the new ones are measured first


def test_a_model_whose_groups_are_never_full_gets_one_more():
    assert after(CLIPS + 1, 0.0, 1.0, demand=Demand(4, 32), starved=True) == 1


def test_cores_and_memory_are_the_limit():
    demand = Demand(2, 3)
    assert after(50, 9.0, 1.0, demand=demand) == 1 and demand.count == 3
    assert after(50, 9.0, 1.0, demand=Demand(2, 8), free=DECODER_BYTES - 1) == 0
    assert after(CLIPS + 1, 9.0, 1.0, demand=Demand(4, 32), free=2 * DECODER_BYTES) == 2
    assert after(CLIPS + 1, 9.0, 0.0, demand=Demand(4, 32)) == 1  # it did nothing but wait


@pytest.mark.parametrize("limits, reading", [(Decoders(1, 8), 8), (Decoders(1, 1), 1)])
def test_a_worker_whose_files_take_long_reads_more_at_a_time(limits, reading, monkeypatch):
    monkeypatch.setattr(decoders, "DECODER_BYTES", 1)
    lock, at_once = threading.Lock(), [0]
    requests: queue.SimpleQueue = queue.SimpleQueue()

    def read(job, decode_worker):
        with lock:
            at_once.append(at_once[-1] + 1)
        time.sleep(0.02)
        with lock:
            at_once.append(at_once[-1] - 1)
        if job.number == CLIPS_READ - 1:
            requests.put({"event": "stop"})
        return SimpleNamespace(seconds=0.02)

    answerer = SimpleNamespace(settings=SimpleNamespace(show_dir=None), read=read, answer=lambda *_: iter(()))
    subject = worker._Worker(answerer, limits, 1, io.BytesIO())
    for number in range(CLIPS_READ):
        requests.put({"event": "job", **Job(number, "a.mp4", ("?",)).to_message()})
    subject.run(requests)
    assert max(at_once) == reading == subject.demand.count
