"""stream.apply: gathering kept rows, and folding dropped rows into them, against a plain recomputation."""

from __future__ import annotations

import pytest
import torch
from helpers.synthetic_stream import make_stream

from cg_cli.pruning.stream import Merge, Selection, apply


def pick(*rows: int) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int64)


def test_every_field_is_gathered_at_the_kept_rows():
    stream = make_stream()
    kept = pick(0, 4, 5, 30, len(stream) - 1)
    pruned = apply(stream, Selection(kept))
    for name in ("embeddings", "modality", "grid", "row", "column", "time_s"):
        assert torch.equal(getattr(pruned, name), torch.stack([getattr(stream, name)[i] for i in kept]))
    assert torch.equal(pruned.positions, torch.stack([stream.positions[:, i] for i in kept], dim=1))
    assert torch.equal(pruned.carry["deepstack"], torch.stack([stream.carry["deepstack"][i] for i in kept]))
    assert pruned.next_position == stream.next_position
    assert len(pruned) == len(kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_weights_1_a_merged_row_is_the_mean_of_its_tokens(dtype: torch.dtype):
    stream = make_stream(dtype=dtype)
    groups = {3: [7, 8, 20], 5: [4], 30: []}  # kept row: the rows folded into it
    pairs = [(row, into) for into, rows in groups.items() for row in rows]
    merge = Merge(pick(*(a for a, _ in pairs)), pick(*(b for _, b in pairs)), torch.ones(len(pairs)))
    pruned = apply(stream, Selection(pick(*groups), merge))
    for source, result in (
        (stream.embeddings, pruned.embeddings),
        (stream.carry["deepstack"], pruned.carry["deepstack"]),
    ):
        expected = torch.stack([source[[into, *rows]].double().mean(0) for into, rows in groups.items()])
        assert result.dtype == dtype
        torch.testing.assert_close(result, expected.to(dtype))
    assert torch.equal(pruned.embeddings[2], stream.embeddings[30])  # stands for itself alone: not a bit changes
    assert torch.equal(pruned.positions, stream.positions[:, pick(*groups)])


def test_weights_count_relative_to_the_kept_row():
    stream = make_stream()
    merge = Merge(pick(1, 2, 9), pick(6, 6, 6), torch.tensor([0.5, 0.0, 2.0]))
    pruned = apply(stream, Selection(pick(6, 10), merge))
    x = stream.embeddings.double()
    torch.testing.assert_close(pruned.embeddings[0], ((x[6] + 0.5 * x[1] + 2 * x[9]) / 3.5).float())
    assert torch.equal(pruned.embeddings[1], stream.embeddings[10])


def test_an_empty_merge_is_no_merge():
    stream = make_stream()
    kept = pick(2, 3, 11)
    merged = apply(stream, Selection(kept, Merge(pick(), pick(), torch.ones(0))))
    assert torch.equal(merged.embeddings, apply(stream, Selection(kept)).embeddings)
