"""What ContextGuard promises beyond the pruner contract: sound's share goes first, detail stays, nothing is kept
twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.synthetic_stream import make_stream
from torch.utils.flop_counter import FlopCounterMode

from cg_cli.backbones import cost
from cg_cli.errors import UsageError
from cg_cli.pruning import budget as budgets
from cg_cli.pruning import registry
from cg_cli.pruning.methods.contextguard import ContextGuard, contextual_tokens
from cg_cli.pruning.methods.contextguard_online import ContextGuardOnline, causal_quotas
from cg_cli.pruning.ops.grids import table
from cg_cli.pruning.ops.merge import merge_nearest
from cg_cli.pruning.ops.ridge import RIDGE, leave_one_out
from cg_cli.pruning.ops.rows import rows_of
from cg_cli.pruning.ops.segments import depth, segments
from cg_cli.pruning.predictor import DirectionPredictor, PredictorMetadata
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, Selection, TokenStream, apply

DIM, HEIGHT, WIDTH = 16, 3, 4


def world(kinds: list[int], seed: int = 0) -> tuple[TokenStream, DirectionPredictor]:
    """A clip where sound of kind k (axis k) goes with picture tokens on axis 8 + k, and a predictor that knows that.

    Each second shows one sounding thing of ``kinds``, three cells wide, before a faint background.
    """
    predictor = DirectionPredictor(PredictorMetadata("m", "r", "f", DIM, hidden=DIM, queries=1, components=DIM))
    with torch.no_grad():
        for layer, weight in (
            (predictor.down, torch.eye(DIM) * 8),
            (predictor.mix, torch.eye(DIM)),
            (predictor.up, torch.eye(DIM).roll(8, 0)),
        ):
            layer.weight.copy_(weight)
            layer.bias.zero_()
        predictor.attention.weight.zero_()
        predictor.basis.copy_(torch.eye(DIM))
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randn(len(kinds), HEIGHT * WIDTH, DIM, generator=generator) * 0.05
    for grid, kind in enumerate(kinds):
        picture[grid, :3, 8 + kind] += 1.0
    stream = make_stream(len(kinds), HEIGHT, WIDTH, dim=DIM, video=picture.view(-1, DIM), seed=seed)
    sound = torch.zeros(len(stream), DIM)
    is_audio = stream.modality == AUDIO
    for grid, kind in enumerate(kinds):
        sound[is_audio & (stream.time_s >= grid - 1e-4) & (stream.time_s < grid + 1 - 1e-4), kind] = 1.0
    rows = torch.where(is_audio[:, None], sound, stream.embeddings)
    return replace(stream, embeddings=rows), predictor


def kept_video(stream: TokenStream, selection: Selection) -> set[tuple[int, int]]:
    """(grid, cell) of the video tokens that stay."""
    rows = [i for i in selection.indices.tolist() if stream.modality[i] == VIDEO]
    return {(int(stream.grid[i]), int(stream.row[i]) * WIDTH + int(stream.column[i])) for i in rows}


def test_what_the_sound_predicts_is_dropped_and_a_detail_beside_it_stays():
    stream, predictor = world([0, 0, 0, 0])
    rows = stream.embeddings.clone()
    detail = (stream.modality == VIDEO) & (stream.row == 2) & (stream.column == 3)
    rows[detail, 15] += 0.6  # smaller than the sounding thing, and nothing that the sound tells
    stream = replace(stream, embeddings=rows)
    one = budgets.Budget(video=1, audio=int((stream.modality == AUDIO).sum()))
    with_sound = ContextGuard().with_predictor(predictor).select(stream, one)
    without = ContextGuard(recover=False).with_predictor(predictor).select(stream, one)
    assert {cell for _, cell in kept_video(stream, with_sound)} == {11}
    assert {cell for _, cell in kept_video(stream, without)} <= {0, 1, 2}


def test_a_prediction_that_disagrees_with_the_picture_costs_nothing():
    stream, predictor = world([0, 0, 1, 1])
    wrong = stream.embeddings.clone()
    late = (stream.modality == AUDIO) & (stream.time_s >= 2)
    wrong[late] = wrong[late].roll(3, 1)  # dubbed: another kind sounds
    dubbed = replace(stream, embeddings=wrong)
    one = budgets.Budget(video=1, audio=int((stream.modality == AUDIO).sum()))
    [(grid, cell)] = kept_video(dubbed, ContextGuard().with_predictor(predictor).select(dubbed, one))
    assert grid >= 2 and cell < 3  # the one thing that no sound tells
    [(_, cell)] = kept_video(stream, ContextGuard().with_predictor(predictor).select(stream, one))
    assert cell >= 3  # where sound predicts all things, what is left of them is less than the background


def test_a_thing_of_many_cells_is_kept_once_before_anything_is_kept_twice():
    stream, _ = world([0, 0, 0, 0, 1, 1, 1, 1])
    two = budgets.Budget(video=2, audio=int((stream.modality == AUDIO).sum()))
    kept = kept_video(stream, ContextGuard().select(stream, two))
    assert sorted(grid // 4 for grid, _ in kept) == [0, 1] and all(cell < 3 for _, cell in kept)


def test_merged_rows_are_the_mean_of_their_tokens_with_their_number_as_merge_size():
    still = torch.randn(1, HEIGHT * WIDTH, DIM, generator=torch.Generator().manual_seed(1)).expand(4, -1, -1)
    noise = torch.randn(4, HEIGHT * WIDTH, DIM, generator=torch.Generator().manual_seed(2)) * 0.01
    stream = make_stream(4, HEIGHT, WIDTH, dim=DIM, video=(still + noise).reshape(-1, DIM))
    audio = int((stream.modality == AUDIO).sum())
    selection = ContextGuard().select(stream, budgets.Budget(video=HEIGHT * WIDTH, audio=audio))
    pruned = apply(stream, selection)
    for row, (index, kind) in enumerate(zip(selection.indices.tolist(), pruned.modality.tolist())):
        if kind == VIDEO:
            group = selection.merge.dropped[(selection.merge.into == index) & (selection.merge.weight > 0)].tolist()
            torch.testing.assert_close(pruned.embeddings[row], stream.embeddings[[index, *group]].mean(0))
            assert pruned.merge_size[row] == 1 + len(group)
    assert pruned.merge_size.sum() == len(
        stream
    )  # nothing is lost: the video is one segment, with something kept in it


def _nearest_by_loops(point, grid, run, kept):
    """What merge_nearest does, token by token: {dropped: kept one that takes it, or None}."""
    out = {}
    for i in set(range(len(point))) - set(kept):
        cost = {j: float((point[i] - point[j]).norm()) for j in kept if run[grid[i]] == run[grid[j]]}
        out[i] = min(cost, key=cost.get) if cost else None
    return out


def test_every_dropped_token_goes_to_the_nearest_kept_one_of_its_run():
    stream = make_stream(4, HEIGHT, WIDTH, dim=DIM)
    rows = rows_of(stream)
    grids = table(stream, rows, stream.embeddings[rows.video])
    kept, run = [1, 5, 14, 30], torch.tensor([0, 0, 1, 2])  # nothing is kept in the last run
    merge = merge_nearest(grids, rows, torch.tensor(kept), run)
    expected = _nearest_by_loops(stream.embeddings[rows.video], stream.grid[rows.video].tolist(), run.tolist(), kept)
    place = {int(row): i for i, row in enumerate(rows.video)}
    for dropped, into, weight in zip(merge.dropped.tolist(), merge.into.tolist(), merge.weight.tolist()):
        taker = expected.pop(place[dropped])
        assert weight == (taker is not None)
        assert taker is None or place[into] == taker
    assert not expected


def test_contextual_tokens_are_evenly_spaced_among_the_less_detailed_half():
    stream = make_stream(5, HEIGHT, WIDTH, dim=DIM)
    rows = rows_of(stream)
    grids = table(stream, rows, stream.embeddings[rows.video])
    length = grids.point.norm(dim=-1)
    chosen = contextual_tokens(grids, torch.tensor([0, 1, 3, 6, 99]))
    assert chosen.sum(1).tolist() == [0, 1, 3, 6, 6]
    for grid in range(5):
        half = length[grid].argsort()[:6].sort().values.tolist()
        places = chosen[grid].nonzero()[:, 0].tolist()
        assert set(places) <= set(half)
    assert [half.index(p) for p in chosen[4].nonzero()[:, 0].tolist()] == list(range(6))


def test_contextual_tokens_keep_their_part_of_the_budget():
    stream, predictor = world([0, 1, 2, 3])
    rows = stream.embeddings.clone()
    video = (stream.modality == VIDEO).nonzero()[:, 0]
    loud = video[(stream.row * WIDTH + stream.column)[video] < 6]
    rows[loud] += (
        torch.randn(len(loud), DIM, generator=torch.Generator().manual_seed(3)) * 2
    )  # half of each grid: rich, and all new
    stream = replace(stream, embeddings=rows)
    audio = int((stream.modality == AUDIO).sum())
    kept = kept_video(
        stream, ContextGuard(recover=False).with_predictor(predictor).select(stream, budgets.Budget(20, audio))
    )
    assert [sum(g == grid and cell >= 6 for g, cell in kept) for grid in range(4)] == [1, 1, 1, 1]  # a quarter of 5


def test_a_regression_inside_the_clip_equals_one_fitted_anew_for_each_window():
    generator = torch.Generator().manual_seed(0)
    window = torch.tensor([0, 0, 1, 2, 2, 2, 4, 5])  # window 3 is silent
    audio, picture = torch.randn(8, DIM, generator=generator), torch.randn(6, 5, generator=generator)
    sound = torch.stack([audio[window == w].mean(0) if (window == w).any() else torch.zeros(DIM) for w in range(6)])
    audible = [0, 1, 2, 4, 5]
    x, y = sound[audible] - sound[audible].mean(0), picture[audible] - picture[audible].mean(0)
    penalty = RIDGE * x.square().sum(1).mean()
    predicted = leave_one_out(audio, window, picture)
    assert (predicted[3] == 0).all()
    for i, w in enumerate(audible):
        rest = [j for j in range(5) if j != i]
        weights = torch.linalg.solve(x[rest].T @ x[rest] + penalty * torch.eye(DIM), x[rest].T @ y[rest])
        torch.testing.assert_close(
            predicted[w], torch.nn.functional.normalize(x[i] @ weights, dim=0), atol=1e-4, rtol=1e-3
        )


def test_a_stream_refuses_what_needs_the_whole_clip():
    with pytest.raises(UsageError, match="whole clip"):
        registry.make("contextguard-online", prediction="ridge")


@pytest.mark.parametrize("name", ["contextguard", "contextguard-online"])
@pytest.mark.parametrize("keep", [0.45, 0.1])
def test_choosing_costs_next_to_nothing_at_the_shapes_of_the_7b_model(name, keep):
    """Issue: at most 2 % of the prefill's operations; 30 s to 5 minutes, at 144 and 300 tokens a grid."""
    sizes = cost.TextSizes(hidden=3584, intermediate=18944, layers=28, heads=28, kv_heads=4, head_dim=128, vocab=152064)
    pruner = registry.make(name).with_predictor(DirectionPredictor(PredictorMetadata("m", "r", "f", 3584)))
    for seconds, cells in ((30, 144), (60, 300), (300, 144)):
        video, audio = seconds * cells, 25 * seconds
        budget = budgets.split(video, audio, seconds, keep)
        share = pruner.flops(budget, audio, video, seconds, 3584) / cost.decoder_flops(sizes, video + audio, 0, 0)
        assert 0 < share < 0.02


@pytest.mark.parametrize("predicts", [True, False])
def test_its_operations_are_those_that_torch_counts(predicts):
    generator = torch.Generator().manual_seed(0)
    still = torch.randn(36, 96, generator=generator).repeat(8, 1)  # one run: no token of which is compared in vain
    video = still + 0.01 * torch.randn(still.shape, generator=generator)
    stream = make_stream(8, 6, 6, audio_per_chunk=20, dim=96, video=video)
    predictor = DirectionPredictor(PredictorMetadata("m", "r", "f", 96, hidden=64, components=32))
    predictor.basis.copy_(torch.randn(96, 32, generator=generator))
    pruner = ContextGuard().with_predictor(predictor if predicts else None)
    budget = budgets.plan(stream, 0.3)
    with FlopCounterMode(display=False) as counter:
        pruner.select(stream, budget)
    analytic = pruner.flops(budget, 80, 288, 8, 96)
    compared = 2 * (32 if predicts else 64) * 8 * 36 * 36  # by cdist, which torch does not count
    assert analytic == pytest.approx(counter.get_total_flops() + compared, rel=0.02)


def test_in_a_long_video_a_dropped_token_is_compared_with_no_more_kept_ones():
    pruner = ContextGuard()
    one, two = (pruner.flops(budgets.split(v, 0, v // 144, 0.25), 0, v, v // 144, 96) for v in (144_000, 288_000))
    assert two == pytest.approx(2 * one, rel=1e-3)


def test_audio_that_must_shrink_merges_with_its_neighbours():
    stream = make_stream(2, 1, 1, audio_per_chunk=20)
    budget = budgets.plan(stream, 0.3)
    selection = registry.make("contextguard").select(stream, budget)
    audio = (stream.modality[selection.merge.dropped] == AUDIO).nonzero()[:, 0]
    assert len(audio) == 20 - budget.audio and (selection.merge.weight[audio] == 1).all()
    gap = (selection.merge.dropped - selection.merge.into)[audio].abs()
    assert gap.max() <= 20 // budget.audio + 1


LENGTH_S = 12
SOUND = {
    "throughout": lambda second: second >= 0,
    "nowhere": lambda second: second < 0,
    "in the first half": lambda second: second < 6,
    "from 4 to 6 s": lambda second: (second >= 4) & (second < 6),
    "at the end": lambda second: second >= 10,
    "now and then": lambda second: (second < 1) | (second >= 4) & (second < 5.4) | (second >= 9),
}
PICTURE = {
    "throughout": lambda second: second >= 0,
    "at first": lambda second: second < 4,
    "later": lambda second: second >= 6,
}


def cut(stream: TokenStream, seconds: float) -> TokenStream:
    """What of ``stream`` a recorder has after so many seconds."""
    header = (stream.modality == TEXT) & (torch.arange(len(stream)) < 3)
    rows = header | (stream.time_s >= 0) & (stream.time_s < seconds - 1e-3)
    return apply(stream, Selection(rows.nonzero()[:, 0]))


def partly(stream: TokenStream, sound: str, picture: str) -> TokenStream:
    """``stream`` with sound and picture now and then only."""
    audible = (stream.modality == AUDIO) & SOUND[sound](stream.time_s)
    visible = (stream.modality == VIDEO) & PICTURE[picture](stream.time_s)
    part = apply(stream, Selection(((stream.modality == TEXT) | audible | visible).nonzero()[:, 0]))
    if not visible.any():
        return part
    return replace(part, grid=torch.where(part.grid >= 0, part.grid - part.grid[part.grid >= 0].min(), -1))


@pytest.mark.parametrize("keep", [0.05, 0.2, 0.45, 0.7])
@pytest.mark.parametrize("sound", SOUND)
@pytest.mark.parametrize("picture", PICTURE)
@pytest.mark.parametrize("predicts", [True, False])
def test_online_a_prefix_of_the_video_gives_a_prefix_of_the_selection(keep, sound, picture, predicts):
    whole, predictor = world([0, 0, 1, 1, 1, 2, 0, 0, 3, 3, 1, 2])
    whole = partly(whole, sound, picture)
    pruner = ContextGuardOnline().with_predictor(predictor if predicts else None)
    selection = pruner.select(whole, budgets.plan(whole, keep))
    for seconds in range(2, LENGTH_S + 1, 2):
        part = cut(whole, seconds)
        budget = budgets.plan(part, keep)
        early = pruner.select(part, budget)
        assert len(early.indices) == budget.count + (part.modality == TEXT).sum()
        assert early.indices.tolist() == [i for i in selection.indices.tolist() if i < len(part)]
        prefix = apply(part, early).embeddings
        torch.testing.assert_close(prefix, apply(whole, selection).embeddings[: len(prefix)])


@pytest.mark.parametrize("keep", [0.05, 0.2, 0.45, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_online_quotas_keep_the_budget_after_every_window(keep, seed):
    generator = torch.Generator().manual_seed(seed)
    video, audio = (
        (torch.randint(0, 40, (30,), generator=generator) * (torch.rand(30, generator=generator) < 0.6)).tolist()
        for _ in range(2)
    )
    grids = [int(count > 0) for count in video]
    quotas = causal_quotas(video, audio, grids, keep)
    for counts, quota in zip((video, audio), quotas):
        assert all(0 <= some <= count for some, count in zip(quota, counts))
    for end in range(1, 31):
        so_far = (sum(each[:end]) for each in (video, audio, grids))
        assert sum(quotas[0][:end]) + sum(quotas[1][:end]) == budgets.split(*so_far, keep).count
        assert causal_quotas(video[:end], audio[:end], grids[:end], keep) == tuple(each[:end] for each in quotas)


@pytest.mark.parametrize("keep", [0.05, 0.2, 0.45, 0.7, 1.0])
def test_online_with_sound_and_picture_throughout_both_numbers_are_the_budgets(keep):
    quotas = causal_quotas([24] * 9, [50] * 9, [2] * 9, keep)
    for end in range(1, 10):
        target = budgets.split(24 * end, 50 * end, 2 * end, keep)
        assert (sum(quotas[0][:end]), sum(quotas[1][:end])) == (target.video, target.audio)


def test_online_every_window_gets_its_share():
    whole, predictor = world([0] * 10)
    pruner = ContextGuardOnline().with_predictor(predictor)
    counts = [0] * 5
    for grid, _ in kept_video(whole, pruner.select(whole, budgets.plan(whole, 0.6))):
        counts[grid // 2] += 1
    assert max(counts) - min(counts) <= 1


def _depth_by_walking(similarity: list[float], causal: bool) -> list[float]:
    """The depth score as VideoLLaMB's public code walks it, gap by gap."""
    out = []
    for i, value in enumerate(similarity):
        peaks = []
        for step in (-1, 1):
            peak, j = value, i + step
            while 0 <= j < len(similarity) and similarity[j] >= peak:
                peak, j = similarity[j], j + step
            peaks.append(peak)
        out.append(peaks[0] - value if causal else sum(peaks) - 2 * value)
    return out


@pytest.mark.parametrize("causal", [False, True])
def test_depth_scores_equal_a_walk_from_gap_to_gap(causal):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        similarity = (torch.rand(1 + seed, generator=generator) * 10).round() / 10  # with ties
        torch.testing.assert_close(
            depth(similarity, causal), torch.tensor(_depth_by_walking(similarity.tolist(), causal))
        )


@pytest.mark.parametrize("causal", [False, True])
def test_a_cut_starts_a_segment_and_a_still_video_has_one(causal):
    similarity = torch.full((9,), 0.95) + torch.linspace(0, 1e-4, 9)
    assert segments(similarity, causal).tolist() == [0] * 10
    similarity[4] = 0.1
    assert segments(similarity, causal).tolist() == [0] * 5 + [1] * 5
    assert segments(similarity[:0], causal).tolist() == [0]


def test_segments_so_far_do_not_change_when_more_comes():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(30, generator=generator)
    for length in range(1, 30):
        assert segments(similarity[:length], True).tolist() == segments(similarity, True)[: length + 1].tolist()
