"""generation_config.json: penalty and end tokens against transformers' ``generate`` with the same file; what is not
followed is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from helpers import official, tiny
from helpers.families import FAMILIES
from test_batching import Replayed
from test_layerwise_prefill import Scripted
from test_qwen3_omni import QUESTION as QUESTION_OF_QWEN3
from test_qwen3_omni import inputs as inputs_of_qwen3
from transformers import (
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    RepetitionPenaltyLogitsProcessor,
)

from cg_cli import backbones
from cg_cli.backbones import decoding
from cg_cli.backbones.generation import GenerationSettings, read
from cg_cli.errors import UsageError
from cg_cli.pruning.budget import plan
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, Selection, apply

NEW = 16
PENALTY = 1.3
QUESTIONS = ("What do you see and hear?", "How many red balls?", "Left?")
CLIPS = [tiny.clip(6, 56, 84, 3.0), tiny.clip(4, 56, 56, None, seed=1), tiny.clip(None, seconds=2.0, seed=2)]


def load(directory, **options):
    return backbones.load(str(directory), device="cpu", dtype="float32", offline=True, **options)


def with_file(source, target, **said):
    """A copy of a checkpoint whose generation_config.json says something else."""
    shutil.copytree(source, target)
    (target / "generation_config.json").write_text(json.dumps(said))
    return target


@pytest.fixture(scope="module")
def penalized(thinker_dir, tmp_path_factory):
    """The thinker alone, with a penalty and several end tokens, none of which ends a turn."""
    target = tmp_path_factory.mktemp("penalized") / "model"
    return load(with_file(thinker_dir, target, repetition_penalty=PENALTY, eos_token_id=[3, 301], do_sample=True))


def greedy(backbone, clip, question):
    """transformers' tokens before the end token, with the checkpoint's file and nothing but greedy asked for."""
    inputs = official.inputs(backbone.tokenizer, clip, question)
    with torch.no_grad():
        out = backbone.model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    tokens = out[0, inputs["input_ids"].shape[1] :].tolist()
    return tuple(tokens[:-1] if tokens[-1] in backbone.stop_ids else tokens)


@pytest.fixture(scope="module")
def expected(penalized):
    return {(row, text): greedy(penalized, clip, text) for row, clip in enumerate(CLIPS) for text in QUESTIONS}


def test_the_file_is_read(penalized):
    assert penalized.repetition_penalty == penalized.model.generation_config.repetition_penalty == PENALTY
    assert penalized.stop_ids == {3, 301}
    assert penalized.generation.said == {"repetition_penalty": PENALTY, "do_sample": True}
    assert not penalized.warnings


def test_answers_equal_generate_alone_and_together(penalized, backbone, expected):
    prefixes = [penalized.prefill(penalized.encode(clip)) for clip in CLIPS]
    alone = {(row, text): penalized.answer(prefixes[row], text, max_new_tokens=NEW).token_ids for row, text in expected}
    assert alone == expected
    of_one = penalized.answer_all(prefixes[0], QUESTIONS, max_new_tokens=NEW)
    assert [each.token_ids for each in of_one] == [expected[0, text] for text in QUESTIONS]
    asked = list(expected)
    together = penalized.answer_batch(prefixes, asked, max_new_tokens=NEW)
    assert {asked[number]: each.token_ids for number, each, _ in together} == expected
    without = [backbone.answer(prefixes[row], text, max_new_tokens=NEW).token_ids for row, text in expected]
    assert without != list(expected.values())  # else this proves nothing


def test_recorded_steps_give_the_same(penalized, expected, monkeypatch):
    """As CUDA graphs replay them: the penalty comes after the step, and the step's own logits stay."""
    prefixes, asked = [penalized.prefill(penalized.encode(clip)) for clip in CLIPS], list(expected)
    monkeypatch.setattr(penalized, "graphs", True)
    monkeypatch.setattr("cg_cli.backbones.step_graph._Recorded", Replayed)
    Replayed.made = 0
    together = penalized.answer_batch(prefixes, asked, max_new_tokens=NEW)
    assert {asked[number]: each.token_ids for number, each, _ in together} == expected
    assert Replayed.made


def test_what_is_asked_for_overrides_the_file(penalized, backbone):
    prefix = penalized.prefill(penalized.encode(CLIPS[0]))
    off = penalized.answer(prefix, QUESTIONS[0], max_new_tokens=NEW, repetition_penalty=1.0)
    assert off.token_ids == backbone.answer(prefix, QUESTIONS[0], max_new_tokens=NEW).token_ids
    other = backbone.answer(prefix, QUESTIONS[0], max_new_tokens=NEW, repetition_penalty=PENALTY)
    assert other.token_ids == penalized.answer(prefix, QUESTIONS[0], max_new_tokens=NEW).token_ids != off.token_ids


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("inf"), float("nan")])
def test_a_penalty_that_is_none_is_refused(backbone, penalty):
    prefix = backbone.prefill(backbone.encode(CLIPS[1]))
    with pytest.raises(UsageError, match="repetition_penalty > 0"):
        backbone.answer(prefix, "What?", max_new_tokens=1, repetition_penalty=penalty)


def test_sampling_draws_from_the_penalized_logits(penalized):
    """Near 0 it is greedy; above, the same with and without company, and other tokens than without a penalty."""
    prefix = penalized.prefill(penalized.encode(CLIPS[0]))
    how = {"max_new_tokens": NEW, "temperature": 0.9, "seed": 4}
    cold = penalized.answer(prefix, QUESTIONS[0], max_new_tokens=NEW, temperature=1e-4)
    assert cold.token_ids == penalized.answer(prefix, QUESTIONS[0], max_new_tokens=NEW).token_ids
    alone = [penalized.answer(prefix, text, **how).token_ids for text in QUESTIONS]
    assert [each.token_ids for each in penalized.answer_all(prefix, QUESTIONS, **how)] == alone
    assert [penalized.answer(prefix, text, **how, repetition_penalty=1.0).token_ids for text in QUESTIONS] != alone


def test_the_first_token_is_drawn_as_by_hand(penalized):
    clip, seen = CLIPS[0], official.inputs(penalized.tokenizer, CLIPS[0], QUESTIONS[0])["input_ids"][0]
    scores = official.logits_of(penalized, penalized.prefill(penalized.encode(clip)), QUESTIONS[0], [0])
    wanted = RepetitionPenaltyLogitsProcessor(PENALTY)(seen[None], scores)[0] / 0.9
    prefix, drawn = penalized.prefill(penalized.encode(clip)), []
    for seed in range(8):
        random = torch.Generator().manual_seed(seed)
        token = int(torch.multinomial(wanted.softmax(-1), 1, generator=random))
        answer = penalized.answer(prefix, QUESTIONS[0], max_new_tokens=1, temperature=0.9, seed=seed).token_ids
        assert answer == (() if token in penalized.stop_ids else (token,))
        drawn.append(token)
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("kept", [(TEXT,), (TEXT, AUDIO)], ids=["text alone", "no picture"])
def test_pruned_tokens_count_as_those_that_are_read(penalized, kept):
    """The penalty is of the prompt as it was written, whatever of it is read."""
    stream = penalized.encode(CLIPS[0])
    rows = sum(stream.modality == kind for kind in kept).nonzero()[:, 0]
    pruned = apply(stream, Selection(rows))
    assert pruned.prompt_ids == stream.prompt_ids
    vocabulary = penalized.tokenizer.get_vocab()
    assert {vocabulary["<|VIDEO|>"], vocabulary["<|AUDIO|>"]} <= penalized.prefill(pruned).prompt_ids


@pytest.mark.parametrize("clip", CLIPS, ids=["both", "video only", "audio only"])
def test_the_prompt_counted_is_the_published_one(backbone, clip):
    ids = official.inputs(backbone.tokenizer, clip, QUESTIONS[0])["input_ids"][0].tolist()
    prefix = backbone.prefill(backbone.encode(clip))
    assert prefix.prompt_ids | set(backbone.question_ids(QUESTIONS[0])) == set(ids)


def test_layer_by_layer_equals_at_once(penalized, expected):
    stream = penalized.encode(CLIPS[0])
    prefilled = penalized.prefill_layerwise(stream, QUESTIONS[0], Scripted({}), plan(stream, 1.0))
    answer = penalized.answer_layerwise(prefilled, QUESTIONS[0], max_new_tokens=NEW)
    assert answer.token_ids == expected[0, QUESTIONS[0]]


def test_the_penalty_is_what_the_definition_says():
    penalty = decoding.RepetitionPenalty(2.0, [{0, 1}, {3}])
    logits = torch.tensor([[4.0, -4.0, 4.0, -4.0], [4.0, -4.0, 4.0, -4.0]], dtype=torch.bfloat16)
    assert penalty.apply(logits, [0, 1], [None, None]).tolist() == [[2, -8, 4, -4], [4, -4, 4, -8]]
    assert penalty.apply(logits[1:], [1], [2]).tolist() == [[4, -4, 2, -8]]
    assert penalty.apply(logits[:1], [0], [0]).tolist() == [[2, -8, 4, -4]]  # once, however often it is there
    assert logits.tolist() == [[4, -4, 4, -4]] * 2


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_counts_its_own_marks(families, name):
    backbone = families(name)
    ids, clip = backbone.tokenizer.get_vocab(), FAMILIES[name].clip()
    marks = {ids["<|video_pad|>"], ids["<|audio_pad|>"]}
    assert marks <= backbone.encode(clip).prompt_ids
    assert marks - backbone.encode(FAMILIES[name].clip(sound=False)).prompt_ids == {ids["<|audio_pad|>"]}


def test_video_salmonn_equals_generate_with_its_file(family_dir, tmp_path):
    said = {
        "repetition_penalty": 1.05,
        "eos_token_id": [5, 7],
        "pad_token_id": 5,
        "temperature": 1e-6,
        "do_sample": True,
    }
    backbone = load(with_file(family_dir("video_salmonn2"), tmp_path / "model", **said))
    clip = FAMILIES["video_salmonn2"].clip(sound=False)
    stream, ids = backbone.encode(clip), backbone.question_ids(QUESTIONS[0])
    marks = ["<|video_pad|>"] * int((stream.modality == VIDEO).sum())
    head = backbone._ids(backbone.header + "<|vision_start|>" + "".join(marks) + "<|vision_end|>")
    after = (torch.arange(len(ids)) + stream.next_position).expand(3, -1)
    prompt = torch.tensor([head + ids])
    inputs = {
        "input_ids": prompt,
        "attention_mask": torch.ones_like(prompt),
        "pixel_values_videos": torch.tensor(official.patches(clip.frames), dtype=torch.float32),
        "video_grid_thw": torch.tensor([[3, 4, 6]]),
        "position_ids": torch.cat([stream.positions, after], dim=1)[:, None],
    }
    with torch.no_grad():
        tokens = backbone.model.generate(**inputs, max_new_tokens=NEW, do_sample=False)[0, prompt.shape[1] :].tolist()
    ours = backbone.answer(backbone.prefill(stream), QUESTIONS[0], max_new_tokens=NEW)
    assert list(ours.token_ids) == [token for token in tokens if token not in (5, 7)]
    assert backbone.stop_ids == {5, 7} and backbone.generation.said["temperature"] == 1e-6


def test_a_whole_omni_model_writes_text_without_the_file(tmp_path):
    """As transformers' own class does: its thinker has the settings of config.json alone."""
    tok = tiny.tokenizer()
    whole = Qwen2_5OmniConfig(thinker_config=tiny.config(tok, 1).to_dict(), enable_audio_output=False)
    whole.thinker_config.eos_token_id = 7
    model = Qwen2_5OmniForConditionalGeneration(whole)
    model.save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    torch.save({}, tmp_path / "spk_dict.pt")  # which it asks for
    (tmp_path / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.5, "eos_token_id": [9]}))
    theirs = Qwen2_5OmniForConditionalGeneration.from_pretrained(tmp_path).thinker.generation_config
    ours = load(tmp_path)
    assert (theirs.repetition_penalty or 1.0) == ours.repetition_penalty == 1.0
    assert {theirs.eos_token_id} == ours.stop_ids == {ours.model.generation_config.eos_token_id} == {7}
    (line,) = (line for line in ours.warnings if "repetition_penalty" in line)
    assert "1.5, which the model's own generate does not apply to text" in line and "--repetition-penalty" in line


def test_qwen3_equals_generate_with_a_penalty_that_is_asked_for(families):
    backbone, clip = families("qwen3_omni"), FAMILIES["qwen3_omni"].clip()
    raw = inputs_of_qwen3(backbone.tokenizer, clip)
    with torch.no_grad():
        out = backbone.model.generate(**raw, max_new_tokens=NEW, do_sample=False, repetition_penalty=PENALTY)
    tokens = [token for token in out[0, raw["input_ids"].shape[1] :].tolist() if token not in backbone.stop_ids]
    prefix = backbone.prefill(backbone.encode(clip))
    ours = backbone.answer(prefix, QUESTION_OF_QWEN3, max_new_tokens=NEW, repetition_penalty=PENALTY)
    assert list(ours.token_ids) == tokens
    assert ours.token_ids != backbone.answer(prefix, QUESTION_OF_QWEN3, max_new_tokens=NEW).token_ids


def test_qwen3_ends_on_the_turn_as_its_own_generate_does(families):
    backbone = families("qwen3_omni")
    assert backbone.stop_ids == {backbone.tokenizer.get_vocab()["<|im_end|>"]}


@pytest.mark.parametrize("said", [{}, {"eos_token_id": None}, None], ids=["empty", "null", "no file"])
def test_without_end_tokens_those_of_the_chat_format_end_an_answer(thinker_dir, tmp_path, said):
    target = with_file(thinker_dir, tmp_path / "model", **(said or {}))
    if said is None:
        (target / "generation_config.json").unlink()
    backbone = load(target)
    assert backbone.tokenizer.convert_ids_to_tokens(sorted(backbone.stop_ids)) in (
        ["<|endoftext|>", "<|im_end|>"], ["<|im_end|>", "<|endoftext|>"]
    )  # fmt: skip
    assert backbone.generation == GenerationSettings()


NEUTRAL = {
    "num_beams": 1, "no_repeat_ngram_size": 0, "min_length": 0, "min_new_tokens": None, "bad_words_ids": None,
    "suppress_tokens": [], "guidance_scale": 1.0, "do_sample": True, "top_k": 50, "max_new_tokens": 9,
    "pad_token_id": 1,
}  # fmt: skip


def test_what_changes_nothing_is_not_spoken_of():
    assert not read({}, NEUTRAL, "m").warnings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_beams", 4), ("no_repeat_ngram_size", 3), ("min_new_tokens", 1), ("bad_words_ids", [[1]]),
        ("suppress_tokens", [2]),
    ],
)  # fmt: skip
def test_what_is_not_followed_is_named(field, value):
    (line,) = read({}, {**NEUTRAL, field: value}, "m").warnings
    assert line == f"generation_config.json of m sets {field}, which cg does not follow: answers may differ"


def test_it_is_a_warning_of_the_backbone(thinker_dir, tmp_path):
    backbone = load(with_file(thinker_dir, tmp_path / "model", no_repeat_ngram_size=2, min_new_tokens=3))
    assert "sets min_new_tokens, no_repeat_ngram_size, which" in backbone.warnings[0]


@pytest.mark.parametrize("value", [0, -1, True, "1.05", [1.05], float("inf"), float("nan")])
def test_a_file_with_a_senseless_penalty_is_refused(value):
    with pytest.raises(
        UsageError, match="^generation_config.json of m has repetition_penalty .*: it must be a number above 0$"
    ):
        read({}, {"repetition_penalty": value}, "m")


def test_the_penalty_is_known_before_the_weights(thinker_dir, tmp_path):
    directory = with_file(thinker_dir, tmp_path / "model", repetition_penalty=PENALTY)
    (directory / "model.safetensors").write_bytes(b"")
    assert backbones.inspect_answering(str(directory), offline=True, positions="auto") == (PENALTY, None)


def test_streams_without_a_prompt_count_question_and_answer(backbone):
    """As those of a backbone that does not say."""
    stream = replace(backbone.encode(CLIPS[0]), prompt_ids=frozenset())
    answer = backbone.answer(backbone.prefill(stream), QUESTIONS[0], max_new_tokens=4, repetition_penalty=PENALTY)
    assert answer.token_ids
