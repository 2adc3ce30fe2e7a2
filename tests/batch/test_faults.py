"""A fault anywhere between a file and its records costs the question, or the clip, that it belongs to, and names its
stage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers.made import CLIPS, folder_of, lines

from cg_cli import media
from cg_cli.batch.answerer import Answerer
from cg_cli.batch.decoders import Decoders
from cg_cli.batch.job import Job
from cg_cli.batch.pool import Pool
from cg_cli.engine import answer, pipeline
from cg_cli.engine.session import Session
from cg_cli.pruning.methods.random import Random
from cg_cli.settings.resolve import resolve_settings

pytestmark = pytest.mark.slow

QUESTIONS = ("What is happening?", "What do you hear?", "What colour is the drum?")


@pytest.fixture(scope="module")
def loaded() -> Answerer:
    return Answerer(resolve_settings({"model": "nano", "offline": True}))


@pytest.fixture
def answerer(loaded, monkeypatch) -> Answerer:
    monkeypatch.setattr(loaded, "session", Session(**vars(loaded.session)))
    return loaded


class Boom(Exception):
    """No fault that anything could foresee."""


def faulty(real, when):
    def call(*arguments, **more):
        if when(*arguments, **more):
            raise Boom("injected\nfault")
        return real(*arguments, **more)

    return call


def nth(number: int):
    calls = iter(range(10**9))
    return lambda *arguments, **more: next(calls) == number


def ask(answerer: Answerer, videos, together: bool = True) -> list:
    worker = SimpleNamespace(decode=lambda video, options: media.decode(video, options))
    jobs = [Job(number, str(video), QUESTIONS, together) for number, video in enumerate(videos)]
    return [list(answerer.answer(job, answerer.read(job, worker))) for job in jobs]


CLIP_FAULTS = {
    "media": lambda s: (media, "decode"),
    "encode": lambda s: (s.backbone, "encode"),
    "prune": lambda s: (pipeline, "apply"),
    "prefill": lambda s: (s.backbone, "prefill"),
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("stage", list(CLIP_FAULTS))
def test_a_fault_in_a_stage_of_a_clip_costs_that_clip(answerer, monkeypatch, stage, together):
    place, name = CLIP_FAULTS[stage](answerer.session)
    monkeypatch.setattr(place, name, faulty(getattr(place, name), nth(1)))
    first, second, third = ask(answerer, CLIPS[:3], together)
    assert [record.ok for record in (*first, *third)] == [True] * 6
    for record, question in zip(second, QUESTIONS, strict=True):
        assert (record.video, record.question, record.error.stage) == (str(CLIPS[1]), question, stage)
        assert record.error.type == "internal" and "Boom: injected" in record.error.message


def of_second(*arguments, **more) -> bool:
    """Whether a call is about the second question, alone or among others."""
    return QUESTIONS[1] in json.dumps(arguments, default=lambda value: getattr(value, "identity", None) or repr(value))


QUESTION_FAULTS = {
    "its tokens": lambda backbone: (backbone, "question_ids"),
    "its answer": lambda backbone: (backbone, "answer"),
    "its record": lambda backbone: (answer, "answer"),
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", list(QUESTION_FAULTS))
def test_a_fault_in_one_question_costs_that_question(answerer, monkeypatch, name, together):
    backbone = answerer.session.backbone
    place, attribute = QUESTION_FAULTS[name](backbone)
    monkeypatch.setattr(place, attribute, faulty(getattr(place, attribute), of_second))
    if name == "its answer":  # side by side it is everybody's, and they are asked one by one then
        monkeypatch.setattr(backbone, "answer_all", faulty(backbone.answer_all, lambda *a, **k: True))
    (records,) = ask(answerer, CLIPS[:1], together)
    assert [record.ok for record in records] == [True, False, True]
    assert [record.question for record in records] == list(QUESTIONS)
    assert records[1].error.stage == "decode" and records[1].error.type == "internal"


def test_records_come_as_questions_are_answered_not_when_the_clip_ends(answerer, monkeypatch):
    calls = []
    backbone = answerer.session.backbone
    decode = backbone.answer_all
    monkeypatch.setattr(backbone, "answer_all", lambda *a, **k: calls.append(a) or decode(*a, **k))
    long = [f"{question} {'Say it in one word. ' * 50}" for question in QUESTIONS * 2]
    job = Job(0, str(CLIPS[0]), tuple(long))
    answers = answerer.answer(job, answerer.session.read(job.video))
    assert next(answers).ok
    assert len(calls) == 1  # of two groups
    assert len(list(answers)) == len(long) - 1 and len(calls) > 1


def test_a_worker_killed_with_a_group_in_hand_costs_nobody_an_answer(answerer, tmp_path):
    clips = sorted(folder_of(tmp_path / "clips", 10).glob("*.mp4"))
    pool = Pool(answerer.settings, ["cpu"], Decoders(2, 2), in_flight=8)
    jobs = [Job(number, str(clip), QUESTIONS[:1]) for number, clip in enumerate(clips)]
    outcomes, killed = [], []
    try:
        pool.start()
        for outcome in pool.run(iter(jobs)):
            outcomes.append(outcome)
            for worker in pool._workers.values():
                if not killed and len(worker.current) > 1 and not outcome.done:
                    killed = list(worker.current)
                    os.kill(worker.process.pid, signal.SIGKILL)
    finally:
        pool.close()
    assert killed and sorted(outcome.number for outcome in outcomes if outcome.done) == list(range(10))
    made = sorted((outcome.number, record.answer) for outcome in outcomes for record in outcome.records)
    alone = [record.answer for record, *_ in ask(answerer, CLIPS)]
    assert made == [(number, alone[number % len(CLIPS)]) for number in range(10)]


KILLER = """
import os
from dataclasses import dataclass
from cg_cli.engine import pipeline
from cg_cli.pruning.methods.random import Random

def deadly(decode):
    def call(backbone, prefilled, questions, *arguments):
        if any("kill" in str(question) for question in questions):
            os.kill(os.getpid(), 9)
        return decode(backbone, prefilled, questions, *arguments)
    return call

pipeline.decode = deadly(pipeline.decode)
pipeline.decode_batch = deadly(pipeline.decode_batch)

@dataclass(frozen=True)
class Deadly(Random):
    "Its process dies of some questions."
"""


@pytest.mark.parametrize("deadly", [1, 4])
def test_a_question_that_kills_its_worker_is_poison_alone(tmp_path, deadly, answerer, monkeypatch):
    plugin = tmp_path / "plugin"
    (plugin / "deadly-1.0.dist-info").mkdir(parents=True)
    (plugin / "deadly.py").write_text(KILLER)
    (plugin / "deadly-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    (plugin / "deadly-1.0.dist-info" / "entry_points.txt").write_text("[cg_cli.pruners]\ndeadly = deadly:Deadly\n")
    folder_of(tmp_path / "clips", 5)
    rows = [{"video": f"clips/c00{number}.mp4", "question": QUESTIONS[0]} for number in range(1, 5)]
    for number in range(8):
        question = f"kill {number}?" if 2 <= number < 2 + deadly else f"{QUESTIONS[0]} {number}"
        rows.append({"video": "clips/c000.mp4", "question": question})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-m", "cg_cli", "batch", "m.jsonl", "-o", "o.jsonl"]
    done = subprocess.run(
        [*command, "--model", "nano", "--pruner", "deadly"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(plugin)},
    )
    made = lines(tmp_path / "o.jsonl")
    asked = [record for record in made if record["video"] == "clips/c000.mp4"]
    assert done.returncode == 3 and len(made) == 12
    assert [record["question"] for record in asked] == [row["question"] for row in rows[4:]]
    others = {record["video"]: record["answer"] for record in made if record["video"] != "clips/c000.mp4"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(answerer.session, "pruner", Random())
    undisturbed = [record for (record, *_) in ask(answerer, others)]
    assert len(others) == 4 and others == {record.video: record.answer for record in undisturbed}  # nobody else's fault
    if deadly == 1:
        assert [record["ok"] for record in made if "kill" not in record["question"]] == [True] * 11
    # A clip that goes on killing costs no more workers than that.
    poison = [record for record in asked if not record["ok"]]
    assert [record["error"]["type"] for record in poison] == ["poison"] * (1 if deadly == 1 else 6)
    assert {record["error"]["stage"] for record in poison} == {"decode"}
