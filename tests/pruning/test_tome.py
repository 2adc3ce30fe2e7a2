"""Token Merging, worked by hand, and what it costs."""

from __future__ import annotations

import pytest
import torch
from helpers.hand import at_angles, kept_rows, kept_video
from helpers.synthetic_stream import make_stream
from torch.utils.flop_counter import FlopCounterMode

from cg_cli.errors import UsageError
from cg_cli.pruning import registry
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.methods.tome import ToMe, match, schedule
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, apply


def test_a_chain_ends_at_the_token_that_stays_by_hand():
    """0, 4, 50, 52, 10 degrees, two pairs, one a round.

    A is 0, 50, 10; B is 4, 52. 50 is 2 from 52: they merge at 51. Left are 0, 4, 51, 10, so A is 0, 51 and B is 4, 10:
    0 merges into 4, at 2. Third: A is 2 and 10, B is 51, 41 from 10: 10 merges into the 51, at 37.3 in three parts.
    """
    embeddings, row = at_angles([[0, 4, 50, 52, 10]]), torch.arange(5)[None]
    rounds = [match(embeddings, row, torch.ones_like(row, dtype=torch.bool), [1] * n).tolist()[0] for n in range(5)]
    assert rounds[:2] == [[0, 1, 2, 3, 4], [0, 1, 3, 3, 4]]
    assert rounds[2:4] == [[1, 1, 3, 3, 4], [1, 1, 3, 3, 3]]
    assert rounds[4] == [3] * 5  # 0 went into 4, and with it into 52


def test_places_without_a_token_take_no_part():
    embeddings, row = at_angles([[0, 0, 0, 90], [30, 0, 0, 31]]), torch.arange(8).view(2, 4)
    mask = torch.tensor([[True, False, True, True], [True, False, False, True]])
    # A of the first window is 0 and 90, B is the second 0.
    assert match(embeddings, row, mask, [1]).tolist() == [[2, 1, 2, 3], [0, 1, 2, 3]]
    assert match(embeddings, row, mask, [2]).tolist() == [[2, 1, 2, 3], [3, 1, 2, 3]]


def test_a_kept_token_is_the_mean_of_all_that_it_stands_for():
    video = at_angles([[0, 2, 60, 90]])
    stream = make_stream(grids=1, height=1, width=4, text=(1, 1), video=video, audio_per_chunk=0)
    pruned = apply(stream, ToMe().select(stream, Budget(2, 0)))
    assert kept_video(ToMe(), stream, 2) == [(0, 1), (0, 2)]  # 0 into 2; then 90 is nearer to 60 than 1 is
    torch.testing.assert_close(pruned.embeddings[1:3], torch.stack([video[:2].mean(0), video[2:].mean(0)]))
    assert pruned.merge_size.tolist() == [1, 2, 2, 1]


def test_sound_merges_into_the_kept_token_before_it():
    stream = make_stream(grids=0, audio_per_chunk=6, text=(0, 0))
    selection = ToMe().select(stream, Budget(0, 2))
    assert selection.indices.tolist() == [1, 4]
    assert dict(zip(selection.merge.dropped.tolist(), selection.merge.into.tolist())) == {0: 1, 2: 1, 3: 1, 5: 4}


def test_every_dropped_token_merges_once_into_a_kept_one():
    stream = make_stream(grids=7)
    for budget in (Budget(1, 1), Budget(3, 20), Budget(30, 2), Budget(83, 40)):
        selection = ToMe().select(stream, budget)
        kept, merge = set(selection.indices.tolist()), selection.merge
        dropped = set(range(len(stream))) - kept
        assert sorted(merge.dropped.tolist()) == sorted(dropped) and set(merge.into.tolist()) <= kept
        assert torch.equal(stream.modality[merge.dropped], stream.modality[merge.into])
        size = apply(stream, selection).merge_size
        kinds = stream.modality[selection.indices]
        for kind in (VIDEO, AUDIO, TEXT):
            assert size[kinds == kind].sum() == (stream.modality == kind).sum()


@pytest.mark.parametrize(("total", "count", "windows"), [(100, 45, 2), (100, 1, 1), (7, 6, 3), (1000, 2, 1)])
def test_the_rounds_meet_the_budget_and_never_need_more_pairs_than_there_are(total, count, windows):
    counts, left = schedule(total, count, windows, 12), total
    for pairs in counts:
        assert 0 < pairs <= (left - windows + 1) // 2
        left -= pairs
    assert left == count
    assert max(counts) - min(counts) <= 1 or left < total / 2


def test_its_operations_are_those_that_torch_counts():
    stream = make_stream(9, 6, 6, dim=96)  # the last of the windows is not full, but computed in full
    budget = Budget(50, 45)
    with FlopCounterMode(display=False) as counter:
        ToMe().select(stream, budget)
    assert ToMe().flops(budget, 50, 324, 9, 96) == counter.get_total_flops() > 0
    assert ToMe().flops(Budget(0, 50), 50, 324, 9, 96) == ToMe().flops(Budget(324, 5), 50, 324, 9, 96) == 0


def test_in_pieces_it_merges_the_same(monkeypatch: pytest.MonkeyPatch):
    stream, budget = make_stream(9), Budget(40, 20)
    expected = ToMe().select(stream, budget)
    monkeypatch.setattr("cg_cli.pruning.ops.pieces.PIECE", 1)  # one window at a time
    selection = ToMe().select(stream, budget)
    assert torch.equal(selection.indices, expected.indices) and torch.equal(selection.merge.into, expected.merge.into)


def test_equal_tokens_are_kept_in_any_number():
    stream = make_stream(grids=2, height=1, width=4, video=torch.ones(8, 4))
    assert len(kept_rows(ToMe(), stream, 7)) == 7


@pytest.mark.parametrize("option", ["window", "rounds"])
def test_options_are_positive(option: str):
    with pytest.raises(UsageError, match=f"'tome': {option} must be at least 1, not 0"):
        registry.make("tome", **{option: 0})
