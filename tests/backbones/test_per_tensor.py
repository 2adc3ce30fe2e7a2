"""What is kept with a tensor: one result as long as it lives, and never that of another."""

from __future__ import annotations

import gc

import torch

from cg_cli.backbones.per_tensor import once_per_tensor


def test_it_is_computed_once_for_each_tensor_and_each_argument():
    calls = []

    @once_per_tensor
    def total(tensor, factor):
        calls.append(factor)
        return factor * int(tensor.sum())

    one, equal = torch.ones(3), torch.ones(3)
    assert [total(one, 2), total(one, 2), total(one, 5), total(one, 2)] == [6, 6, 15, 6] and calls == [2, 5]
    assert total(equal, 2) == 6 and calls == [2, 5, 2]
    for number in range(50):  # which take each other's places in memory
        tensor = torch.full((3,), number)
        assert total(tensor, 1) == 3 * number
        del tensor


def test_results_go_with_their_tensor():
    class Result:
        alive = 0

        def __init__(self):
            Result.alive += 1

        def __del__(self):
            Result.alive -= 1

    make = once_per_tensor(lambda tensor: Result())
    tensor = torch.ones(1)
    make(tensor)
    assert Result.alive == 1
    del tensor
    gc.collect()
    assert Result.alive == 0
