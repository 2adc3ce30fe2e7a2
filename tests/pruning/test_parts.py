"""Exact counts for parts of a video, and the chunks of 2 s."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.hand import shared
from helpers.synthetic_stream import make_stream

from cg_cli.pruning.ops.grids import table
from cg_cli.pruning.ops.parts import apportion, best, chunks, ranks
from cg_cli.pruning.ops.rows import rows_of
from cg_cli.pruning.stream import Selection, apply


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize(
    ("weight", "capacity", "total", "expected"),
    [
        ([1, 1, 1], [5, 5, 5], 7, [3, 2, 2]),  # 2 1/3 each; the earliest of equals gets the odd one
        ([1, 2, 3], [9, 9, 9], 8, [1, 3, 4]),  # 1 1/3, 2 2/3, 4
        (
            [1, 1, 2],
            [1, 5, 2],
            6,
            [1, 3, 2],
        ),  # 1 1/2, 1 1/2, 3: the first and the last overflow, so 3 are left to the second
        ([0, 1], [3, 2], 4, [2, 2]),  # nobody else can hold the rest
        ([0, 1], [3, 2], 2, [0, 2]),
        ([1, 1], [0, 4], 3, [0, 3]),
        ([5, 1], [2, 2], 4, [2, 2]),
        ([5, 1], [2, 2], 0, [0, 0]),
    ],
)
def test_apportion_by_hand(weight: list[int], capacity: list[int], total: int, expected: list[int]):
    assert apportion(ints(*weight), ints(*capacity), total).tolist() == expected
    assert apportion(ints(*weight), ints(*capacity), torch.tensor(total)).tolist() == expected


def test_apportion_is_exact_and_as_shared_by_rounds():
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        parts = int(torch.randint(1, 9, (), generator=generator))
        weight = torch.rand(parts, generator=generator, dtype=torch.float64) + 0.01
        capacity = torch.randint(0, 7, (parts,), generator=generator)
        total = int(torch.randint(0, int(capacity.sum()) + 1, (), generator=generator))
        quota = apportion(weight, capacity, total)
        assert int(quota.sum()) == total and (quota >= 0).all() and (quota <= capacity).all()
        assert quota.tolist() == shared(weight.tolist(), capacity.tolist(), total)


def test_ranks_and_best_by_hand():
    stream = make_stream(grids=2, height=1, width=3, audio_per_chunk=0, text=(1, 1))
    stream = apply(stream, Selection(ints(0, 1, 2, 3, 4, 6, 7)))  # the second grid has lost its middle
    rows = rows_of(stream)
    grids = table(stream, rows, stream.embeddings[rows.video])
    score = torch.tensor([1.0, 3.0, 1.0, -5.0, 2.0])
    assert ranks(grids, score).tolist() == [[1, 0, 2], [1, 0, 2]]
    assert best(grids, score, ints(2, 1), 3).tolist() == [0, 1, 4]


def test_chunks_by_hand():
    stream = make_stream(grids=5, height=1, width=1)
    rows = rows_of(stream)
    grids = table(stream, rows, stream.embeddings[rows.video])
    assert [x.tolist() for x in chunks(grids)] == [[0, 0, 1, 1, 2], [0, 1, 0, 1, 0]]
    lost = replace(grids, start_s=grids.start_s * torch.tensor([1, 1, 1, 0, 1]))  # a grid without tokens starts at 0
    assert [x.tolist() for x in chunks(lost)] == [[0, 0, 1, 1, 2], [0, 1, 0, 1, 0]]
    slow = replace(grids, start_s=grids.start_s * 4.7)
    assert [x.tolist() for x in chunks(slow)] == [[0, 1, 2, 3, 4], [0] * 5]
