"""DyCoke's temporal token merging, worked by hand and against a token-by-token reference in float64."""

from __future__ import annotations

import math

import pytest
from helpers.hand import at_angles, by_grid, cells, cosine, even, kept_rows, kept_video, shared, tokens, top, uneven
from helpers.synthetic_stream import make_stream

from cg_cli.pruning.methods.dycoke import DyCoke

WHOLE = [(grid, cell) for grid in (0, 4) for cell in range(4)]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (4, [(0, 0), (0, 2), (4, 0), (4, 2)]),  # less than the first grids of the groups: every second token of these
        (8, WHOLE),  # r = 0
        (11, [*WHOLE, (1, 3), (2, 2), (3, 1)]),  # r = 1/4
        (14, [*WHOLE, (1, 1), (1, 3), (2, 2), (2, 3), (3, 1), (3, 2)]),  # r = 1/2
    ],
)
def test_by_hand(count: int, expected: list[tuple[int, int]]):
    """A group of four grids of four tokens, and a grid that starts another.

    By place, in degrees, the second differs from the first by 1, 30, 2, 80; the third from the first by 3, 2, 50, 4
    (but from the second by 79 at place 3), the fourth from the third by 2, 30, 20, 1 (but from the first by 70 at place
    2).
    """
    video = at_angles([[0, 0, 0, 0], [1, 30, 2, 80], [3, 2, 50, 4], [5, 32, 70, 5], [5, 32, 70, 5]])
    stream = make_stream(grids=5, height=1, width=4, audio_per_chunk=4, text=(1, 1), video=video)
    assert kept_video(DyCoke(), stream, count) == sorted(expected)


def reference(stream, count: int) -> set[int]:
    """The rows of the ``count`` video tokens that stay, one token after the other."""
    rows, where, grids = tokens(stream), cells(stream), by_grid(stream)
    at = {cell: i for i, cell in where.items()}
    whole = [len(members) if grid % 4 == 0 else 0 for grid, members in grids.items()]
    rest = [len(members) if grid % 4 else 0 for grid, members in grids.items()]
    leads = shared([x or 1e-9 for x in whole], whole, min(count, sum(whole)))
    changed = shared([x or 1e-9 for x in rest], rest, max(count - sum(whole), 0))
    out: set[int] = set()
    for grid, members in grids.items():
        if grid % 4 == 0:
            out |= set(even(members, leads[grid]))
            continue
        back = {1: 1, 2: 2, 3: 1}[grid % 4]
        before = {i: at.get((grid - back, *where[i][1:])) for i in members}
        out |= top(
            {i: 1 - cosine(rows[i], rows[b]) if b is not None else math.inf for i, b in before.items()}, changed[grid]
        )
    return out


@pytest.mark.parametrize("count", [2, 13, 30, 61])
@pytest.mark.parametrize("ragged", [False, True])
def test_as_token_by_token(count: int, ragged: bool):
    stream = make_stream(grids=7)
    stream = uneven(stream, 0.2) if ragged else stream
    assert set(kept_rows(DyCoke(), stream, count)) == reference(stream, count)
