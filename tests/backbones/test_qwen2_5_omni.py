"""The engine against transformers' generate() on the same raw inputs, with a tiny random model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import official, tiny
from helpers.official import generate, logits_of
from transformers import DynamicCache

from cg_cli.backbones import qwen_inputs
from cg_cli.errors import ItemError, UsageError
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, Selection, TokenStream, apply

NEW = 16
TOLERANCE = 2e-5  # on logits with a standard deviation of 0.8
QUESTIONS = ["What do you see?", " hear the bell", "How many red balls are there?", "x", "猫 or dog\n"]
CLIPS = {
    "both": tiny.clip(6, 56, 84, 3.0),
    "odd frames": tiny.clip(5, 56, 56, 2.5),
    "capped video": tiny.clip(20, 28, 56, 37.0, seconds_per_frame=1.85),
    "short sound": tiny.clip(4, 28, 140, 0.3),
    "long sound": tiny.clip(2, 56, 56, 5.0),
    "video only": tiny.clip(6, 84, 56, None),
    "audio only": tiny.clip(None, seconds=3.3),
}


@pytest.mark.parametrize("name", CLIPS)
def test_the_model_notices_wrong_rows_and_positions(backbone, name):
    """Else the equalities here would prove nothing."""
    stream, question, tokens = backbone.encode(CLIPS[name]), QUESTIONS[0], [7, 8, 9]
    media = stream.modality != TEXT
    later = stream.positions.clone()
    later[0, media] += 1
    swapped = stream.embeddings.clone()
    swapped[media] = swapped[media].flip(0)
    right = logits_of(backbone, backbone.prefill(stream), question, tokens)
    for wrong in (replace(stream, positions=later), replace(stream, embeddings=swapped)):
        assert (logits_of(backbone, backbone.prefill(wrong), question, tokens) - right).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", CLIPS)
def test_unpruned_equals_generate(backbone, name):
    clip, question = CLIPS[name], QUESTIONS[0]
    tokens, logits = generate(backbone, official.inputs(backbone.tokenizer, clip, question), NEW)
    prefix = backbone.prefill(backbone.encode(clip))
    assert backbone.answer(prefix, question, max_new_tokens=NEW).token_ids == tuple(tokens)
    ours = logits_of(backbone, prefix, question, tokens)
    assert logits.std() > 0.5  # not flat, or the tokens prove nothing
    torch.testing.assert_close(ours, logits[: len(tokens)], atol=TOLERANCE, rtol=0)


def test_text_alone_equals_generate(backbone):
    ids = torch.tensor([backbone.tokenizer("user\nWhat do you see and hear")["input_ids"]])
    question = backbone.question_ids(QUESTIONS[0])
    whole = torch.cat([ids, torch.tensor([question])], dim=1)
    tokens, _ = generate(backbone, {"input_ids": whole, "attention_mask": torch.ones_like(whole)}, NEW)
    length = ids.shape[1]
    blank = torch.full((length,), -1)
    stream = TokenStream(
        embeddings=backbone.model.get_input_embeddings()(ids[0]).detach(),
        modality=torch.full((length,), TEXT),
        grid=blank,
        row=blank,
        column=blank,
        time_s=blank.float(),
        positions=torch.arange(length).expand(3, -1),
        next_position=length,
    )
    assert backbone.answer(backbone.prefill(stream), QUESTIONS[0], max_new_tokens=NEW).token_ids == tuple(tokens)


@pytest.mark.parametrize("name", ["both", "capped video", "audio only"])
def test_dropping_rows_equals_masking_their_keys(backbone, name):
    stream = backbone.encode(CLIPS[name])
    random = torch.Generator().manual_seed(1)
    kept = (stream.modality == TEXT) | (torch.rand(len(stream), generator=random) < 0.5)
    pruned = apply(stream, Selection(kept.nonzero()[:, 0]))
    prefix = backbone.prefill(pruned)
    assert prefix.length == int(kept.sum()) < len(stream)
    tokens = backbone.answer(prefix, QUESTIONS[0], max_new_tokens=NEW).token_ids
    ours = logits_of(backbone, prefix, QUESTIONS[0], tokens)

    fed = [*backbone.question_ids(QUESTIONS[0]), *tokens[:-1]]
    embed = backbone.model.get_input_embeddings()
    rows = torch.cat([stream.embeddings, embed(torch.tensor(fed)).detach()])
    positions = torch.cat([stream.positions, torch.arange(len(fed)).expand(3, -1) + stream.next_position], dim=1)
    mask = torch.cat([kept, torch.ones(len(fed), dtype=torch.bool)]).long()
    with torch.no_grad():
        hidden = backbone.model.model.language_model(
            inputs_embeds=rows[None], position_ids=positions[:, None], attention_mask=mask[None]
        ).last_hidden_state[0]
        expected = backbone.model.lm_head(hidden[-len(tokens) :])
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)


def test_five_questions_on_one_prefix_equal_five_fresh_runs(backbone):
    stream = backbone.encode(CLIPS["both"])
    shared = backbone.prefill(stream)
    together = [backbone.answer(shared, question, max_new_tokens=NEW).token_ids for question in QUESTIONS]
    fresh = [backbone.answer(backbone.prefill(stream), q, max_new_tokens=NEW).token_ids for q in QUESTIONS]
    assert together == fresh
    assert len(set(together)) > 1


@pytest.mark.parametrize("sampling", [{}, {"temperature": 2.0, "seed": 3}], ids=["greedy", "drawn"])
def test_questions_side_by_side_equal_one_by_one(backbone, monkeypatch, sampling):
    """Also when one stops early, one at the limit, and one is the question before it."""
    prefix = backbone.prefill(backbone.encode(CLIPS["both"]))
    questions = [*QUESTIONS, QUESTIONS[0], "x"]
    first = backbone.answer(prefix, questions[1], max_new_tokens=NEW, **sampling).token_ids
    monkeypatch.setattr(backbone, "_stop_ids", backbone.stop_ids | {first[2]})
    alone = [backbone.answer(prefix, question, max_new_tokens=NEW, **sampling) for question in questions]
    together = backbone.answer_all(prefix, questions, max_new_tokens=NEW, **sampling)
    timeless = [[replace(g, seconds_to_first_token=0) for g in same] for same in (alone, together)]
    assert timeless[0] == timeless[1]
    assert sampling or len({len(g.token_ids) for g in together}) > 1
    assert all(g.seconds_to_first_token > 0 for g in together)
    assert backbone.answer_all(prefix, [], max_new_tokens=NEW) == []


@pytest.mark.parametrize("ask", ["answer", "answer_all"])
@pytest.mark.parametrize("stop_at", [0, 2, 5])
def test_an_interrupt_leaves_the_prefix_reusable(backbone, stop_at, ask):
    stream = backbone.encode(CLIPS["both"])
    prefix = backbone.prefill(stream)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in prefix.cache.layers]
    calls = []

    def interrupt(*_):
        """Between two layers, so that their caches are uneven."""
        calls.append(1)
        if len(calls) > stop_at:
            raise KeyboardInterrupt

    hook = backbone.model.model.language_model.layers[1].register_forward_pre_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            if ask == "answer":
                backbone.answer(prefix, QUESTIONS[0], max_new_tokens=NEW)
            else:
                backbone.answer_all(prefix, QUESTIONS, max_new_tokens=NEW)
    finally:
        hook.remove()
    for layer, (keys, values) in zip(prefix.cache.layers, before):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)


def test_stream_describes_the_clip(backbone):
    clip = CLIPS["odd frames"]
    stream = backbone.encode(clip)
    video, audio = stream.modality == VIDEO, stream.modality == AUDIO
    assert int(video.sum()) == 3 * 2 * 2 and int(audio.sum()) == 62
    assert stream.time_s[video].unique().tolist() == [0.0, 1.0, 2.0]
    assert stream.embeddings.shape == (len(stream), backbone.hidden_size)
    assert stream.embeddings.isfinite().all() and not stream.embeddings.requires_grad
    prefix = backbone.prefill(stream)
    heads_width = 2 * 2 * 16  # keys and values of 2 heads of 16
    assert prefix.kv_bytes == len(stream) * 2 * heads_width * 4
    assert prefix.next_position == stream.next_position


def test_encoders_in_pieces_equal_one_piece(backbone, monkeypatch):
    clip = tiny.clip(10, 56, 84, 9.005)  # the last audio block is 1 mel frame: no token of its own
    whole = backbone.encode(clip)
    monkeypatch.setattr(qwen_inputs, "MAX_PATCHES", 50)  # 2 grids of 24 patches
    monkeypatch.setattr(qwen_inputs, "AUDIO_PIECE_BLOCKS", 2)
    pieces = backbone.encode(clip)
    torch.testing.assert_close(pieces.embeddings, whole.embeddings, atol=1e-5, rtol=0)


def test_long_sound_is_heard_to_its_end(backbone):
    stream = backbone.encode(tiny.clip(None, seconds=301.0))
    audio = stream.modality == AUDIO
    assert int(audio.sum()) == 7525
    assert stream.time_s[audio][-1].item() == pytest.approx(7524 / 25)


def test_nothing_to_look_at_is_an_item_error(backbone):
    with pytest.raises(ItemError, match="neither") as caught:
        backbone.encode(tiny.clip(None, seconds=None))
    assert caught.value.stage == "encode"


def test_sampling_follows_its_seed(backbone):
    prefix = backbone.prefill(backbone.encode(CLIPS["both"]))

    def draw(seed: int):
        return backbone.answer(prefix, "x", max_new_tokens=NEW, temperature=2.0, seed=seed).token_ids

    assert draw(3) == draw(3)
    assert len({draw(seed) for seed in range(4)}) > 1
    greedy = backbone.answer(prefix, "x", max_new_tokens=NEW).token_ids
    assert backbone.answer(prefix, "x", max_new_tokens=NEW, temperature=1e-4, seed=5).token_ids == greedy


def test_generation_says_how_it_ended(backbone, monkeypatch):
    prefix = backbone.prefill(backbone.encode(CLIPS["video only"]))
    pieces = []
    long = backbone.answer(prefix, "What?", max_new_tokens=6, on_text=pieces.append)
    assert long.finish == "length" and len(long.token_ids) == 6
    assert "".join(pieces) == long.text == backbone.tokenizer.decode(long.token_ids)
    assert long.question_tokens == len(backbone.question_ids("What?"))
    assert long.seconds_to_first_token > 0
    monkeypatch.setattr(backbone, "_stop_ids", backbone.stop_ids | {long.token_ids[2]})
    cut = long.token_ids.index(long.token_ids[2])
    short = backbone.answer(prefix, "What?", max_new_tokens=6)
    assert short.finish == "stop" and short.token_ids == long.token_ids[:cut]
    monkeypatch.setattr(backbone, "_stop_ids", frozenset(range(1000)))
    silent = backbone.answer(prefix, "What?", max_new_tokens=6)
    assert (silent.text, silent.token_ids, silent.finish) == ("", (), "stop")


def test_stop_tokens_are_those_of_the_checkpoint(backbone):
    assert backbone.stop_ids == {backbone.model.generation_config.eos_token_id}
    assert backbone.tokenizer.convert_ids_to_tokens(list(backbone.stop_ids)) == ["<|im_end|>"]


def test_broken_output_is_an_error_not_an_answer(backbone):
    stream = backbone.encode(CLIPS["video only"])
    prefix = backbone.prefill(replace(stream, embeddings=stream.embeddings * torch.nan))
    with pytest.raises(ItemError, match="not finite") as caught:
        backbone.answer(prefix, "What?", max_new_tokens=3)
    assert caught.value.stage == "decode"


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"max_new_tokens": 3, "temperature": -1.0}])
def test_senseless_options_are_refused(backbone, options):
    prefix = backbone.prefill(backbone.encode(CLIPS["video only"]))
    with pytest.raises(UsageError):
        backbone.answer(prefix, "What?", **options)
    with pytest.raises(UsageError):
        backbone.answer_all(prefix, ["What?"], **options)


def test_bfloat16_runs_and_stays_close(thinker_dir, backbone):
    from cg_cli import backbones

    half = backbones.load(str(thinker_dir), device="cpu", dtype="bfloat16", offline=True)
    stream = half.encode(CLIPS["both"])
    assert stream.embeddings.dtype == half.dtype == torch.bfloat16
    exact = backbone.encode(CLIPS["both"]).embeddings
    assert (stream.embeddings.float() - exact).norm() < 0.05 * exact.norm()
    assert isinstance(half.prefill(stream).cache, DynamicCache)
    assert half.answer(half.prefill(stream), "x", max_new_tokens=3).token_ids
