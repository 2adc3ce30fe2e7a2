"""Penalty, positions and adapter from settings to the record: known before the weights, in force, and in the key."""

from __future__ import annotations

import json

import pytest
from helpers import SAMPLES, tiny, tiny_video_salmonn2

from cg_cli import records
from cg_cli.engine.inputs import conditions, conditions_of_record
from cg_cli.engine.setup import expect, open_session
from cg_cli.errors import UsageError
from cg_cli.settings.resolve import resolve_settings

CLIP = str(SAMPLES / "dog.mp4")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    out = tiny.build(tmp_path_factory.mktemp("model"))
    said = {"repetition_penalty": 1.05, "eos_token_id": 3, "do_sample": True, "top_p": 0.8, "no_repeat_ngram_size": 9}
    (out / "generation_config.json").write_text(json.dumps(said))
    return out


@pytest.fixture(scope="module")
def salmonn(tmp_path_factory):
    return tiny_video_salmonn2.build(tmp_path_factory.mktemp("salmonn"))


def settings(directory, **more):
    common = {"model": str(directory), "device": "cpu", "offline": True, "preset": "full", "max_frames": 16}
    return resolve_settings(common | {"max_pixels": 28 * 28 * 4, "max_new_tokens": 12} | more, config_files=False)


@pytest.mark.parametrize(("asked", "force"), [(None, 1.05), (1.3, 1.3), (1.0, 1.0)])
def test_the_penalty_in_force_is_in_the_record_and_its_key(directory, asked, force):
    session, known = (
        open_session(settings(directory, repetition_penalty=asked)),
        expect(settings(directory, repetition_penalty=asked)),
    )
    assert session.inputs == known.inputs
    (record,) = session.answer(CLIP, ["What is seen?"])
    assert isinstance(record, records.Answer)
    assert record.sampling.repetition_penalty == force
    assert record.sampling.temperature == 0
    assert record.model.generation_config == {"repetition_penalty": 1.05, "do_sample": True, "top_p": 0.8}
    assert [line for line in record.warnings if "no_repeat_ngram_size, which cg does not follow" in line]
    assert conditions_of_record(json.loads(records.to_line(record))) == conditions(session.inputs)
    prefilled = session.backbone.prefill(session.backbone.encode(session.read(CLIP).clip))
    plain = session.backbone.answer(prefilled, "What is seen?", max_new_tokens=12, repetition_penalty=force)
    assert record.answer == plain.text.strip()


def test_penalties_have_keys_of_their_own(directory):
    keys = [expect(settings(directory, repetition_penalty=asked)).inputs.key for asked in (None, 1.05, 1.3, 1.0)]
    assert keys[0] == keys[1] and len(set(keys)) == 3


@pytest.mark.parametrize("asked", [0, -1.5])
def test_a_penalty_of_zero_or_less_is_refused(asked):
    with pytest.raises(UsageError, match=f"^--repetition-penalty must be above 0, not {asked}$"):
        settings("nano", repetition_penalty=asked)


@pytest.mark.parametrize(
    ("more", "rule"),
    [({}, "training"), ({"positions": "inference"}, "inference"), ({"preset": "video-salmonn2"}, "inference"),
     ({"preset": "video-salmonn2", "positions": "training"}, "training")],
)  # fmt: skip
def test_the_set_of_positions_is_in_the_record_and_its_key(salmonn, more, rule):
    asked = settings(salmonn, **more)
    session = open_session(asked)
    assert session.backbone.positions == session.inputs.positions == rule
    assert session.inputs == expect(asked).inputs
    if "preset" not in more:
        (record,) = session.answer(CLIP, ["What is seen?"])
        assert record.rules.positions == rule


def test_sets_of_positions_have_keys_of_their_own(salmonn):
    key = lambda positions: expect(settings(salmonn, positions=positions)).inputs.key
    assert key("auto") == key("training") != key("inference")


@pytest.mark.parametrize("positions", ["auto", "training", "inference"])
def test_a_family_with_one_set_uses_it_in_any_case(directory, positions):
    assert expect(settings(directory, positions=positions)).inputs.positions is None
