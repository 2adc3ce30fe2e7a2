"""VisionZip, worked by hand and against a token-by-token reference in float64."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.hand import at_angles, by_grid, cosine, even, kept_rows, kept_video, shared, tokens, top, uneven
from helpers.synthetic_stream import make_stream
from torch.utils.flop_counter import FlopCounterMode

from cg_cli.pruning.budget import Budget
from cg_cli.pruning.methods.visionzip import VisionZip
from cg_cli.pruning.stream import AUDIO, VIDEO, apply


def test_by_hand():
    """One grid of 13 tokens, 10 of which stay: 10 * 10/64 = 1.6, so 2 are contextual and 8 dominant.

    The eight of length 2 are dominant. Of the other five, at 80, 0, 10, 90 and 60 degrees, the second and the fourth
    are evenly spaced. 10 merges into 0; 80 and 60 merge into 90.
    """
    angles, loud = [80, 0, 10, 90, 60], [20, 30, 40, 50, 70, 100, 110, 120]
    length = torch.tensor([1.0, 2, 2, 1, 2, 1, 2, 2, 1, 2, 1, 2, 2])
    quiet = iter(angles), iter(loud)
    degrees = [next(quiet[0]) if x == 1 else next(quiet[1]) for x in length.tolist()]
    video = at_angles([degrees]) * length[:, None]
    stream = make_stream(grids=1, height=1, width=13, audio_per_chunk=4, text=(1, 1), video=video)
    pruned = apply(stream, VisionZip().select(stream, Budget(10, 4)))
    assert kept_video(VisionZip(), stream, 10) == [(0, cell) for cell in (1, 2, 3, 4, 6, 7, 8, 9, 11, 12)]
    is_video = pruned.modality == VIDEO
    assert pruned.merge_size[is_video].tolist() == [1, 1, 2, 1, 1, 1, 3, 1, 1, 1]
    merged = {2: at_angles([[0, 10]]).mean(0), 6: at_angles([[80, 90, 60]]).mean(0)}
    for i, row in enumerate(pruned.embeddings[is_video]):
        torch.testing.assert_close(row, merged.get(i, video[[1, 2, 3, 4, 6, 7, 8, 9, 11, 12][i]]))
    assert (pruned.merge_size[~is_video] == 1).all()


@pytest.mark.parametrize(("count", "merge_size"), [(2, [1, 3]), (1, [1])])
def test_a_grid_that_keeps_two_has_one_that_the_rest_merges_into(count: int, merge_size: list[int]):
    """Of lengths 4, 1, 2, 3 the first is dominant; of the other three the middle one is the contextual one."""
    video = torch.tensor([[4.0, 0], [1, 0], [2, 0], [3, 0]])
    stream = make_stream(grids=1, height=1, width=4, audio_per_chunk=0, text=(0, 0), video=video)
    pruned = apply(stream, VisionZip().select(stream, Budget(count, 0)))
    assert pruned.merge_size.tolist() == merge_size
    torch.testing.assert_close(pruned.embeddings, torch.tensor([[4.0, 0], [2, 0]][:count]))


def reference(stream, count: int) -> dict[int, list[int]]:
    """The row of each video token that stays: those that merge into it."""
    rows, grids = tokens(stream), by_grid(stream)
    sizes = [len(members) for members in grids.values()]
    out: dict[int, list[int]] = {}
    for members, quota in zip(grids.values(), shared(sizes, sizes, count), strict=True):
        contextual = max(0, min(max(1, math.floor(quota * 10 / 64 + 0.5)), quota - 1))
        dominant = top({i: math.hypot(*rows[i]) for i in members}, quota - contextual)
        rest = [i for i in members if i not in dominant]
        anchors = even(rest, contextual)
        out |= {i: [] for i in [*dominant, *anchors]}
        for i in rest:
            if i not in anchors and anchors:
                out[max(anchors, key=lambda a: cosine(rows[i], rows[a]))].append(i)
    return out


@pytest.mark.parametrize("count", [3, 9, 31, 90])
@pytest.mark.parametrize("ragged", [False, True])
def test_as_token_by_token(count: int, ragged: bool):
    stream = make_stream(grids=5, height=5, width=5)
    stream = uneven(stream, 0.2) if ragged else stream
    expected = reference(stream, count)
    assert set(kept_rows(VisionZip(), stream, count)) == set(expected)
    selection = VisionZip().select(stream, Budget(count, int((stream.modality == AUDIO).sum())))
    targets: dict[int, list[int]] = {i: [] for i in expected}
    for dropped, into, weight in zip(
        *(getattr(selection.merge, x).tolist() for x in ("dropped", "into", "weight")), strict=True
    ):
        assert weight in (0, 1) and into in targets
        targets[into] += [dropped] * int(weight)
    assert {i: sorted(merged) for i, merged in targets.items()} == expected


@pytest.mark.parametrize("count", [8, 60, 200])
def test_its_operations_are_those_that_torch_counts(count: int):
    stream = make_stream(8, 6, 6, dim=96)
    with FlopCounterMode(display=False) as counter:
        VisionZip().select(stream, Budget(count, 20))
    assert VisionZip().flops(Budget(count, 20), 40, 288, 8, 96) == counter.get_total_flops() > 0
    assert VisionZip().flops(Budget(288, 20), 40, 288, 8, 96) == VisionZip().flops(Budget(0, 20), 40, 288, 8, 96) == 0
