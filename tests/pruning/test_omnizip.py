"""OmniZip, worked by hand and against a token-by-token reference in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers.hand import at_angles, by_grid, cells, cosine, even, kept_video, mean, shared, tokens, top, uneven
from helpers.synthetic_stream import make_stream
from torch.utils.flop_counter import FlopCounterMode

from cg_cli.pruning.budget import Budget
from cg_cli.pruning.methods import omnizip
from cg_cli.pruning.methods.omnizip import OmniZip, chunk_weight, fold, own_split, peaks, saliency, thin
from cg_cli.pruning.ops import match, pieces
from cg_cli.pruning.ops.grids import Grids, table
from cg_cli.pruning.ops.parts import chunks
from cg_cli.pruning.ops.rows import rows_of
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, Selection, TokenStream, apply


def picture(stream: TokenStream):
    rows = rows_of(stream)
    return table(stream, rows, torch.nn.functional.normalize(stream.embeddings[rows.video], dim=-1))


def density(grids: Grids):
    return peaks(grids.point, grids.mask)


def test_dominant_tokens_and_anchors_by_hand():
    """5 % of 20 is one anchor: the middle one of those that are not dominant."""
    salient = torch.arange(20.0)
    assert [x.tolist() for x in thin(salient, 4)] == [[19, 18, 17], [8]]
    assert [x.tolist() for x in thin(salient, 1)] == [[19], []]  # at most half of what stays
    assert [x.tolist() for x in thin(salient, 0)] == [[], []]
    assert sorted(torch.cat(thin(salient, 20)).tolist()) == list(range(20))


def test_a_token_is_salient_that_differs_from_the_mean():
    """The mean of 0, 0, 0 and 90 degrees, one of them three times as long, points to 45."""
    audio = at_angles([[0, 0, 0, 90]]) * torch.tensor([1, 1, 1, 3.0])[:, None]
    torch.testing.assert_close(saliency(audio, torch.arange(4)), torch.full((4,), 1 - math.cos(math.pi / 4)))


def test_merging_by_hand():
    """Anchors along x and y, a picture along z. Four tokens lean from x towards z, by 10 to 40 degrees; one from y, by
    50.

    The three that lean most merge into x, by the softmax of their cosine with the picture; the one into y, with all
    weight.
    """
    lean = torch.tensor([10.0, 40, 50, 20, 30]).deg2rad()
    sound = torch.stack([lean.cos(), torch.zeros(5), lean.sin()], dim=1)
    sound[2] = sound[2, [1, 0, 2]]
    sound = torch.cat([torch.eye(3)[:2], sound])
    stream = make_stream(grids=1, height=1, width=1, audio_per_chunk=7, text=(99, 0), video=torch.eye(3)[2:])
    stream.embeddings[100:] = sound
    merge = fold(stream, rows_of(stream), torch.tensor([], dtype=torch.int64), torch.tensor([0, 1]))
    parts = [math.exp(math.sin(math.radians(x))) for x in (40, 20, 30)]
    expected = {102: (100, 0.0), 104: (101, 1.0)}
    expected |= {row: (100, part / sum(parts)) for row, part in zip((103, 105, 106), parts, strict=True)}
    targets = {
        d: (i, w) for d, i, w in zip(merge.dropped.tolist(), merge.into.tolist(), merge.weight.tolist(), strict=True)
    }
    assert targets.keys() == expected.keys()
    for row, (into, weight) in targets.items():
        assert into == expected[row][0] and weight == pytest.approx(expected[row][1], abs=1e-6)


def test_chunks_whose_sound_is_salient_keep_more_by_hand():
    """Of the first chunk's sound all is salient: it drops 0.35. Of the second's half: 0.55. The third is silent.

    The two keep 0.65 and 0.45, 0.55 in the mean, so 13/11 and 9/11 of the video's share; the silent one that share
    itself.
    """
    stream = make_stream(grids=6, height=1, width=2)
    grids = picture(stream)
    ideal = chunk_weight(grids, chunks(grids)[0], torch.tensor([0.0, 1.9, 2.0, 3.0]), torch.tensor([0, 1, 3]))
    torch.testing.assert_close(ideal, 2 * torch.tensor([13 / 11, 13 / 11, 9 / 11, 9 / 11, 1, 1], dtype=torch.float64))


def test_sound_that_stays_whole_guides_as_if_it_were_thinned_by_hand():
    """8 audio tokens, no anchors: 6 would stay, the first chunk's four alike ones come last, so 2 of them and the other
    4.

    So the chunks keep 0.45 and 0.65 of the video, scaled to 20 of 40: 4.09 and 5.91 a grid; the odd two by remainder.
    """
    stream = make_stream(grids=4, height=1, width=10, audio_per_chunk=4)
    sound = at_angles([[0, 0, 0, 0, -90, 90, -80, 80]])
    rows = stream.embeddings.clone()
    rows[stream.modality == AUDIO] = torch.cat([sound, torch.zeros(8, 14)], dim=1)
    stream = replace(stream, embeddings=rows)
    assert [sum(g == grid for g, _ in kept_video(OmniZip(), stream, 20)) for grid in range(4)] == [4, 4, 6, 6]
    silent = apply(stream, Selection((stream.modality != AUDIO).nonzero()[:, 0]))
    assert [sum(g == grid for g, _ in kept_video(OmniZip(), silent, 20)) for grid in range(4)] == [5, 5, 5, 5]


def test_density_peaks_by_hand():
    """0, 60 and 90 degrees: distances 1/2, 1 and 0.134. 60 has the nearest neighbours, so it is the densest, then 90.

    60 gets its farthest distance, 1/2; 90 that to 60; 0 the smaller one of two. A grid of one token has no neighbours.
    """
    stream = make_stream(
        grids=2, height=1, width=3, video=at_angles([[0, 60, 90], [5, 6, 7]]), text=(0, 0), audio_per_chunk=0
    )
    near = 1 - math.cos(math.pi / 6)
    expected = [0.5 * math.exp(-0.75), 0.5 * math.exp(-(0.5 + near) / 2), near * math.exp(-(1 + near) / 2)]
    torch.testing.assert_close(density(picture(stream))[0], torch.tensor(expected))
    short = picture(apply(stream, Selection(torch.tensor([0, 1, 2, 3]))))
    torch.testing.assert_close(short.flat(density(short)), torch.tensor([*expected, 0]))


def _peak(rows: dict[int, list[float]], members: list[int]) -> dict[int, float]:
    apart = {(i, j): 1 - cosine(rows[i], rows[j]) for i in members for j in members if i != j}
    density = {}
    for i in members:
        near = sorted(apart[i, j] for j in members if j != i)[:5]
        density[i] = math.exp(-sum(near) / max(len(near), 1))
    out = {}
    for i in members:
        denser = [apart[i, j] for j in members if density[j] > density[i]]
        out[i] = density[i] * (min(denser) if denser else max((apart[i, j] for j in members if j != i), default=0))
    return out


def _thin(score: dict[int, float], count: int) -> tuple[set[int], list[int]]:
    anchors = min(math.floor(0.05 * len(score) + 0.5), count // 2)
    dominant = top(score, count - anchors)
    return dominant, even([i for i in score if i not in dominant], anchors)


def reference(stream: TokenStream, budget: Budget) -> tuple[set[int], dict[int, tuple[int, float]]]:
    """The video and audio rows that stay, and {dropped: (into, weight)}, one token after the other."""
    video, audio, where, grids = tokens(stream), tokens(stream, AUDIO), cells(stream), by_grid(stream)
    at = {cell: i for i, cell in where.items()}
    score = {i: 1 - cosine(x, mean(audio.values())) for i, x in audio.items()}
    dominant, anchors = _thin(score, min(budget.audio, math.floor(0.75 * len(audio) + 0.5)))
    salient = {*dominant, *anchors}
    chunk_of = {i: min(int(stream.time_s[i] + 1e-4), len(grids) - 1) // 2 for i in audio}
    kept = {}
    for grid in grids:
        came = [i for i in audio if chunk_of[i] == grid // 2]
        if came:
            kept[grid] = 1 - (0.75 - 0.40 * sum(i in salient for i in came) / len(came))
    audible = sum(len(grids[g]) for g in kept)
    share = {g: kept[g] / (sum(kept[g] * len(grids[g]) for g in kept) / audible) if g in kept else 1.0 for g in grids}
    sizes = [len(members) for members in grids.values()]
    out: set[int] = set()
    ideal = [share[g] * len(grids[g]) for g in grids]
    for (grid, members), quota in zip(grids.items(), shared(ideal, sizes, budget.video), strict=True):
        worth = _peak(video, members)
        if grid % 2:
            before = {i: [at[g, *where[i][1:]] for g in range(grid) if (g, *where[i][1:]) in at] for i in members}
            worth = {i: 1 - cosine(video[i], video[b[-1]]) if b else math.inf for i, b in before.items()}
        out |= top(worth, quota)

    dominant, anchors = _thin(score, budget.audio)
    out |= {*dominant, *anchors}
    merged: dict[int, tuple[int, float]] = {}
    takes: dict[int, list[int]] = {a: [] for a in anchors}
    likeness = {i: max(cosine(x, v) for v in video.values()) for i, x in audio.items()}
    for i in set(audio) - out if anchors else ():
        takes[max(anchors, key=lambda a: cosine(audio[i], audio[a]))].append(i)
    for anchor, those in takes.items():
        those = sorted(those, key=lambda i: -likeness[i])
        total = sum(math.exp(likeness[i]) for i in those[:3])
        merged |= {i: (anchor, math.exp(likeness[i]) / total if i in those[:3] else 0.0) for i in those}
    return out, merged


@pytest.mark.parametrize(
    "budget", [Budget(30, 90), Budget(30, 80), Budget(9, 40), Budget(41, 11), Budget(1, 1)], ids=str
)
@pytest.mark.parametrize("ragged", [False, True])
def test_as_token_by_token(budget: Budget, ragged: bool):
    stream = make_stream(grids=5, audio_per_chunk=30)
    stream = uneven(stream, 0.2) if ragged else stream
    selection = OmniZip().select(stream, budget)
    rows, merged = reference(stream, budget)
    assert {i for i in selection.indices.tolist() if stream.modality[i] != TEXT} == rows
    parts = [getattr(selection.merge, x).tolist() if selection.merge else [] for x in ("dropped", "into", "weight")]
    targets = {d: (i, w) for d, i, w in zip(*parts, strict=True)}
    assert targets.keys() == merged.keys()
    for dropped, (into, weight) in targets.items():
        assert into == merged[dropped][0] and weight == pytest.approx(merged[dropped][1], abs=1e-5)


def test_in_pieces_it_chooses_the_same(monkeypatch: pytest.MonkeyPatch):
    stream, budget = make_stream(grids=5, audio_per_chunk=30), Budget(20, 40)
    whole = OmniZip().select(stream, budget)
    monkeypatch.setattr(omnizip, "PAIRS", 7)
    monkeypatch.setattr(pieces, "PIECE", 40)
    monkeypatch.setattr(match, "DENSE", {})
    monkeypatch.setattr(match, "TILE", 3)
    parts = OmniZip().select(stream, budget)
    assert torch.equal(whole.indices, parts.indices) and torch.equal(whole.merge.dropped, parts.merge.dropped)


@pytest.mark.parametrize(
    "budget", [Budget(60, 70), Budget(60, 160), Budget(288, 70), Budget(60, 1), Budget(0, 70)], ids=str
)
def test_its_operations_are_those_that_torch_counts(budget: Budget):
    stream = make_stream(8, 6, 6, audio_per_chunk=40, dim=96)
    assert (stream.modality == VIDEO).sum() == 288
    with FlopCounterMode(display=False) as counter:
        OmniZip().select(stream, budget)
    assert OmniZip().flops(budget, 160, 288, 8, 96) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("count", "video", "audio"),
    [
        (450, 313, 137),  # of 1000 tokens: audio at 1.75 times the rate of video, 0.685 and 0.391
        (350, 233, 117),  # at twice the rate
        (400, 272, 128),  # half-way, at 1.875 times
        (100, 67, 33),  # beyond, as at 350
        (950, 750, 200),  # audio is whole before its rate is reached
        (1000, 800, 200),
        (0, 0, 0),
    ],
)
def test_its_own_split_by_hand(count: int, video: int, audio: int):
    assert own_split(Budget(count // 2, count - count // 2), 800, 200) == Budget(video, audio)


def test_its_own_split_leaves_a_clip_without_sound_or_picture_alone():
    assert own_split(Budget(45, 0), 100, 0) == Budget(45, 0)
    assert own_split(Budget(0, 45), 0, 100) == Budget(0, 45)


def test_a_long_clip_is_folded_stretch_by_stretch(monkeypatch: pytest.MonkeyPatch):
    """In stretches of 12 audio tokens: anchors of the same one, and the video that is shown meanwhile."""
    stream = make_stream(grids=8, audio_per_chunk=10)  # 40 audio tokens, 5 a grid
    rows = rows_of(stream)
    anchor = torch.tensor([2, 9, 14, 30])  # none in the last stretch, nor does a grid start in it
    dominant = torch.tensor([0, 5, 20, 21])
    monkeypatch.setattr(omnizip, "STRETCH", 12)
    merge = fold(stream, rows, dominant, anchor)
    unit = torch.nn.functional.normalize(stream.embeddings.double(), dim=-1)
    likeness = unit[rows.audio] @ unit.T
    heard = [stream.time_s[rows.audio] - 1e-3 <= time for time in stream.time_s[rows.video]]
    shown = [rows.video[[int(h.sum() - 1) // 12 == s for h in heard]] for s in range(4)]
    into, worth = {}, {}
    for out in set(range(40)) - {*anchor.tolist(), *dominant.tolist()}:
        near = [a for a in anchor.tolist() if a // 12 == out // 12]
        into[out] = max(near, key=lambda a: float(likeness[out, rows.audio[a]])) if near else None
        worth[out] = max(likeness[out, shown[out // 12]].tolist(), default=0.0)
    weight = dict.fromkeys(into, 0.0)
    for a in anchor.tolist():
        three = sorted((out for out in into if into[out] == a), key=lambda out: -worth[out])[:3]
        weight |= {out: math.exp(worth[out]) / sum(math.exp(worth[i]) for i in three) for out in three}
    place = {int(row): i for i, row in enumerate(rows.audio)}
    assert {place[row] for row in merge.dropped.tolist()} == set(into)
    for dropped, taker, part in zip(*(getattr(merge, x).tolist() for x in ("dropped", "into", "weight")), strict=True):
        assert part == pytest.approx(weight[place[dropped]], abs=1e-5)
        assert place[taker] == into[place[dropped]] or into[place[dropped]] is None
    assert sum(taker is None for taker in into.values()) == 4
