"""Pieces of text and seeds."""

from __future__ import annotations

import random

import pytest
import torch
from helpers import tiny

from cg_cli.backbones import decoding


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.mark.parametrize("text", ["a red ball", "猫が鳴く 🎈🎈 naïve", "👩‍👩‍👧 x"])
def test_pieces_never_hold_half_a_character(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    pieces = []
    stream = decoding.TextStream(tokenizer, pieces.append)
    for token in ids:
        stream.push(token)
    assert "".join(pieces) == text and "\ufffd" not in "".join(pieces)
    assert stream.close() == text
    assert len(pieces) > 1


@pytest.mark.parametrize("seed", range(20))
def test_any_tokens_join_to_what_decoding_them_at_once_gives(tokenizer, seed):
    rng = random.Random(seed)
    ids = [rng.randrange(len(tokenizer)) for _ in range(40)]  # stray bytes and marks among them
    stream = decoding.TextStream(tokenizer)
    for token in ids:
        stream.push(token)
    assert stream.close() == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("seed", range(20))
def test_characters_cut_by_special_tokens_strays_and_ends_join_to_the_whole(tokenizer, seed):
    rng = random.Random(seed)
    marks = list(tokenizer.get_added_vocab().values())
    strays = [token for token in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([token])]
    text = "".join(rng.choice(["猫", "🎈", "👩‍👩‍👧", " naïve", "a", "\ufffd"]) for _ in range(12))
    ids = tokenizer(text)["input_ids"]
    for pool, count in ((marks, rng.randrange(5)), (strays, rng.randrange(3))):
        for _ in range(count):
            ids.insert(rng.randrange(len(ids)), rng.choice(pool))
    ids = ids[: rng.randrange(1, len(ids) + 1)]
    pieces: list[str] = []
    stream = decoding.TextStream(tokenizer, pieces.append)
    for token in ids:
        stream.push(token)
    assert stream.close() == "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_token_that_the_tokenizer_does_not_know_is_no_text(tokenizer):
    """A model's vocabulary is padded beyond its tokenizer's."""
    stream = decoding.TextStream(tokenizer)
    for token in [*tokenizer("a ball")["input_ids"], len(tokenizer) + 50]:
        stream.push(token)
    assert stream.close() == "a ball"


def test_an_unfinished_character_comes_out_at_the_end(tokenizer):
    ids = tokenizer("ok 猫")["input_ids"][:-1]
    pieces = []
    stream = decoding.TextStream(tokenizer, pieces.append)
    for token in ids:
        stream.push(token)
    assert "".join(pieces).strip() == "ok"
    assert stream.close().endswith("\ufffd")


def test_drawing_follows_the_distribution():
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    sample = decoding.make_sampler(2.0, seed=0)
    counts = torch.bincount(torch.tensor([sample(logits) for _ in range(4000)]), minlength=4) / 4000
    torch.testing.assert_close(counts, torch.softmax(logits / 2.0, dim=0), atol=0.03, rtol=0)
