"""EVS, worked by hand and against a token-by-token reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.synthetic_stream import make_stream

from cg_cli.pruning.budget import Budget, plan
from cg_cli.pruning.methods.evs import Evs, change
from cg_cli.pruning.stream import AUDIO, VIDEO


def at_angles(degrees: list[list[float]]) -> torch.Tensor:
    """Rows [len(degrees) * places, 2] at these angles, one list a grid; lengths vary, for cosine must not see them."""
    flat = torch.tensor([angle for grid in degrees for angle in grid]).deg2rad()
    length = 1.0 + torch.arange(len(flat)) % 3
    return torch.stack([flat.cos(), flat.sin()], dim=1) * length[:, None]


def video_kept(stream, count: int) -> list[tuple[int, int]]:
    """(grid, column) of the video tokens kept out of ``stream``, whose grids are one row high."""
    audio = int((stream.modality == AUDIO).sum())
    chosen = [i for i in Evs().select(stream, Budget(count, audio)).indices.tolist() if stream.modality[i] == VIDEO]
    return [(int(stream.grid[i]), int(stream.column[i])) for i in chosen]


def test_by_hand():
    """3 grids of 3: place 0 still, place 1 turns 90 then 10 degrees, place 2 turns 0 then 30 degrees."""
    video = at_angles([[0, 0, 0], [0, 90, 0], [0, 100, 30]])
    stream = make_stream(grids=3, height=1, width=3, audio_per_chunk=4, text=(1, 1), video=video)
    first = [(0, 0), (0, 1), (0, 2)]
    assert video_kept(stream, 1) == [(0, 1)]
    assert video_kept(stream, 2) == [(0, 0), (0, 2)]
    assert video_kept(stream, 3) == first
    assert video_kept(stream, 4) == [*first, (1, 1)]
    assert video_kept(stream, 5) == [*first, (1, 1), (2, 2)]
    assert video_kept(stream, 6) == [*first, (1, 1), (2, 1), (2, 2)]


def test_a_still_clip_keeps_its_earliest_tokens():
    """Equal changes tie exactly, and the sort is stable."""
    frame = torch.randn(6, 32, generator=torch.Generator().manual_seed(3))
    stream = make_stream(grids=5, height=1, width=6, audio_per_chunk=0, video=frame.repeat(5, 1))
    assert video_kept(stream, 14) == [(i // 6, i % 6) for i in range(14)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_change_is_one_minus_cosine(dtype: torch.dtype):
    stream = make_stream(grids=4, height=2, width=3, dtype=dtype)
    video = (stream.modality == VIDEO).nonzero()[:, 0]
    rows = stream.embeddings[video].double()
    places = list(zip(*(x[video].tolist() for x in (stream.grid, stream.row, stream.column)), strict=True))
    expected = []
    for i, (grid, row, column) in enumerate(places):
        if grid == 0:
            expected.append(math.inf)
            continue
        a, b = rows[i], rows[places.index((grid - 1, row, column))]
        expected.append(1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)))
    result = change(stream.embeddings, video, stream.grid[video], stream.row[video], stream.column[video])
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_kept_tokens_changed_at_least_as_much_as_dropped_ones(keep: float):
    stream = make_stream(grids=8)
    chosen = torch.zeros(len(stream), dtype=torch.bool)
    chosen[Evs().select(stream, plan(stream, keep)).indices] = True
    video = (stream.modality == VIDEO).nonzero()[:, 0]
    score = change(stream.embeddings, video, stream.grid[video], stream.row[video], stream.column[video])
    kept = chosen[video]
    assert kept.any() and not kept.all()
    assert score[kept].min() >= score[~kept].max()


def test_the_order_of_the_rows_does_not_matter_to_change():
    stream = make_stream(grids=4)
    video = (stream.modality == VIDEO).nonzero().flatten()
    shuffled = video[torch.randperm(len(video), generator=torch.Generator().manual_seed(0))]

    def scores(rows: torch.Tensor) -> dict[int, float]:
        result = change(stream.embeddings, rows, stream.grid[rows], stream.row[rows], stream.column[rows])
        return dict(zip(rows.tolist(), result.tolist(), strict=True))

    assert scores(video) == scores(shuffled)
