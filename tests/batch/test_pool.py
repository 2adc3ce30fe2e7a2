"""What becomes of jobs whose workers die, on workers that are threads with a model of no weight: every question is
settled once, and only what kills alone is poison."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from helpers.made import answer
from hypothesis import given, settings
from hypothesis import strategies as st

from cg_cli.batch import loop
from cg_cli.batch.decoders import Decoders
from cg_cli.batch.job import Job
from cg_cli.batch.pool import MAX_IDLE_DEATHS, Outcome, Pool
from cg_cli.errors import CgError
from cg_cli.settings.table import Settings

IN_FLIGHT = 8
QUESTIONS = ("a?", "b?")

Kills = Callable[[list[str], str], bool]  # the videos in hand and the question that is answered


class Death(Exception):
    """Of a worker."""


class Model:
    """Answers at once, or dies. ``groups`` are the videos of every decoding."""

    settings = SimpleNamespace(show_dir=None)

    def __init__(self, kills: Kills):
        self.kills, self.groups = kills, []

    def room(self, waiting: list) -> bool:
        return True

    def prefill(self, job: Job, reading: object, on_stage: Callable[[str], None]) -> SimpleNamespace:
        time.sleep(0.002)  # meanwhile the next jobs arrive
        return SimpleNamespace(job=job, model=self, kv_bytes=1, wants_memory=False)

    def answer(self, job: Job, reading: object, on_stage: Callable[[str], None]) -> Iterator:
        on_stage("decode")
        return (record for _, record in self.decode([job]))

    def check(self, job: Job, reading: object, on_stage: Callable[[str], None]) -> dict:
        if self.kills([job.video], "whole"):
            raise Death
        return {question: answer(job.video, question) for question in job.questions}

    def decode(self, jobs: list[Job]) -> Iterator:
        self.groups.append(videos := [job.video for job in jobs])
        for at, job in enumerate(jobs):
            for question in job.questions:
                if self.kills(videos, question):
                    raise Death
                yield at, answer(job.video, question)


class Thread:
    """A worker process that is none. ``held`` is how many jobs it had, whenever it got one."""

    def __init__(self, model: Model, first: dict, on_message: Callable[[dict | None], None]):
        self.ready: queue.SimpleQueue = queue.SimpleQueue()
        self.stopping, self.on_message = threading.Event(), on_message
        self.jobs, self.held = 0, []
        self.loop = loop.Loop(model, first["in_flight"], self.tell)
        on_message({"event": "ready", "inputs": {}, "facts": {}})
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        with contextlib.suppress(Death):
            self.loop.run(self.ready, self.stopping)
        self.on_message(None)

    def tell(self, **message) -> None:
        self.jobs -= message["event"] == "done"
        self.on_message(message)

    def send(self, message: dict) -> None:
        if message["event"] == "stop":
            self.kill()
            return
        self.jobs += 1
        self.held.append(self.jobs)
        self.ready.put((Job.from_message(message), SimpleNamespace(seconds=0.0)))

    def cause_of_death(self) -> str:
        return "SIGKILL"

    def kill(self) -> None:
        self.stopping.set()
        self.ready.put(None)


@pytest.fixture(autouse=True, scope="module")
def without_weights():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "answer_together", lambda clips: clips[0].model.decode([clip.job for clip in clips]))
        yield


def run(kills: Kills, clips: int = 12, workers: int = 1) -> tuple[dict[tuple[str, str], str], Model]:
    """The answer of each video and question, or the type of its error, and the model."""
    model = Model(kills)
    pool = pool_of(model, workers)
    jobs = [Job(number, f"{number}.mp4", QUESTIONS) for number in range(clips)]
    try:
        pool.start()
        outcomes = list(pool.run(iter(jobs)))
    finally:
        pool.close()
    return settled(jobs, outcomes), model


def pool_of(model: Model, workers: int = 1) -> Pool:
    launch = lambda first, on_message: Thread(model, first, on_message)
    return Pool(Settings(), ["cpu"] * workers, Decoders(1, 4), IN_FLIGHT, launch)


def settled(jobs: list[Job], outcomes: list[Outcome]) -> dict[tuple[str, str], str]:
    """As ``run``; every job ends once, and has a record or an error for each question, in order."""
    made: dict[int, list[str]] = {job.number: [] for job in jobs}
    for outcome in outcomes:
        mine = made[outcome.number]
        for record in outcome.records:
            assert record.question == QUESTIONS[len(mine)]
            mine.append(record.answer)
        if outcome.error:
            mine += [outcome.error.kind] * (len(QUESTIONS) - len(mine) if outcome.done else 1)
    assert sorted(outcome.number for outcome in outcomes if outcome.done) == sorted(made)
    assert {len(mine) for mine in made.values()} == {len(QUESTIONS)}
    return {(job.video, question): made[job.number][at] for job in jobs for at, question in enumerate(job.questions)}


def test_clips_are_decoded_in_groups():
    made, model = run(lambda videos, question: False)
    assert set(made.values()) == {"A dog."} and max(map(len, model.groups)) == IN_FLIGHT


@pytest.mark.parametrize("nth", [1, 2, 7, 16])
def test_a_worker_that_dies_once_with_a_group_in_hand_makes_nobody_poison(nth):
    answered = iter(range(1, 10**9))
    made, model = run(lambda videos, question: len(videos) == IN_FLIGHT and next(answered) == nth)
    assert set(made.values()) == {"A dog."}
    (group,) = (videos for videos in model.groups if len(videos) == IN_FLIGHT)
    left = group[(nth - 1) // len(QUESTIONS) :]
    assert [[video] for video in left if [video] in model.groups] == [[video] for video in left]  # one by one


def test_a_clip_that_kills_in_a_group_and_alone_is_poison_alone():
    made, model = run(lambda videos, question: "3.mp4" in videos)
    assert {video for (video, _), end in made.items() if end == "poison"} == {"3.mp4"}
    assert [end for (video, _), end in made.items() if video != "3.mp4"] == ["A dog."] * 22
    assert sum("3.mp4" in videos for videos in model.groups) <= 3  # in a group, and then once for each question


def test_a_question_that_kills_costs_its_clip_no_other_answer():
    made, _ = run(lambda videos, question: "3.mp4" in videos and question == "b?")
    assert [key for key, end in made.items() if end == "poison"] == [("3.mp4", "b?")]


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(1, 60), max_size=12), st.integers(1, 3))
def test_every_question_is_settled_once_whenever_workers_die(deaths, workers):
    answered = iter(range(1, 10**9))
    run(lambda videos, question: next(answered) in deaths, clips=17, workers=workers)


def test_a_request_to_stop_lets_the_group_in_hand_end():
    model = Model(lambda videos, question: False)
    pool = pool_of(model)
    jobs = [Job(number, f"{number}.mp4", QUESTIONS) for number in range(40)]
    pool.start()
    outcomes = []
    for outcome in pool.run(iter(jobs)):
        outcomes.append(outcome)
        if max(map(len, model.groups)) == IN_FLIGHT:
            pool.stop()
    pool.close()
    ended = {outcome.number for outcome in outcomes if outcome.done}
    assert IN_FLIGHT <= len(ended) < 40 and {outcome.number for outcome in outcomes} == ended


@pytest.mark.parametrize("decoders", [1, 3])
def test_a_worker_has_as_many_jobs_as_it_can_decode_ahead(decoders):
    threads = []

    def launch(first, on_message):
        threads.append(Thread(Model(lambda videos, question: False), first, on_message))
        on_message({"event": "decoders", "count": decoders})
        return threads[-1]

    pool = Pool(Settings(), ["cpu"], Decoders(1, 4), IN_FLIGHT, launch)
    pool.start()
    assert len(list(pool.run(iter([Job(number, f"{number}.mp4", QUESTIONS) for number in range(40)])))) == 40 * 3
    pool.close()
    assert max(threads[0].held) == decoders + IN_FLIGHT + 1


def test_workers_that_end_before_they_begin_anything_end_the_run():
    started = []

    def launch(first, on_message):
        started.append(first)
        on_message(None)
        return SimpleNamespace(cause_of_death=lambda: "exit code 1", kill=lambda: None)

    pool = Pool(Settings(), ["cpu"] * 2, Decoders(1, 1), IN_FLIGHT, launch)
    with pytest.raises(CgError, match=r"before it has begun anything \(exit code 1\)"):
        pool.start()
    assert len(started) == 2 * MAX_IDLE_DEATHS + 1


def test_a_whole_clip_that_kills_its_worker_is_not_asked_again_and_costs_no_answer():
    model = Model(lambda videos, question: question == "whole" and videos == ["3.mp4"])
    pool = pool_of(model)
    jobs = [Job(number, f"{number}.mp4", QUESTIONS, check=number % 2 == 1) for number in range(12)]
    try:
        pool.start()
        outcomes = list(pool.run(iter(jobs)))
    finally:
        pool.close()
    assert set(settled(jobs, outcomes).values()) == {"A dog."}
    checked = {outcome.number for outcome in outcomes for record in outcome.records if record.check}
    assert checked >= {1} and checked <= {1, 5, 7, 9, 11} and 3 not in checked
