"""Proportional attention: a merged token gets log(size) added to its attention logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import tiny
from torch.nn.functional import scaled_dot_product_attention

from cg_cli.backbones.weighted_cache import WeightedCache
from cg_cli.pruning.stream import VIDEO, Merge, Selection, apply

NEW = 12
CLIP = tiny.clip(6, 56, 84, 3.0)
QUESTIONS = ["What do you see?", " hear the bell", "How many red balls are there?"]


def attend(query, keys, values, mask=None):
    return scaled_dot_product_attention(query[None, None], keys[None, None], values[None, None], attn_mask=mask)[0, 0]


def test_a_merged_key_gets_what_its_tokens_would_get_together(backbone):
    """The mask against a plain softmax over the repeated keys; a question that follows has merge size 1."""
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (
        torch.randn(n, 8, generator=generator) for n in (3, 6, 6)
    )  # 4 of a prefix, 2 of a question, 3 new
    keys, values = (torch.cat([x, torch.randn(3, 8, generator=generator)]) for x in (keys, values))
    count = torch.tensor([1, 3, 1, 5])
    cache = WeightedCache(backbone.model.config, count.float())
    cache.update(torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 6, 8), 0)  # what it holds does not matter, only how much
    mask = cache.mask(3, torch.float32)["full_attention"][0, 0]
    ours = attend(query, keys, values, mask)
    times = torch.cat([count, torch.ones(5, dtype=torch.int64)])
    for row in range(3):
        length = 7 + row
        repeated = [x[:length].repeat_interleave(times[:length], dim=0) for x in (keys, values)]
        torch.testing.assert_close(ours[row], attend(query[row : row + 1], *repeated)[0])


def test_a_cache_without_weights_needs_no_mask(backbone):
    cache = WeightedCache(backbone.model.config)
    assert cache.mask(5, torch.float32) is None


def merged(stream):
    """``stream`` with every second video row folded into the one before it."""
    video = (stream.modality == VIDEO).nonzero()[:, 0]
    into, dropped = video[::2][: len(video) // 2], video[1::2]
    kept = torch.tensor([i for i in range(len(stream)) if i not in set(dropped.tolist())])
    return apply(stream, Selection(kept, Merge(dropped, into, torch.ones(len(dropped)))))


def first_logits(backbone, stream):
    prefix = backbone.prefill(stream)
    return backbone.extend(backbone.question_ids(QUESTIONS[0]), prefix.next_position, prefix.cache)


def test_merge_sizes_of_one_change_nothing(backbone):
    stream = backbone.encode(CLIP)
    weighted = replace(stream, merge_size=torch.ones(len(stream)))
    torch.testing.assert_close(first_logits(backbone, weighted), first_logits(backbone, stream), atol=2e-5, rtol=0)


def test_merge_sizes_reach_the_answer(backbone):
    stream = merged(backbone.encode(CLIP))
    plain = first_logits(backbone, replace(stream, merge_size=None))
    assert stream.merge_size.max() == 2
    assert (first_logits(backbone, stream) - plain).abs().max() > 1e-3


def test_several_questions_on_a_weighted_prefix_equal_fresh_runs_one_by_one_and_side_by_side(backbone):
    stream = merged(backbone.encode(CLIP))
    shared = backbone.prefill(stream)
    one_by_one = [backbone.answer(shared, q, max_new_tokens=NEW).token_ids for q in QUESTIONS]
    fresh = [backbone.answer(backbone.prefill(stream), q, max_new_tokens=NEW).token_ids for q in QUESTIONS]
    together = [g.token_ids for g in backbone.answer_all(shared, QUESTIONS, max_new_tokens=NEW)]
    assert one_by_one == fresh == together
    assert len(set(fresh)) > 1


def test_a_stream_is_merged_once(backbone):
    stream = merged(backbone.encode(CLIP))
    with pytest.raises(ValueError, match="merged before"):
        merged(stream)
