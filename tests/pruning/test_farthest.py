"""Farthest point sampling against picking one by one, and ContextGuard's use of it."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.hand import uneven
from helpers.synthetic_stream import make_stream

from cg_cli.pruning.budget import Budget
from cg_cli.pruning.methods import contextguard
from cg_cli.pruning.methods.contextguard import FIRST, PLACE, ContextGuard, spread
from cg_cli.pruning.ops.farthest import distances, insertion_radius
from cg_cli.pruning.ops.grids import table
from cg_cli.pruning.ops.rows import rows_of
from cg_cli.pruning.stream import AUDIO


def picked_one_by_one(points, first, picks):
    """{number: distance to those before it} of points, lists of coordinates in float64."""
    radius = {first: math.inf}
    while len(radius) < min(picks, len(points)):
        to = {i: min(math.dist(points[i], points[j]) for j in radius) for i in range(len(points)) if i not in radius}
        far = max(to, key=lambda i: (to[i], -i))
        radius[far] = to[far]
    return radius


@pytest.mark.parametrize("picks", [1, 4, 9])
def test_radii_are_those_of_picking_one_by_one(picks):
    generator = torch.Generator().manual_seed(0)
    point = torch.randn(5, 9, 3, generator=generator)
    point[2, 4] = point[2, 1]  # twice the same
    mask = torch.ones(5, 9, dtype=torch.bool)
    mask[1, 6:] = mask[3, 1:] = mask[4] = False  # fewer, one, none
    first = torch.tensor([8, 0, 4, 0, 0])
    radius = insertion_radius(distances(point), mask, first, picks)
    for one, there, start, got in zip(point.double().tolist(), mask.sum(1).tolist(), first.tolist(), radius.tolist()):
        expected = picked_one_by_one(one[:there], start, picks) if there else {}
        assert [number for number, value in enumerate(got) if value > -math.inf] == sorted(expected)
        for number, value in expected.items():
            assert got[number] == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_picks_of_a_set_do_not_depend_on_the_others():
    point = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(1))
    mask, first = torch.ones(4, 7, dtype=torch.bool), torch.tensor([3, 1, 0, 6])
    together = insertion_radius(distances(point), mask, first, 7)
    alone = [insertion_radius(distances(point[i : i + 1]), mask[:1], first[i : i + 1], 7) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("ragged", [False, True])
def test_a_grids_longest_token_comes_first_and_then_the_farthest_in_looks_and_place(ragged, monkeypatch):
    stream = make_stream(4, 3, 4, dim=6)
    stream = uneven(stream) if ragged else stream
    rows = rows_of(stream)
    grids = table(stream, rows, stream.embeddings[rows.video])
    scores = spread(grids.point, grids)
    for number in range(4):
        there = grids.mask[number]
        token = stream.embeddings[rows.video][grids.index[number][there]].double()
        length = token.norm(dim=1)
        place = grids.place[number][there].double() * PLACE * length.mean()
        expected = picked_one_by_one(torch.cat([token, place], 1).tolist(), int(length.argmax()), len(token))
        expected[int(length.argmax())] = float(length.max()) * FIRST
        got = dict(enumerate(scores[number][there].tolist()))
        assert got == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(contextguard, "PAIRS", 7)  # one grid at a time
    assert torch.equal(spread(grids.point, grids), scores)


def test_every_grid_keeps_its_longest_token_before_one_keeps_two():
    stream = make_stream(6, 3, 4, dim=6)
    audio = int((stream.modality == AUDIO).sum())
    kept = ContextGuard(merge=False).select(stream, Budget(6, audio)).indices
    grids = stream.grid[kept][stream.grid[kept] >= 0]
    # Of six the ordinary quarter is less than one a grid, so none.
    assert sorted(grids.tolist()) == list(range(6))
