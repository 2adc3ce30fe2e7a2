"""The pruner contract, for every pruner of the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers.pruner_matrix import CASES, PRUNING_CASES, Case
from helpers.synthetic_stream import SHAPES, make_stream
from torch.utils._python_dispatch import TorchDispatchMode

from cg_cli.errors import UsageError
from cg_cli.pruning import registry
from cg_cli.pruning import stream as streams
from cg_cli.pruning.budget import Budget, plan
from cg_cli.pruning.ops import match
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, TokenStream

pytestmark = pytest.mark.slow

KEEPS = (0.001, 0.1, 0.25, 0.45, 0.65, 0.99)
OPERATIONS_OF_A_BATCH = 60  # of groups of about the same size
READS = ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__")

all_cases = pytest.mark.parametrize("case", CASES, ids=str)
pruning_cases = pytest.mark.parametrize("case", PRUNING_CASES, ids=str)
all_shapes = pytest.mark.parametrize("shape", SHAPES)


def whole(stream: TokenStream) -> Budget:
    return Budget(int((stream.modality == VIDEO).sum()), int((stream.modality == AUDIO).sum()))


def check(stream: TokenStream, budget: Budget, indices: torch.Tensor) -> None:
    """Count per modality, order, uniqueness, and text, checked with plain Python."""
    chosen = indices.tolist()
    assert indices.dtype == torch.int64
    assert chosen == sorted(set(chosen))
    kinds = stream.modality.tolist()
    kept = Counter(kinds[i] for i in chosen)
    assert kept[VIDEO] == budget.video
    assert kept[AUDIO] == budget.audio
    assert kept[TEXT] == kinds.count(TEXT)


@pruning_cases
@all_shapes
@pytest.mark.parametrize("keep", KEEPS)
def test_keeps_exactly_the_budget_and_all_text(case: Case, shape: str, keep: float):
    stream = make_stream(**SHAPES[shape])
    budget = plan(stream, keep)
    check(stream, case.counts(stream, budget), case.make().select(stream, budget).indices)


@pruning_cases
def test_a_grid_without_tokens_does_no_harm(case: Case):
    stream = make_stream(grids=6)
    stream = streams.apply(stream, streams.Selection((stream.grid != 3).nonzero()[:, 0]))
    budget = plan(stream, 0.4)
    check(stream, case.counts(stream, budget), case.make().select(stream, budget).indices)


@pruning_cases
def test_any_split_of_a_small_stream_is_met(case: Case):
    stream = make_stream(grids=3, height=1, width=3, audio_per_chunk=2)
    most, pruner = whole(stream), case.make()
    for video in range(most.video + 1):
        for audio in range(most.audio + 1):
            budget = Budget(video, audio)
            check(stream, case.counts(stream, budget), pruner.select(stream, budget).indices)


@all_cases
@all_shapes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keep_1_returns_the_stream_itself(case: Case, shape: str, dtype: torch.dtype):
    stream = make_stream(**SHAPES[shape], dtype=dtype)
    before = stream.embeddings.clone()
    pruned = streams.apply(stream, case.make().select(stream, plan(stream, 1.0)))
    assert pruned is stream
    assert torch.equal(stream.embeddings, before)


@pruning_cases
@all_shapes
@pytest.mark.parametrize("keep", [0.001, 0.45])
def test_works_in_bfloat16(case: Case, shape: str, keep: float):
    stream = make_stream(**SHAPES[shape], dtype=torch.bfloat16)
    budget = plan(stream, keep)
    selection = case.make().select(stream, budget)
    check(stream, case.counts(stream, budget), selection.indices)
    assert streams.apply(stream, selection).embeddings.dtype == torch.bfloat16


@pruning_cases
@pytest.mark.parametrize("audio", [0, 10])
def test_one_token_a_window_is_enough(case: Case, audio: int):
    stream = make_stream(grids=8, audio_per_chunk=audio)
    budget = Budget(4, 4 if audio else 0)
    selection = case.make().select(stream, budget)
    check(stream, case.counts(stream, budget), selection.indices)
    assert streams.apply(stream, selection).embeddings.isfinite().all()
    if case.name == "contextguard-online":
        kept = selection.indices[stream.modality[selection.indices] != TEXT]
        windows = Counter((int(stream.modality[i]), int(stream.time_s[i] / 2 + 1e-4)) for i in kept)
        assert set(windows.values()) == {1}


@pruning_cases
def test_same_input_and_options_same_selection_and_input_untouched(case: Case):
    stream, again = make_stream(), make_stream()
    budget = plan(stream, 0.3)
    torch.manual_seed(1)
    first = case.make().select(stream, budget)
    torch.manual_seed(2)  # a pruner owns its randomness
    second = case.make().select(again, budget)
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(stream.embeddings, again.embeddings)


@pruning_cases
def test_reads_no_position_that_pruning_must_not_depend_on(case: Case):
    """Kept rows keep their own positions, whatever those are."""
    stream = make_stream()
    selection = case.make().select(stream, plan(stream, 0.4))
    pruned = streams.apply(stream, selection)
    assert torch.equal(pruned.positions, stream.positions[:, selection.indices])
    assert pruned.next_position == stream.next_position


@all_cases
@pytest.mark.parametrize("extra", [Budget(1, 0), Budget(0, 1)])
def test_a_budget_beyond_the_stream_is_refused(case: Case, extra: Budget):
    stream = make_stream()
    most = whole(stream)
    with pytest.raises(ValueError, match="holds"):
        case.make().select(stream, Budget(most.video + extra.video, most.audio + extra.audio))


@pytest.mark.parametrize("less", [Budget(1, 0), Budget(0, 1)])
def test_none_refuses_to_drop(less: Budget):
    stream = make_stream()
    most = whole(stream)
    with pytest.raises(UsageError, match="keep 1"):
        registry.make("none").select(stream, Budget(most.video - less.video, most.audio - less.audio))


def test_random_seeds_differ_and_a_smaller_budget_keeps_a_subset():
    stream = make_stream()
    picks = {
        (seed, keep): frozenset(registry.make("random", seed=seed).select(stream, plan(stream, keep)).indices.tolist())
        for seed in range(4)
        for keep in (0.3, 0.6)
    }
    assert len({pick for (_, keep), pick in picks.items() if keep == 0.3}) == 4
    assert all(picks[seed, 0.3] < picks[seed, 0.6] for seed in range(4))


def test_random_keeps_each_token_equally_often():
    stream = make_stream(grids=2, height=2, width=2, audio_per_chunk=8)
    budget, runs = Budget(4, 4), 200
    chosen = torch.cat([registry.make("random", seed=seed).select(stream, budget).indices for seed in range(runs)])
    share = torch.bincount(chosen, minlength=len(stream))[stream.modality != TEXT] / runs
    assert (share - 0.5).abs().max() < 0.15  # 4 standard deviations of a fair coin thrown 200 times: 0.14


class CountOperations(TorchDispatchMode):
    """Counts tensor operations, and those that make the host wait for a device's answer on its own."""

    WAITING = ("nonzero", "masked_select", "unique", "bincount", "_local_scalar_dense", "repeat_interleave.Tensor")

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        self.operations += 1
        self.waits += any(word in name for word in self.WAITING)
        if name.startswith(("aten.index.", "aten.index_put")):  # a mask as an index is a hidden nonzero
            self.waits += any(index is not None and index.dtype == torch.bool for index in args[1])
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count the calls by which Python reads a tensor's values (on the CPU most never reach the dispatcher)."""
    calls: Counter[str] = Counter()

    def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self, *args, **kwargs):
            calls[name] += 1
            return original(self, *args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in READS:
            patch.setattr(torch.Tensor, name, counting(name, getattr(torch.Tensor, name)))
        yield calls


@all_cases
def test_waits_for_the_device_once_and_never_loops_over_tokens(case: Case, monkeypatch: pytest.MonkeyPatch):
    """One read of counts a selection, one of the sizes of what is matched in groups, and, online, one of the counts of
    the windows; the number of tensor operations does not grow with the stream.

    With what one window picks it may, where picks depend on each other; see that method's own test for how far. Groups
    are matched side by side by their size, of which there are a few.
    """
    operations, batches = [], []
    monkeypatch.setattr(match, "DENSE", {})  # as a long stream
    together = match._alike
    monkeypatch.setattr(match, "_alike", lambda *sizes: batches.append(together(*sizes)) or batches[-1])
    for scale in (1, 5):
        stream = make_stream(grids=4 * scale, height=3 * scale)
        budget = plan(stream, 1.0 if case.whole_only else 0.15)  # video and audio shrink at either scale
        pruner = case.make()
        batches.clear()
        with counted_reads(monkeypatch) as reads, CountOperations() as counter:
            pruner.select(stream, budget)
        assert reads.total() + counter.waits <= 1 + len(batches) + (case.name == "contextguard-online")
        assert len(batches) <= 2
        operations.append(counter.operations)
    most = OPERATIONS_OF_A_BATCH * sum(map(len, batches))
    assert case.in_turn or (0 <= operations[1] - operations[0] <= most and operations[0])


def test_the_counters_of_the_test_above_can_count(monkeypatch: pytest.MonkeyPatch):
    values = torch.arange(6)
    with counted_reads(monkeypatch) as reads, CountOperations() as counter:
        values[values > 2].tolist()
        bool(values[0] == 0)
    assert reads["tolist"] == 1 and reads["__bool__"] == 1
    assert counter.waits >= 1
    assert counter.operations >= 3
