"""Selection on a device keeps what it keeps on the CPU, where its loop is recorded as a CUDA graph."""

from __future__ import annotations

import pytest
import torch
from helpers.synthetic_stream import make_stream

from cg_cli.pruning import budget as budgets
from cg_cli.pruning import registry
from cg_cli.pruning.ops.farthest import distances, insertion_radius
from cg_cli.pruning.stream import TokenStream


def moved(stream: TokenStream, device: str) -> TokenStream:
    tensors = {name: value for name, value in vars(stream).items() if isinstance(value, torch.Tensor)}
    return TokenStream(**{**vars(stream), **{name: value.to(device) for name, value in tensors.items()}})


@pytest.mark.parametrize("picks", [3, 20])
def test_radii_are_exactly_those_of_the_cpu(device, picks):
    for sets in (5, 2, 9):  # one recording serves all
        point = torch.randn(sets, 20, 8, generator=torch.Generator().manual_seed(sets))
        mask = torch.rand(sets, 20, generator=torch.Generator().manual_seed(1)) < 0.8
        mask[:, 0] = True
        distance, first = distances(point), torch.zeros(sets, dtype=torch.long)
        expected = insertion_radius(distance, mask, first, picks)
        ours = insertion_radius(*(x.to(device) for x in (distance, mask, first)), picks)
        assert torch.equal(ours.cpu(), expected)


@pytest.mark.parametrize("name", ["contextguard", "contextguard-online", "divprune"])
def test_nearly_all_tokens_are_those_of_the_cpu(device, name):
    """Sums of another order may turn a tie."""
    stream = make_stream(12, 6, 8, dim=64)
    pruner, budget = registry.make(name), budgets.plan(stream, 0.25)
    kept = [set(pruner.prune(moved(stream, where), budget).indices.tolist()) for where in ("cpu", device)]
    assert len(kept[0] & kept[1]) >= 0.98 * len(kept[0])
