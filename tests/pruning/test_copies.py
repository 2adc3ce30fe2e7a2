"""Tokens that repeat others: never paid for, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.pruner_matrix import PRUNING_CASES, Case
from helpers.synthetic_stream import make_stream

from cg_cli.pruning import budget as budgets
from cg_cli.pruning import copies, registry
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.copies import REPEATED
from cg_cli.pruning.stream import AUDIO, VIDEO, Selection, TokenStream, apply

SOURCES = [0, 0, 0, 3, 4, 4, 6, 6]  # the grid that each one repeats


def repeating(**more) -> TokenStream:
    """Eight grids, of which four repeat an earlier one token by token."""
    stream = make_stream(8, 3, 4, **more)
    video = (stream.modality == VIDEO).nonzero()[:, 0].view(8, -1)
    same_as = torch.arange(len(stream))
    same_as[video] = video[torch.tensor(SOURCES)]
    return replace(stream, embeddings=stream.embeddings[same_as], same_as=same_as)


def without_copies(stream: TokenStream) -> torch.Tensor:
    return (stream.same_as == torch.arange(len(stream))).nonzero()[:, 0]


folding = pytest.mark.parametrize("case", [c for c in PRUNING_CASES if registry.find(c.name).load().can_fold], ids=str)


@folding
@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_a_pruner_ranks_what_is_fresh_and_copies_go_where_their_source_goes(case: Case, keep: float):
    stream = repeating()
    budget = budgets.plan(stream, keep)
    pruner = case.make(stream.embeddings.shape[1]).with_folding()
    selection = pruner.prune(stream, budget)
    rows = without_copies(stream)
    assert set(selection.indices.tolist()) <= set(rows.tolist())
    kinds = stream.modality[selection.indices]
    counts = case.counts(apply(stream, Selection(rows)), budget)
    assert ((kinds == VIDEO).sum(), (kinds == AUDIO).sum()) == (counts.video, counts.audio)
    # The same as of the stream that has no copies.
    alone = pruner.prune(apply(stream, Selection(rows)), budget)
    assert torch.equal(rows[alone.indices], selection.indices)
    into = {i: (i, 1.0) for i in selection.indices.tolist()}
    if alone.merge is not None:
        merge = (rows[alone.merge.dropped], rows[alone.merge.into], alone.merge.weight)
        into |= {d: (i, w) for d, i, w in zip(*(part.tolist() for part in merge))}
    merge = selection.merge
    got = {d: (i, w) for d, i, w in zip(merge.dropped.tolist(), merge.into.tolist(), merge.weight.tolist())}
    for row, source in enumerate(stream.same_as.tolist()):
        if row != source:
            expected = into.get(source, (None, 0.0))
            assert got[row][1] == pytest.approx(expected[1]) and (not expected[1] or got[row][0] == expected[0])
    pruned = apply(stream, selection)
    assert pruned.same_as is None and len(pruned) == len(selection.indices)


def test_a_kept_token_stands_for_its_copies_and_is_what_it_was():
    stream = repeating()
    pruned = apply(stream, registry.make("random").with_folding().prune(stream, budgets.plan(stream, 0.5)))
    video = pruned.modality == VIDEO
    repeats = torch.tensor([SOURCES.count(grid) for grid in range(8)], dtype=torch.float32)
    assert torch.equal(pruned.merge_size[video], repeats[pruned.grid[video]])
    assert (pruned.merge_size[~video] == 1).all()
    whole = {tuple(row) for row in stream.embeddings.tolist()}
    # A mean of equal numbers rounds at most in the last bit.
    for row in pruned.embeddings[video]:
        assert any(torch.allclose(row, torch.tensor(other)) for other in whole)


@pytest.mark.parametrize(("keep", "expected"), [(0.2, Budget(19, 8)), (0.65, Budget(48, 40)), (0.9, Budget(48, 40))])
def test_the_budget_is_of_all_tokens_and_for_the_fresh_ones(keep: float, expected: Budget):
    stream = repeating(audio_per_chunk=10)
    assert (int((stream.modality == VIDEO).sum()), int((stream.modality == AUDIO).sum())) == (96, 40)
    assert budgets.plan(stream, keep) == expected
    assert budgets.plan(stream, 1.0) == Budget(96, 40)


def test_whole_clips_and_those_who_do_not_fold_see_every_token():
    stream = repeating()
    for name, keep in (("none", 1.0), ("contextguard", 1.0)):
        selection = registry.make(name).with_folding().prune(stream, budgets.plan(stream, keep))
        assert apply(stream, selection) is stream
    plain = replace(stream, same_as=None)
    for name in ("contextguard", "uniform", "contextguard-online", "fastv"):
        pruner, budget = registry.make(name), budgets.plan(plain, 0.4)
        assert torch.equal(pruner.prune(stream, budget).indices, pruner.prune(plain, budget).indices)
    for name in ("contextguard-online", "fastv"):
        with pytest.raises(ValueError, match=f"{name} ranks every token as it comes"):
            registry.make(name).with_folding()


def test_a_copy_is_explained_as_one_and_the_others_as_without_it():
    stream = repeating()
    pruner, budget = registry.make("contextguard").with_folding(), budgets.plan(stream, 0.3)
    selection = pruner.prune(stream, budget)
    rows, explanation = without_copies(stream), pruner.explanation(stream, budget, selection)
    folded = copies.fold(stream)
    alone = pruner.explain(folded.stream, budget, pruner.prune(folded.stream, budget))
    words = [explanation.reasons[code] for code in explanation.reason.tolist()]
    assert [words[row] for row in rows.tolist()] == [alone.reasons[code] for code in alone.reason.tolist()]
    assert {words[row] for row in range(len(stream)) if row not in set(rows.tolist())} == {REPEATED}
    assert explanation.score.isnan().sum() == alone.score.isnan().sum() + len(stream) - len(rows)
