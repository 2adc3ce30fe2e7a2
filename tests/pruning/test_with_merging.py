"""Merging as an option of every pruner before the language model."""

from __future__ import annotations

import pytest
import torch
from helpers.pruner_matrix import DECODER_CASES, PRUNING_CASES, Case
from helpers.synthetic_stream import make_stream

from cg_cli.pruning import merging, registry
from cg_cli.pruning.budget import plan

CASES = pytest.mark.parametrize("case", PRUNING_CASES, ids=str)


@CASES
def test_the_same_tokens_stay_whatever_becomes_of_the_others(case: Case):
    stream = make_stream(6, 3, 4)
    pruner, budget = case.make(), plan(stream, 0.3)
    own = pruner.prune(stream, budget)
    merged, dropped = (pruner.with_merging(way).prune(stream, budget) for way in ("nearest", "none"))
    assert torch.equal(own.indices, merged.indices) and torch.equal(own.indices, dropped.indices)
    assert dropped.merge is None
    assert len(merged.merge.dropped) + len(merged.indices) == len(stream)


@CASES
def test_asking_for_it_is_an_option_of_the_record_and_not_asking_is_none(case: Case):
    pruner = case.make()
    assert "merging" not in pruner.options()
    others = [pruner.with_merging(way) for way in ("nearest", "none")]
    options = [str(other.options()) for other in others]
    assert options[0] != options[1] and "merging" not in pruner.options()  # and it has not changed itself
    assert all(other.predictor is pruner.predictor for other in others)


def test_a_pruner_of_a_preset_is_as_published_unless_it_says_so():
    stream = make_stream(6, 3, 4)
    budget = plan(stream, 0.3)
    for name in ("divprune", "evs", "random"):
        assert registry.make(name).prune(stream, budget).merge is None
    own = registry.make("contextguard", prediction="none")
    assert own.prune(stream, budget).merge is not None
    assert own.with_merging("nearest").options() == own.options()
    assert merging.nearest(stream, own.prune(stream, budget)).merge is not None


@pytest.mark.parametrize("case", DECODER_CASES, ids=str)
def test_between_layers_nothing_merges(case: Case):
    with pytest.raises(ValueError, match="cannot merge"):
        case.make().with_merging("nearest")
