"""Nano on a device says what it says elsewhere: what transformers generates, what masking gives, what float32 gives.

Kernels of a GPU sum in other orders than those of a CPU, and bfloat16 keeps eight bits: logits are near, and tokens are
the same but where two of them are about as good.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import official, tiny
from helpers.official import logits_of

from cg_cli.pruning.stream import TEXT, VIDEO, Merge, Selection, apply

NEW = 12
QUESTION = "What do you see?"
QUESTIONS = (QUESTION, "What do you hear?", "How many red balls are there?")
CLIPS = (tiny.clip(8, 112, 112, 4.0), tiny.clip(4, 56, 84, 2.0, seed=1), tiny.clip(6, 84, 56, None, seed=2))
NEAR = {"float32": 1e-3, "bfloat16": 0.1}  # how far logits may be apart, in their standard deviations


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """Else those in float32 keep ten bits on CUDA."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def backbone(load, device, dtype):
    return load(device, dtype)


def assert_near(ours, expected, dtype):
    """Logits [n, vocabulary] that differ by no more than the dtype may make them."""
    ours, expected = ours.float().cpu(), expected.float().cpu()
    assert (ours - expected).abs().max() < NEAR[dtype] * expected.std()


def assert_same_tokens(backbone, stream, question, ours, expected, dtype):
    """Token ids are the same up to the first place where another one is about as good."""
    at = next((at for at, pair in enumerate(zip(ours, expected)) if pair[0] != pair[1]), None)
    if at is None:
        return
    logits = logits_of(backbone, backbone.prefill(stream), question, expected[: at + 1])[-1].float()
    assert logits[expected[at]] - logits[ours[at]] < NEAR[dtype] * logits.std()


def merged(stream):
    """``stream`` in which every fourth video token has the three after it folded into it."""
    video = (stream.modality == VIDEO).nonzero()[:, 0]
    video = video[: len(video) // 4 * 4].view(-1, 4)
    dropped, into = video[:, 1:].flatten(), video[:, :1].expand(-1, 3).flatten()
    kept = torch.ones(len(stream), dtype=torch.bool, device=video.device).index_fill(0, dropped, False)
    weights = torch.ones(len(dropped), device=video.device)
    return apply(stream, Selection(kept.nonzero()[:, 0], Merge(dropped, into, weights)))


def moved(stream, backbone):
    """``stream`` on the device and in the dtype of ``backbone``."""
    tensors = {name: value for name, value in vars(stream).items() if isinstance(value, torch.Tensor)}
    there = {name: value.to(backbone.device) for name, value in tensors.items()}
    return replace(stream, **there | {"embeddings": there["embeddings"].to(backbone.dtype)})


def test_unpruned_equals_generate(backbone, dtype):
    raw = official.inputs(backbone.tokenizer, CLIPS[0], QUESTION)
    for name, value in raw.items():
        if isinstance(value, torch.Tensor):
            floating = name in ("pixel_values_videos", "input_features")
            raw[name] = value.to(backbone.device, backbone.dtype if floating else value.dtype)
    tokens, logits = official.generate(backbone, raw, NEW)
    stream = backbone.encode(CLIPS[0])
    assert tokens
    assert_near(logits_of(backbone, backbone.prefill(stream), QUESTION, tokens), logits[: len(tokens)], dtype)
    ours = backbone.answer(backbone.prefill(stream), QUESTION, max_new_tokens=NEW).token_ids
    assert_same_tokens(backbone, stream, QUESTION, ours, tokens, dtype)


def test_dropping_rows_equals_masking_their_keys(backbone, dtype):
    stream = backbone.encode(CLIPS[0])
    chosen = torch.rand(len(stream), generator=torch.Generator().manual_seed(1)).to(backbone.device) < 0.5
    kept = (stream.modality == TEXT) | chosen
    ours = logits_of(backbone, backbone.prefill(apply(stream, Selection(kept.nonzero()[:, 0]))), QUESTION, [0])

    fed = torch.tensor(backbone.question_ids(QUESTION), device=backbone.device)
    rows = torch.cat([stream.embeddings, backbone.model.get_input_embeddings()(fed).detach()])
    after = torch.arange(len(fed), device=backbone.device).expand(3, -1) + stream.next_position
    mask = torch.cat([kept, torch.ones_like(fed, dtype=torch.bool)]).long()
    with torch.no_grad():
        hidden = backbone.model.model.language_model(
            inputs_embeds=rows[None],
            position_ids=torch.cat([stream.positions, after], dim=1)[:, None],
            attention_mask=mask[None],
        ).last_hidden_state[0, -1:]
        assert_near(ours, backbone.model.lm_head(hidden), dtype)


def test_merge_sizes_weigh_as_in_float32_on_the_cpu(backbone, load, dtype):
    """Which is checked against the definition in ``test_proportional_attention.py``."""
    reference = load("cpu", "float32")
    stream = merged(reference.encode(CLIPS[0]))
    expected = logits_of(reference, reference.prefill(stream), QUESTION, [0])
    ours = logits_of(backbone, backbone.prefill(moved(stream, backbone)), QUESTION, [0])
    assert_near(ours, expected, dtype)
    plain = replace(stream, merge_size=None)
    without = logits_of(reference, reference.prefill(plain), QUESTION, [0])
    # Else the equality would prove nothing: what sizes change is more than what the dtype may.
    assert (without - expected).abs().max() > 2 * NEAR[dtype] * expected.std()


def test_together_is_as_alone(backbone, dtype):
    streams = [merged(backbone.encode(CLIPS[0])), *(backbone.encode(clip) for clip in CLIPS[1:])]
    prefixes = [backbone.prefill(stream) for stream in streams]
    asked = [(row, question) for row in range(len(streams)) for question in QUESTIONS[: row + 1]]
    together = {n: one for n, one, _ in backbone.answer_batch(prefixes, asked, max_new_tokens=NEW)}
    assert sorted(together) == list(range(len(asked)))
    for number, (row, question) in enumerate(asked):
        alone = backbone.answer(prefixes[row], question, max_new_tokens=NEW).token_ids
        assert_same_tokens(backbone, streams[row], question, together[number].token_ids, alone, dtype)
