"""VidCom2, worked by hand and against a token-by-token reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.hand import at_angles, by_grid, kept_rows, kept_video, mean, shared, tokens, top, uneven
from helpers.synthetic_stream import make_stream

from cg_cli.pruning.methods.vidcom2 import VidCom2


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [0, 1]),  # fewer tokens than grids: 1/4 and 3/4 of a token
        (2, [1, 1]),  # each grid has its least of one
        (3, [1, 2]),  # 3/4 and 9/4, but at least 1
        (4, [1, 3]),  # just so
        (5, [2, 3]),  # 5/4 and 15/4, but no more than 3
    ],
)
def test_by_hand(count: int, expected: list[int]):
    """Two grids of three tokens; one of the six, in the second grid, is at a right angle to the others.

    The video's mean is (5/6, 1/6), at a squared distance of 1/18 from the five, 25/18 from the one, so that the grids'
    mean likeness differs by 1.0: the softmax at temperature 0.01 is (0, 1), the shares 1/2 and 3/2. The second grid's
    mean is (2/3, 1/3), 2/9 from its two and 8/9 from the one, which thus comes first there. Two more channels that vary
    a lot say otherwise, and must not be looked at.
    """
    loud = torch.tensor([[9.0, 9], [-9, 9], [9, -9], [-9, -9], [9, 9], [-9, 9]])
    video = torch.cat([loud, at_angles([[0, 0, 0], [0, 0, 90]])], dim=1)
    stream = make_stream(grids=2, height=1, width=3, audio_per_chunk=4, text=(1, 1), video=video)
    kept = kept_video(VidCom2(), stream, count)
    assert [sum(grid == g for grid, _ in kept) for g in (0, 1)] == expected
    assert (1, 2) in kept


def reference(stream, count: int) -> set[int]:
    """The rows of the ``count`` video tokens that stay, one token after the other."""
    rows, grids = tokens(stream), by_grid(stream)
    average = mean(rows.values())
    variance = [sum((x[c] - average[c]) ** 2 for x in rows.values()) for c in range(len(average))]
    quiet = sorted(range(len(average)), key=lambda c: variance[c])[: len(average) // 2]
    unit = {i: [x[c] / math.hypot(*(x[c] for c in quiet)) for c in quiet] for i, x in rows.items()}

    def like(a: list[float], b: list[float]) -> float:
        return sum(math.exp(-(math.dist(a, b) ** 2) / (2 * 2**k)) for k in range(-3, 2))

    video = mean(unit.values())
    frame = {grid: mean(unit[i] for i in members) for grid, members in grids.items()}
    of = [math.exp(-sum(like(unit[i], video) for i in members) / len(members) / 0.01) for members in grids.values()]
    ratio = count / len(rows)
    ideal = [
        len(members) * ratio * (1 + u / sum(of) - 1 / len(of)) for members, u in zip(grids.values(), of, strict=True)
    ]
    least = int(count >= len(grids))
    sizes = [len(members) - least for members in grids.values()]
    more = shared([max(x - least, 1e-9) for x in ideal], sizes, count - least * len(grids))
    out: set[int] = set()
    for (grid, members), extra in zip(grids.items(), more, strict=True):
        out |= top({i: -like(unit[i], video) - like(unit[i], frame[grid]) for i in members}, least + extra)
    return out


@pytest.mark.parametrize("count", [3, 9, 20, 44])
@pytest.mark.parametrize("ragged", [False, True])
def test_as_token_by_token(count: int, ragged: bool):
    stream = make_stream(grids=6)
    stream = uneven(stream) if ragged else stream
    assert set(kept_rows(VidCom2(), stream, count)) == reference(stream, count)


def test_a_video_of_equal_tokens_is_thinned_to_equal_shares():
    stream = make_stream(grids=4, height=1, width=6, video=torch.ones(24, 8))
    assert [grid for grid, _ in kept_video(VidCom2(), stream, 12)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
