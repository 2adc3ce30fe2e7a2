"""OmniSIFT's untrained rule, worked by hand and against a token-by-token reference in float64."""

from __future__ import annotations

import math

import pytest
from helpers.hand import at_angles, by_grid, cells, cosine, kept_rows, kept_video, mean, shared, tokens, top, uneven
from helpers.synthetic_stream import make_stream

from cg_cli.pruning.methods.omnisift import OmniSift


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2, [(0, 3), (1, 1)]),
        (3, [(0, 3), (1, 1), (2, 0)]),
        (6, [(0, 2), (0, 3), (1, 1), (1, 2), (2, 0), (2, 3)]),
    ],
)
def test_by_hand(count: int, expected: list[tuple[int, int]]):
    """A chunk of two grids of four tokens, and one of a single grid.

    The first grid's mean points to 14 degrees: farthest is place 3, then 2, 0 and 1. By place the second differs from
    it by 2,
    39, 20, 1 (though place 3 is farthest from its own mean). The third starts a chunk: its mean points to 34 degrees,
    from which place 0 is 34 away, 3 26, 1 and 2 less (though place 2 changed most).
    """
    video = at_angles([[0, 1, -4, 60], [2, 40, 16, 61], [0, 40, 36, 60]])
    stream = make_stream(grids=3, height=1, width=4, audio_per_chunk=4, text=(1, 1), video=video)
    assert kept_video(OmniSift(), stream, count) == expected


def reference(stream, count: int) -> set[int]:
    """The rows of the ``count`` video tokens that stay, one token after the other."""
    rows, where, grids = tokens(stream), cells(stream), by_grid(stream)
    at = {cell: i for i, cell in where.items()}
    sizes = [len(members) for members in grids.values()]
    out: set[int] = set()
    for (grid, members), quota in zip(grids.items(), shared(sizes, sizes, count), strict=True):
        if grid % 2 == 0:
            middle = mean(rows[i] for i in members)
            score = {i: 1 - cosine(rows[i], middle) for i in members}
        else:
            before = {i: [at[g, *where[i][1:]] for g in range(grid) if (g, *where[i][1:]) in at] for i in members}
            score = {i: 1 - cosine(rows[i], rows[b[-1]]) if b else math.inf for i, b in before.items()}
        out |= top(score, quota)
    return out


@pytest.mark.parametrize("count", [2, 13, 30, 41])
@pytest.mark.parametrize("ragged", [False, True])
def test_as_token_by_token(count: int, ragged: bool):
    stream = make_stream(grids=5)
    stream = uneven(stream, 0.2) if ragged else stream
    assert set(kept_rows(OmniSift(), stream, count)) == reference(stream, count)
