"""What choosing and merging cost: time linear in the length, memory below 1.5 streams; the figures hang together."""

from __future__ import annotations

import json
import sys
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cg_cli.profiling import selection
from cg_cli.pruning import registry
from cg_cli.pruning.budget import plan
from cg_cli.pruning.stream import apply

pytestmark = pytest.mark.slow

MOST = 1.5  # times the stream
WIDTH = 3584  # of Qwen2.5-Omni 7B

all_pruners = pytest.mark.parametrize("name", selection.pruners())


def test_figures_hang_together(monkeypatch, capsys):
    arguments = ["x", "--pruners", "contextguard", "random", "--lengths", "300", "1200", "--width", "64"]
    monkeypatch.setattr(sys, "argv", arguments)
    threads = torch.get_num_threads()
    selection.main()
    torch.set_num_threads(threads)
    out = capsys.readouterr()
    costs = json.loads(out.out)
    assert [(cost["pruner"], cost["tokens"] > 1000) for cost in costs] == [
        ("contextguard", False),
        ("random", False),
        ("contextguard", True),
        ("random", True),
    ]
    assert all(cost["seconds"]["select"] > 0 and cost["bytes"]["apply"] > 0 for cost in costs)
    assert "random" in out.err and "growth" in out.err


def test_live_bytes_are_those_of_the_tensors_that_live():
    given = torch.zeros(1000)

    def work() -> torch.Tensor:
        first = given + 1  # 4,000 bytes
        view = first[:500].view(2, 250)  # none
        second = torch.cat([view, view])  # 4,000
        del first, view
        return second.sum() + given.add_(1)[0] + torch.ones(1500).sum()  # 6,000 beside the second

    assert 10_000 <= selection.peak_bytes(work) < 10_100


@pytest.fixture(scope="module")
def half_a_minute():
    torch.manual_seed(0)
    return selection.scenes(5000, WIDTH, torch.bfloat16)


@all_pruners
@pytest.mark.parametrize("keep", [0.1, 0.6])
def test_choosing_and_merging_take_less_than_one_and_a_half_streams(name: str, keep: float, half_a_minute):
    pruner, budget = registry.make(name), plan(half_a_minute, keep)
    chosen = pruner.select(half_a_minute, budget)
    size = half_a_minute.embeddings.nbytes
    assert selection.peak_bytes(lambda: pruner.select(half_a_minute, budget)) < MOST * size
    assert selection.peak_bytes(lambda: apply(half_a_minute, chosen)) < MOST * size


@all_pruners
def test_operations_and_memory_grow_no_faster_than_the_clip(name: str):
    flops, memory = [], []
    for tokens in (12_000, 24_000):
        torch.manual_seed(0)
        stream = selection.scenes(tokens, 16, torch.bfloat16)
        pruner, budget = registry.make(name), plan(stream, 0.1)
        with FlopCounterMode(display=False) as counter:
            pruner.select(stream, budget)
        flops.append(counter.get_total_flops() / len(stream))
        memory.append(selection.peak_bytes(partial(pruner.select, stream, budget)) / len(stream))
    assert flops[1] <= 1.1 * flops[0] and memory[1] <= 1.1 * memory[0]


def test_a_video_of_one_scene_takes_no_more_than_its_share():
    """Nothing in it bounds a run but its length."""
    flops = []
    for tokens in (12_000, 24_000):
        torch.manual_seed(0)
        stream = selection.scenes(tokens, 16, torch.float32)
        video = stream.grid >= 0
        stream.embeddings[video] = stream.embeddings[video][:144].repeat(int(stream.grid.max()) + 1, 1)
        with FlopCounterMode(display=False) as counter:
            registry.make("contextguard").select(stream, plan(stream, 0.25))
        flops.append(counter.get_total_flops() / len(stream))
    assert flops[1] <= 1.1 * flops[0]
