"""Uniform, worked by hand and against a plain recount."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from helpers.synthetic_stream import make_stream

from cg_cli.pruning.budget import Budget
from cg_cli.pruning.methods.uniform import Uniform
from cg_cli.pruning.stream import VIDEO


def kept_per_grid(stream, video: int) -> Counter[int]:
    audio = int((stream.modality == 2).sum())
    chosen = Uniform().select(stream, Budget(video, audio)).indices
    return Counter(stream.grid[chosen][stream.modality[chosen] == VIDEO].tolist())


def test_by_hand():
    """4 grids of 2 x 2, 10 tokens: grids 0 and 2 whole, and of the other 8 the 2nd and the 6th."""
    stream = make_stream(grids=4, height=2, width=2, audio_per_chunk=0, text=(1, 1))
    assert Uniform().select(stream, Budget(10, 0)).indices.tolist() == [0, 1, 2, 3, 4, 6, 9, 10, 11, 12, 14, 17]
    assert kept_per_grid(stream, 10) == {0: 4, 1: 1, 2: 4, 3: 1}


@pytest.mark.parametrize("video", range(1, 8 * 6 + 1))
def test_whole_grids_first_and_the_rest_spread(video: int):
    size, grids = 6, 8
    counts = kept_per_grid(make_stream(grids=grids, height=2, width=3), video)
    whole = sorted(grid for grid, count in counts.items() if count == size)
    assert len(whole) == video // size
    gaps = {b - a for a, b in zip(whole, whole[1:], strict=False)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    rest = [counts[grid] for grid in range(grids) if grid not in whole]
    assert sum(rest) == video % size
    assert not rest or max(rest) - min(rest) <= 1


def test_looks_at_no_embedding():
    stream = make_stream()
    blind = replace(stream, embeddings=torch.full_like(stream.embeddings, torch.nan))
    budget = Budget(31, 11)
    assert torch.equal(Uniform().select(stream, budget).indices, Uniform().select(blind, budget).indices)


def test_grids_of_unequal_size_still_meet_the_budget():
    """The last two grids merged into one of double size: not Qwen's layout, yet the count stays exact."""
    stream = make_stream(grids=4, height=2, width=2, audio_per_chunk=0, text=(0, 0))
    lopsided = replace(stream, grid=stream.grid.clamp_max(2))
    for video in range(1, 16):
        chosen = Uniform().select(lopsided, Budget(video, 0)).indices.tolist()
        assert len(set(chosen)) == video
