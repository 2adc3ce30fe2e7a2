"""DivPrune, worked by hand and against a token-by-token reference in float64; how its work grows."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.hand import at_angles, by_grid, cosine, kept_rows, kept_video, shared, tokens, uneven
from helpers.synthetic_stream import make_stream
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from cg_cli.errors import UsageError
from cg_cli.pruning import registry
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.methods import divprune
from cg_cli.pruning.methods.divprune import DivPrune


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [4]),  # 180 is 80 away from its nearest neighbour; the others 10, 10, 25 and 55
        (2, [0, 4]),  # 0 is the farthest from it
        (3, [0, 3, 4]),  # 100 is 80 from 180, 45 is 45 from 0, 20 is 20 from 0 ...
        (4, [0, 2, 3, 4]),  # ... so 45 is 45 from the nearest of 0, 100 and 180, 10 is 10
    ],
)
def test_by_hand(count: int, expected: list[int]):
    stream = make_stream(grids=1, height=1, width=5, text=(1, 1), video=at_angles([[0, 10, 45, 100, 180]]))
    assert kept_video(DivPrune(), stream, count) == [(0, cell) for cell in expected]


def test_windows_are_problems_of_their_own_by_hand():
    """Three grids in windows of two and one: 4 of 9 tokens are 2.67 and 1.33, so 3 and 1.

    In the first window 90 is farthest from its nearest neighbour, 60 from 30; 170 has 168 beside it. Then come 0, which
    is 90 away, and 170, at 80. The second window does not know that there is a 90 already.
    """
    video = at_angles([[0, 30, 170], [90, 168, 10], [0, 5, 90]])
    stream = make_stream(grids=3, height=1, width=3, text=(1, 1), video=video)
    assert kept_video(DivPrune(window=2), stream, 4) == [(0, 0), (0, 2), (1, 0), (2, 2)]


def reference(stream, window: int, count: int) -> set[int]:
    """The rows of the ``count`` video tokens that stay, one pick after the other."""
    rows, grids = tokens(stream), by_grid(stream)
    windows = [
        [i for g in grids if g // window == number for i in grids[g]] for number in range(-(-len(grids) // window))
    ]
    sizes = [len(members) for members in windows]
    out: set[int] = set()
    for members, quota in zip(windows, shared(sizes, sizes, count), strict=True):
        distance = {(i, j): 1 - cosine(rows[i], rows[j]) for i in members for j in members}
        picked: list[int] = []
        for _ in range(quota):
            to = {
                i: min((distance[i, j] for j in picked or members if j != i), default=math.inf)
                for i in members
                if i not in picked
            }
            picked.append(max(to, key=lambda i: (to[i], -i)))
        out |= set(picked)
    return out


@pytest.mark.parametrize("window", [1, 2, 3, 50])
@pytest.mark.parametrize("count", [2, 13, 41])
@pytest.mark.parametrize("ragged", [False, True])
def test_as_pick_by_pick(monkeypatch: pytest.MonkeyPatch, window: int, count: int, ragged: bool):
    stream = make_stream(grids=5)
    stream = uneven(stream) if ragged else stream
    expected = reference(stream, window, count)
    assert set(kept_rows(DivPrune(window), stream, count)) == expected
    monkeypatch.setattr(divprune, "PAIRS", 7)  # one window at a time
    assert set(kept_rows(DivPrune(window), stream, count)) == expected


class Count(TorchDispatchMode):
    operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        return func(*args, **(kwargs or {}))


def test_operations_grow_with_the_picks_of_a_window_and_not_with_the_windows():
    def operations(grids: int, share: float) -> int:
        stream = make_stream(grids=grids)
        with Count() as counter:
            DivPrune(window=2).select(stream, Budget(int(12 * grids * share), 3))
        return counter.operations

    assert operations(4, 0.25) == operations(40, 0.25)
    few, more, most = operations(8, 0.25), operations(8, 0.5), operations(8, 0.75)
    assert most - more == more - few <= 6 * 10  # six picks more


def test_its_operations_are_those_that_torch_counts():
    stream = make_stream(9, 6, 6, dim=96)  # the last of three windows is not full, but computed in full
    budget = Budget(50, 50)
    with FlopCounterMode(display=False) as counter:
        DivPrune(window=4).select(stream, budget)
    assert DivPrune(window=4).flops(budget, 50, 324, 9, 96) == counter.get_total_flops() > 0
    assert DivPrune().flops(Budget(0, 50), 50, 324, 9, 96) == DivPrune().flops(Budget(324, 5), 50, 324, 9, 96) == 0


def test_a_window_has_a_grid():
    with pytest.raises(UsageError, match="'divprune': window must be at least 1 grid, not 0"):
        registry.make("divprune", window=0)


def test_equal_tokens_are_kept_in_any_number():
    stream = make_stream(grids=2, height=1, width=4, video=torch.ones(8, 4))
    assert len(kept_video(DivPrune(), stream, 7)) == 7
