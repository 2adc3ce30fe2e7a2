"""Questions on several clips, decoded together: the records that they get alone; faults stay where they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import SAMPLES

from cg_cli.engine import pipeline
from cg_cli.engine.attempts import answer_together
from cg_cli.engine.session import Session
from cg_cli.engine.setup import open_session
from cg_cli.settings.resolve import resolve_settings

pytestmark = pytest.mark.slow

CLIPS = [str(SAMPLES / f"{name}.mp4") for name in ("drum", "dog", "clocks")]
QUESTIONS = ["What is happening?", "What do you hear?", "Which number is shown?"]


@pytest.fixture(scope="module")
def nano() -> Session:
    return open_session(resolve_settings({"model": "nano", "offline": True}))


@pytest.fixture
def session(nano) -> Session:
    return replace(nano)


def ask(session: Session, videos=CLIPS, questions=QUESTIONS) -> list[list]:
    """The records of each clip, decoded together; clip ``n`` has ``n + 1`` questions."""
    clips = [session.ask(video, questions[: number + 1], session.read(video)) for number, video in enumerate(videos)]
    for clip in clips:
        clip.prefill()
    records: list[list] = [[] for _ in clips]
    for number, record in answer_together(clips):
        records[number].append(record)
    return records


def alone(session: Session, videos=CLIPS, questions=QUESTIONS) -> list[list]:
    return [list(session.answer(video, questions[: number + 1])) for number, video in enumerate(videos)]


def same(one, other) -> bool:
    names = ("key", "video", "question", "answer", "finish", "prefix_reused", "tokens", "flops", "media", "warnings")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def test_records_are_those_of_each_clip_alone(session):
    eight = [*CLIPS, str(SAMPLES / "dubbed.mp4"), str(SAMPLES / "off-screen.mp4"), *CLIPS]
    together = ask(session, eight)
    for ours, expected in zip(together, alone(session, eight), strict=True):
        assert all(same(one, other) for one, other in zip(ours, expected, strict=True))
        first = ours[0].latency_s
        assert first.total == pytest.approx(first.media + first.encode + first.prune + first.prefill + first.decode)
    assert {record.answered_together for records in together for record in records} == {21}


def test_a_clip_that_cannot_be_read_or_encoded_costs_the_others_nothing(session, tmp_path, monkeypatch):
    encode = session.backbone.encode
    monkeypatch.setattr(session.backbone, "encode", lambda clip: 1 / 0 if clip.path == CLIPS[2] else encode(clip))
    made = ask(session, [CLIPS[0], str(tmp_path / "gone.mp4"), CLIPS[2], CLIPS[1]], [*QUESTIONS, QUESTIONS[0]])
    assert [[record.ok for record in records] for records in made] == [[True], [False] * 2, [False] * 3, [True] * 4]
    assert {record.error.type for record in made[1]} == {"not_found"}
    assert {(record.error.stage, record.error.type) for record in made[2]} == {("encode", "internal")}


def test_a_question_that_fails_costs_the_others_nothing(session, monkeypatch):
    ids = session.backbone.question_ids
    monkeypatch.setattr(session.backbone, "question_ids", lambda text: 1 / 0 if text == QUESTIONS[1] else ids(text))
    made = ask(session)
    assert [[record.ok for record in records] for records in made] == [[True], [True, False], [True, False, True]]


def test_a_fault_of_the_batch_is_answered_clip_by_clip(session, monkeypatch):
    expected = ask(session)

    calls = []
    decode_batch = pipeline.decode_batch

    def failing(backbone, *arguments):
        calls.append(1)
        for number, answer in enumerate(decode_batch(backbone, *arguments)):
            if number == 2:
                raise pipeline.ItemError("decode", "out of memory on cpu", "out_of_memory")
            yield answer

    monkeypatch.setattr(pipeline, "decode_batch", failing)
    made = ask(session)
    assert calls == [1]
    for ours, others in zip(made, expected, strict=True):
        names = ("key", "question", "answer", "tokens", "warnings", "prefix_reused")
        assert [[getattr(r, n) for n in names] for r in ours] == [[getattr(r, n) for n in names] for r in others]


def test_a_clip_that_runs_out_of_memory_is_tried_with_less_alone(session, monkeypatch):
    prefill = session.backbone.prefill
    monkeypatch.setattr(
        session.backbone, "prefill",
        lambda stream: prefill(stream) if len(stream) < 300 else (_ for _ in ()).throw(torch.OutOfMemoryError("no")),
    )  # fmt: skip
    made = ask(session)
    keeps = {record.pruner.keep for records in made for record in records}
    assert all(record.ok for records in made for record in records) and 0.225 in keeps
    assert all(("out of memory" in str(r.warnings)) == (r.pruner.keep == 0.225) for records in made for r in records)


def test_a_clip_with_many_questions_is_a_batch_by_itself(session, monkeypatch):
    monkeypatch.setattr("cg_cli.engine.attempts.BATCH_BLOCK", 20)  # tokens: one or two of these questions
    made = ask(session)
    assert [{record.answered_together for record in records} for records in made] == [{3}, {3}, {3}]
    assert [[r.answer for r in records] for records in made] == [
        [r.answer for r in records] for records in alone(session)
    ]


def test_a_pruner_that_reads_the_question_goes_alone():
    session = open_session(resolve_settings({"model": "nano", "pruner": "fastv", "keep": 0.45, "offline": True}))
    for ours, expected in zip(ask(session), alone(session), strict=True):
        assert [record.answer for record in ours] == [record.answer for record in expected]
        assert {record.answered_together for record in ours} == {1}
