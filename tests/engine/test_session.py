"""A session answers the questions on a clip side by side as it does one by one, and makes do with less memory once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import SAMPLES

from cg_cli.engine.session import Session
from cg_cli.engine.setup import open_session
from cg_cli.errors import ItemError
from cg_cli.records import from_line, to_line
from cg_cli.settings.resolve import resolve_settings

pytestmark = pytest.mark.slow

CLIP = str(SAMPLES / "drum.mp4")
CHOICES = ("uniform", "pairs")
QUESTIONS = ["What is happening?", "What do you hear?", "What colour is the drum?"]


@pytest.fixture(scope="module")
def nano() -> Session:
    return open_session(resolve_settings({"model": "nano", "offline": True}))


@pytest.fixture
def session(nano, monkeypatch) -> Session:
    """The session, whose backbone may be tampered with."""
    return replace(nano)


def together(session: Session, questions=QUESTIONS):
    return list(session.answer(CLIP, questions, session.read(CLIP), together=True))


def runs_out(real, times: list[int], when=lambda *a: True):
    """``real``, out of memory as often as ``times`` says; what it was called with is kept there."""
    left = times.pop()

    def call(*arguments, **more):
        nonlocal left
        times.append(arguments)
        if left and when(*arguments):
            left -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments, **more)

    return call


def test_side_by_side_is_as_one_by_one(session):
    apart = list(session.answer(CLIP, QUESTIONS))
    side = together(session)
    for one, other in zip(apart, side, strict=True):
        same = ("question", "answer", "finish", "prefix_reused", "tokens", "media", "pruner", "model", "warnings")
        assert all(getattr(one, name) == getattr(other, name) for name in same)
        assert one.flops == other.flops and one.key == other.key
        assert (one.answered_together, other.answered_together) == (1, 3)
        assert one.latency_s.first_token and other.latency_s.first_token is None
    first, second = side[0].latency_s, side[1].latency_s
    assert first.decode == second.decode == second.total
    assert first.total == pytest.approx(first.media + first.encode + first.prune + first.prefill + first.decode)


def test_a_file_that_cannot_be_read_fails_every_question(session, tmp_path):
    reading = session.read(str(tmp_path / "gone.mp4"))
    assert isinstance(reading.clip, ItemError)
    records = list(session.answer("gone.mp4", QUESTIONS, reading, together=True))
    assert [(r.ok, r.error.type, r.attempts) for r in records] == [(False, "not_found", 1)] * 3


def test_a_question_that_no_model_could_read_is_refused_alone(session):
    questions = [QUESTIONS[0], "why " * 20_000, QUESTIONS[1]]
    records = together(session, questions)
    assert [r.question for r in records] == questions and [r.ok for r in records] == [True, False, True]
    assert records[1].error.type == "question_too_long" and "tokens" in records[1].error.message
    alone = together(session, [QUESTIONS[0]]) + together(session, [QUESTIONS[1]])
    assert [r.answer for r in (records[0], records[2])] == [r.answer for r in alone]


def test_what_is_decoded_together_is_bounded(session, monkeypatch):
    monkeypatch.setattr("cg_cli.engine.attempts.BLOCK", 25)  # tokens: two of these questions
    records = together(session, QUESTIONS)
    assert [r.answered_together for r in records] == [2, 2, 1]
    monkeypatch.undo()
    assert [r.answer for r in records] == [r.answer for r in together(session, QUESTIONS)]


def test_a_long_question_is_read_in_blocks_as_at_once(session, monkeypatch):
    question = "drum " * 40 + QUESTIONS[0]
    at_once = together(session, [question])[0]
    monkeypatch.setattr("cg_cli.backbones.batching.BLOCK", 7)
    blocks = together(session, [question])[0]
    assert at_once.answer == blocks.answer and at_once.tokens == blocks.tokens and at_once.flops == blocks.flops


@pytest.mark.parametrize("stage, method", [("prefill", "prefill"), ("decode", "answer_all")])
def test_out_of_memory_is_tried_again_with_half_of_the_tokens(session, monkeypatch, stage, method):
    monkeypatch.setattr(session.backbone, method, runs_out(getattr(session.backbone, method), [1]))
    for record in together(session):
        assert record.ok and record.pruner.keep == 0.225 and record.tokens.keep == pytest.approx(0.225, abs=0.01)
        assert record.warnings[-1] == f"out of memory on cpu in {stage}: tried again with keep 0.225 instead of 0.45"


@pytest.mark.parametrize("pruner, method", [("contextguard", "encode"), ("none", "prefill")])
def test_where_pruning_cannot_help_half_of_the_frames_are_left_out(nano, monkeypatch, pruner, method):
    session = open_session(resolve_settings({"model": "nano", "pruner": pruner, "offline": True}))
    monkeypatch.setattr(session.backbone, method, runs_out(getattr(session.backbone, method), [1]))
    record = together(session)[0]
    whole = next(iter(nano.answer(CLIP, QUESTIONS[:1])))
    assert (
        record.ok and record.media.frames == whole.media.frames // 2 and record.tokens.video == whole.tokens.video // 2
    )
    assert record.media.fps == pytest.approx(whole.media.fps / 2) and record.media.audio_s == whole.media.audio_s
    assert "frames instead of" in record.warnings[-1]


def test_where_nothing_can_be_less_it_is_not_tried_again(monkeypatch):
    session = open_session(resolve_settings({"model": "nano", "pruner": "none", "offline": True}))
    reading = session.read(CLIP)
    sound = replace(reading, clip=replace(reading.clip, frames=None, frame_times=None))
    monkeypatch.setattr(session.backbone, "prefill", runs_out(session.backbone.prefill, [1]))
    records = list(session.answer(CLIP, QUESTIONS, sound, together=True))
    assert [(r.ok, r.error.type, r.attempts) for r in records] == [(False, "out_of_memory", 1)] * 3


def test_out_of_memory_twice_is_a_failure_of_the_clip(session, monkeypatch):
    calls = [2]
    monkeypatch.setattr(session.backbone, "prefill", runs_out(session.backbone.prefill, calls))
    records = together(session)
    assert [(r.ok, r.error.type, r.error.stage, r.attempts) for r in records] == [
        (False, "out_of_memory", "prefill", 2)
    ] * 3
    assert len(calls) == 2 and len(calls[1][0]) < len(calls[0][0])


def test_one_question_that_fails_costs_the_others_nothing(session, monkeypatch):
    real = session.backbone.question_ids

    def ids(question):
        if question == QUESTIONS[1]:
            raise ValueError("no such words")
        return real(question)

    monkeypatch.setattr(session.backbone, "question_ids", ids)
    records = together(session)
    assert [r.ok for r in records] == [True, False, True]
    assert records[1].error.stage == "decode" and "no such words" in records[1].error.message
    assert records[0].answered_together == 1 and not records[0].prefix_reused and records[2].prefix_reused


def test_an_answer_without_a_word_is_a_failure_of_its_question(session, monkeypatch):
    real = session.backbone.answer_all

    def mute(*arguments, **more):
        first, *rest = real(*arguments, **more)
        return [replace(first, text=" \n"), *rest]

    monkeypatch.setattr(session.backbone, "answer_all", mute)
    records = together(session)
    assert [r.ok for r in records] == [False, True, True] and records[0].error.type == "empty_answer"


def test_a_pruner_that_reads_the_question_pays_for_each(nano):
    session = open_session(resolve_settings({"model": "nano", "pruner": "fastv", "keep": 0.45, "offline": True}))
    apart, side = list(session.answer(CLIP, QUESTIONS)), together(session)
    for one, other in zip(apart, side, strict=True):
        assert one.answer == other.answer and one.tokens == other.tokens and one.flops == other.flops
        assert not one.prefix_reused and not other.prefix_reused and other.answered_together == 1
        assert one.tokens.keep == pytest.approx(0.45, abs=0.001) and one.latency_s.prefill > 0
        assert any("reads the question: every question pays" in warning for warning in one.warnings)
    whole = next(iter(nano.answer(CLIP, QUESTIONS[:1])))
    backbone, asked = session.backbone, apart[0].tokens.question
    clip = apart[0].tokens.video + apart[0].tokens.audio + apart[0].tokens.text
    layers, kept = 5, round(0.45 * (clip - apart[0].tokens.text)) + apart[0].tokens.text + asked
    assert apart[0].flops.prefill == 2 * backbone.layer_flops(clip + asked, 0) + (layers - 2) * backbone.layer_flops(
        kept, 0
    )
    assert apart[0].flops.prefill_full == backbone.decoder_flops(clip + asked, 0, 0) > whole.flops.prefill_full
    everything = open_session(resolve_settings({"model": "nano", "pruner": "fastv", "keep": 1.0, "offline": True}))
    full = open_session(resolve_settings({"model": "nano", "pruner": "none", "offline": True}))
    assert [r.answer for r in together(everything)] == [r.answer for r in together(full)]
    total, parts = side[1].latency_s, side[1].latency_s
    assert total.total == pytest.approx(parts.prefill + parts.decode)


def test_where_and_for_how_long_a_file_is_decoded_is_no_part_of_the_key(nano):
    one, other, longer = (
        replace(nano, decode_options=replace(nano.decode_options, **options)).inputs
        for options in ({}, {"decoder": "nvdec", "timeout_s": 7.0}, {"max_frames": 4})
    )
    assert one.key == other.key != longer.key and "decoder" not in one.media


def test_a_record_says_where_the_grids_stand(nano):
    even, pairs = (
        replace(nano, decode_options=replace(nano.decode_options, max_frames=4, frames=choice)) for choice in CHOICES
    )
    (one,), (other,) = even.answer(CLIP, QUESTIONS[:1]), pairs.answer(CLIP, QUESTIONS[:1])
    assert (one.media.options["frames"], other.media.options["frames"]) == CHOICES
    assert one.media.grid_starts is None and other.media.grid_starts == [1.5, 5.5]
    assert (one.media.frames, one.media.fps) == (other.media.frames, other.media.fps) and one.key != other.key
    assert from_line(to_line(other)) == other


def test_a_clip_that_is_mostly_sound_for_want_of_frames_says_so(nano):
    (whole,) = nano.answer(CLIP, QUESTIONS[:1])
    assert whole.media.audio_track == 1 and whole.tokens.audio_kept > whole.tokens.video_kept
    assert not any("are sound" in line for line in whole.warnings)
    thin = replace(nano, decode_options=replace(nano.decode_options, max_frames=2))
    (record,) = thin.answer(CLIP, QUESTIONS[:1])
    assert record.media.frames == 2 and any("tokens are sound, as 2 frames" in line for line in record.warnings)
