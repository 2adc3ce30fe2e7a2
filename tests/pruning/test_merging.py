"""Merging the nearest: for ContextGuard's own selection and, in ``merging``, for any other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.pruner_matrix import PRUNING_CASES, Case
from helpers.synthetic_stream import SHAPES, make_stream
from torch import Tensor

from cg_cli.pruning import merging, registry
from cg_cli.pruning.budget import Budget, plan
from cg_cli.pruning.methods.contextguard import ContextGuard
from cg_cli.pruning.ops import match, merge
from cg_cli.pruning.ops.grids import similarity, table
from cg_cli.pruning.ops.projection import project
from cg_cli.pruning.ops.rows import rows_of
from cg_cli.pruning.ops.segments import segments
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, Merge, Selection, TokenStream, apply

DIM = 16
WHOLE_RUNS = pytest.mark.parametrize("seed", range(8))


def scenes(lengths: tuple[int, ...] = (3, 1, 6, 2), seed: int = 0, **shape) -> TokenStream:
    """A stream whose video shows scenes of so many grids each, still but for noise."""
    generator = torch.Generator().manual_seed(seed)
    still = torch.randn(len(lengths), 12, DIM, generator=generator)
    video = still.repeat_interleave(torch.tensor(lengths), dim=0)
    video = video + 0.2 * torch.randn(video.shape, generator=generator)
    return make_stream(sum(lengths), 3, 4, dim=DIM, video=video.reshape(-1, DIM), seed=seed, **shape)


def segment_of(stream: TokenStream) -> Tensor:
    """The depth-score segment of each row, -1 for no video."""
    rows = rows_of(stream)
    if not len(rows.video):
        return stream.grid
    number = segments(similarity(table(stream, rows, project(stream.embeddings, rows.video)).centred()), causal=False)
    return torch.where(stream.grid >= 0, number[stream.grid.clamp_min(0)], -1)


def against_all(grids, rows, kept: Tensor, run: Tensor) -> Merge:
    """What ``merge_nearest`` does, every dropped token against every kept one: the reference."""
    point, run = grids.flat(grids.point), grids.flat(run[:, None].expand_as(grids.index))
    dropped = torch.tensor(sorted(set(range(grids.total)) - set(kept.tolist())), dtype=torch.int64)
    distance = point[kept].square().sum(-1) - 2 * point[dropped] @ point[kept].T
    best = distance.masked_fill(run[dropped][:, None] != run[kept], torch.inf).min(1)
    return Merge(rows.video[dropped], rows.video[kept[best.indices]], (best.values < torch.inf).float())


def same(one: Merge, other: Merge) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("dropped", "into", "weight"))


@WHOLE_RUNS
@pytest.mark.parametrize(
    ("dense", "tile", "piece"), [(1 << 20, 512, 7), (0, 512, 1 << 22), (0, 3, 1 << 22), (0, 512, 7), (0, 2, 1)]
)
def test_merging_run_by_run_is_merging_against_all(seed: int, dense: int, tile: int, piece: int, monkeypatch):
    monkeypatch.setattr(match, "DENSE", {"cpu": dense})
    monkeypatch.setattr(match, "TILE", tile)
    monkeypatch.setattr(match, "PIECE", piece)
    generator = torch.Generator().manual_seed(seed)
    stream = make_stream(11, 3, 4, dim=DIM, seed=seed)
    stream = apply(stream, Selection((stream.grid != 4).nonzero()[:, 0]))  # a grid without tokens
    rows = rows_of(stream)
    grids = table(stream, rows, stream.embeddings[rows.video])
    run = (torch.rand(11, generator=generator) < 0.4).cumsum(0) * 3  # numbered with gaps
    for count in (1, 5, 40, 119, 120):
        kept = torch.randperm(120, generator=generator)[:count].sort().values
        assert same(merge.merge_nearest(grids, rows, kept, run), against_all(grids, rows, kept, run))


def test_a_long_run_is_merged_in_equal_stretches_of_whole_grids(monkeypatch):
    monkeypatch.setattr(merge, "STRETCH", 40)  # 3 grids of 12 tokens
    run = torch.tensor([0] * 7 + [1, 1, 1] + [5] + [6] * 4)
    assert merge.stretches(run, 12).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 5, 5, 6, 6]
    assert merge.stretches(run, 41).tolist() == list(range(15))  # one grid holds more
    stream = make_stream(15, 3, 4, dim=DIM)
    rows = rows_of(stream)
    grids = table(stream, rows, stream.embeddings[rows.video])
    kept = torch.tensor([0, 17, 100, 150])
    expected = against_all(grids, rows, kept, merge.stretches(run, 12))
    assert same(merge.merge_nearest(grids, rows, kept, run), expected)


@pytest.mark.parametrize("keep", [0.02, 0.2, 0.45, 0.9])
@pytest.mark.parametrize("audio", [0, 10])
def test_it_is_contextguards_own_merge_without_a_predictor(keep: float, audio: int):
    stream = scenes(audio_per_chunk=audio)
    own = ContextGuard().select(stream, plan(stream, keep))
    merged = merging.nearest(stream, Selection(own.indices))
    assert torch.equal(merged.indices, own.indices) and same(merged.merge, own.merge)


@pytest.mark.parametrize("case", [case for case in PRUNING_CASES if not case.predicts], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("keep", [0.001, 0.3, 0.9])
def test_properties_for_any_pruner(case: Case, shape: str, keep: float):
    stream = make_stream(**SHAPES[shape])
    selection = case.make().select(stream, plan(stream, keep))
    merged = merging.nearest(stream, selection)
    assert merged.indices is selection.indices
    own = len(selection.merge.dropped) if selection.merge else 0
    if own + len(selection.indices) == len(stream):
        assert merged is selection
    elif own:
        check_beside_own(stream, selection, merged)
    else:
        check(stream, merged)


@WHOLE_RUNS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_properties_for_any_selection(seed: int, dtype: torch.dtype):
    stream = scenes(seed=seed)
    stream = replace(stream, embeddings=stream.embeddings.to(dtype))
    chance = torch.rand(len(stream), generator=torch.Generator().manual_seed(seed))
    for keep in (0, 0.03, 0.5, 0.97):
        kept = (stream.modality == TEXT) | (chance < keep)
        check(stream, merging.nearest(stream, Selection(kept.nonzero()[:, 0])))


def check(stream: TokenStream, selection: Selection) -> None:
    """Text never merges, nothing across segments or modalities, and what is not lost is counted in one merge size."""
    kinds, segment, kept = stream.modality.tolist(), segment_of(stream), set(selection.indices.tolist())
    lost = [i for i in range(len(stream)) if i not in kept and not any(kinds[i] == kinds[k] for k in kept)]
    if selection.merge is not None:
        parts = (getattr(selection.merge, name).tolist() for name in ("dropped", "into", "weight"))
        merged = list(zip(*parts, strict=True))
        assert len({dropped for dropped, _, _ in merged}) == len(merged)
        for dropped, into, weight in merged:
            assert dropped not in kept and into in kept and weight in (0, 1)
            assert kinds[dropped] == kinds[into] != TEXT
            if weight:
                assert segment[dropped] == segment[into]
                if kinds[dropped] == AUDIO:
                    earlier = [k for k in kept if kinds[k] == AUDIO and k < dropped]
                    assert into == (max(earlier) if earlier else min(k for k in kept if kinds[k] == AUDIO))
            else:
                assert not any(segment[k] == segment[dropped] and kinds[k] == VIDEO for k in kept)
        lost += [dropped for dropped, _, weight in merged if not weight]
    pruned = apply(stream, selection)
    sizes = torch.ones(len(pruned)) if pruned.merge_size is None else pruned.merge_size
    assert sizes.sum() == len(stream) - len(lost)
    assert (sizes[pruned.modality == TEXT] == 1).all()
    assert torch.equal(pruned.embeddings[sizes == 1], stream.embeddings[selection.indices][sizes == 1])


def check_beside_own(stream: TokenStream, selection: Selection, merged: Selection) -> None:
    """What a pruner merges by itself stays so, and the rest goes where it would without that."""
    own, rest = selection.merge, merging.nearest(stream, Selection(selection.indices)).merge
    named = set(own.dropped.tolist())
    into = dict(zip(rest.dropped.tolist(), rest.into.tolist()))
    both = list(zip(merged.merge.dropped.tolist(), merged.merge.into.tolist()))
    assert both[: len(named)] == list(zip(own.dropped.tolist(), own.into.tolist()))
    assert torch.equal(merged.merge.weight[: len(named)], own.weight)
    assert both[len(named) :] == [pair for pair in into.items() if pair[0] not in named]


def test_a_segment_that_keeps_nothing_is_lost():
    stream = scenes((2, 3), text=(1, 1), audio_per_chunk=0)
    assert segment_of(stream).unique().tolist() == [-1, 0, 1]
    first = (stream.modality == TEXT) | (stream.grid == 0)
    merged = merging.nearest(stream, Selection(first.nonzero()[:, 0]))
    assert merged.merge.weight.tolist() == [1] * 12 + [0] * 36
    assert apply(stream, merged).merge_size.sum() == len(stream) - 36


def test_what_drops_nothing_or_merges_all_of_it_comes_back_as_it_is():
    stream = scenes()
    budget = Budget(20, 10)
    for selection in (Selection(torch.arange(len(stream))), registry.make("tome").select(stream, budget)):
        assert merging.nearest(stream, selection) is selection
    zipped = registry.make("omnizip").select(stream, budget)  # merges some of the sound alone
    merged = merging.nearest(stream, zipped)
    check_beside_own(stream, zipped, merged)
    assert len(merged.merge.dropped) == len(stream) - len(merged.indices) > len(zipped.merge.dropped)
    assert apply(stream, merging.nearest(stream, Selection(torch.arange(len(stream))))) is stream


def test_it_waits_for_the_device_three_times_however_long_the_stream(monkeypatch):
    monkeypatch.setattr(match, "DENSE", {})  # as a long stream
    reads, tolist = [], Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: reads.append(tensor) or tolist(tensor))
    for length in (2, 20):
        stream = scenes((3, 1) * length)
        kept = (stream.modality == TEXT) | (torch.arange(len(stream)) % 3 == 0)
        selection = Selection(kept.nonzero()[:, 0])
        reads.clear()
        merging.nearest(stream, selection)
        assert len(reads) == 3
