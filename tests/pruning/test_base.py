"""The helpers that pruners are built from."""

from __future__ import annotations

import pytest
import torch

from cg_cli.pruning.ops.indexing import evenly_spaced_index, evenly_spaced_mask, mask_to_index


def test_evenly_is_exact_and_as_even_as_whole_numbers_allow():
    for total in range(1, 40):
        for count in range(1, total + 1):
            chosen = evenly_spaced_index(total, count, torch.device("cpu")).tolist()
            assert len(set(chosen)) == count and set(chosen) <= set(range(total))
            gaps = {b - a for a, b in zip(chosen, chosen[1:], strict=False)}
            assert gaps <= {total // count, -(-total // count)}
            # the ends are cut off alike: half a gap each, to a whole token
            assert abs(chosen[0] - (total - 1 - chosen[-1])) <= -(-total // count)


@pytest.mark.parametrize(("total", "count", "expected"), [(4, 2, [0, 2]), (10, 3, [1, 4, 8]), (5, 1, [2])])
def test_evenly_by_hand(total: int, count: int, expected: list[int]):
    assert evenly_spaced_index(total, count, torch.device("cpu")).tolist() == expected


def test_spread_ranks_members_only():
    member = torch.tensor([0, 1, 1, 0, 1, 1, 0], dtype=torch.bool)
    assert evenly_spaced_mask(member, 2).nonzero().flatten().tolist() == [1, 4]
    assert torch.equal(evenly_spaced_mask(member, torch.tensor(4)), member)
    assert torch.equal(evenly_spaced_mask(member, 100), member)
    assert not evenly_spaced_mask(member, 0).any() and not evenly_spaced_mask(member, torch.tensor(-3)).any()
    assert not evenly_spaced_mask(torch.zeros(3, dtype=torch.bool), 2).any()


def test_places_is_nonzero():
    mask = torch.rand(50, generator=torch.Generator().manual_seed(0)) < 0.3
    assert torch.equal(mask_to_index(mask, int(mask.sum())), mask.nonzero().flatten())
