"""OmniDrop's schedule and ranking, on cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.synthetic_stream import make_stream

from cg_cli.pruning.budget import Budget, plan
from cg_cli.pruning.decoder import LayerView
from cg_cli.pruning.methods.omnidrop import OmniDrop
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO


def run_down(pruner: OmniDrop, entered: int, layers: int, count: int) -> list[int]:
    """How many are read by each layer."""
    read = [entered]
    for layer in range(layers - 1):
        read.append(pruner.next_count(read[-1], layer, layers, count))
    return read


def test_the_schedule_falls_as_the_published_rates_do_and_ends_at_the_budget():
    read = run_down(OmniDrop(), 1000, 28, 300)
    assert read == sorted(read, reverse=True) and read[-2:] == [300, 300] and read[0] == 1000
    # Rates by hand, all to one power so that their product leaves 30 %.
    share = [0.2 / (1 + math.exp(-20 * (layer / 28 - 0.5))) for layer in range(26)]
    log = [-math.log(1 - p) for p in share]
    power = math.log(1000 / 300) / sum(log)
    alive = 1000.0
    for layer in range(26):
        alive *= (1 - share[layer]) ** power
        assert read[layer + 1] == pytest.approx(alive, abs=5)  # whole tokens, layer after layer
    assert read[8] > 970 and read[14] > 600 > read[22]  # little at first, most around the middle and after


def test_nothing_goes_where_no_more_than_the_budget_is_left():
    assert run_down(OmniDrop(), 300, 12, 300) == [300] * 12
    assert run_down(OmniDrop(), 100, 2, 40) == [100, 40] and run_down(OmniDrop(), 100, 1, 40) == [100]


def test_what_enters():
    assert OmniDrop.entering(500, 200, 70) == (200, 140)  # 40 and 70 %
    video, audio = OmniDrop.entering(500, 200, 500)
    assert video + audio == 500 and video > 200 and audio > 140
    assert OmniDrop.entering(500, 200, 700) == (500, 200) and OmniDrop.entering(0, 10, 5) == (0, 7)
    stream = make_stream(grids=8, height=4)
    for keep in (0.1, 0.45, 0.8, 1.0):
        chosen = OmniDrop().select(stream, plan(stream, keep)).indices
        kinds = stream.modality[chosen]
        expected = OmniDrop.entering(
            *(int((stream.modality == kind).sum()) for kind in (VIDEO, AUDIO)), plan(stream, keep).count
        )
        assert tuple(int((kinds == kind).sum()) for kind in (VIDEO, AUDIO)) == expected
        assert (chosen[1:] > chosen[:-1]).all() and (kinds == TEXT).sum() == (stream.modality == TEXT).sum()


def view(layer: int, attention: list[float], time_s: list[float]) -> LayerView:
    """Ten layers; media rows with the attention that the one question row pays them, between a text row and the
    question."""
    n = len(attention)
    modality = torch.tensor([TEXT, *[VIDEO] * n, TEXT])
    paid = torch.tensor([[0.3, *attention, 0.1]])
    return LayerView(
        layer,
        10,
        (n + 2,) * (layer + 1),
        modality,
        torch.zeros(n + 2).long(),
        torch.tensor([-1.0, *time_s, -1.0]),
        1,
        torch.zeros(n + 2, 4),
        lambda rows: paid[: len(rows)],
    )


class Losing(OmniDrop):
    """Drops a fixed number of rows at every layer."""

    def __init__(self, rows: int):
        object.__setattr__(self, "rows", rows)

    def next_count(self, count: int, layer: int, layers: int, final: int) -> int:
        return count - self.rows


def test_before_the_middle_attention_alone_decides():
    rows = view(4, [0.05, 0.2, 0.01, 0.15, 0.02, 0.1], [0, 0, 0, 9, 9, 9])
    assert Losing(1).after(rows, Budget(2, 0)).tolist() == [0, 1, 2, 4, 5, 6, 7]  # row 3 gets 0.01
    assert Losing(3).after(rows, Budget(2, 0)).tolist() == [0, 2, 4, 6, 7]


def test_from_the_middle_on_far_chunks_are_spared():
    # The key chunk is that of time 0. Row 3 (at 0 s) and row 6 (at 20 s) get about as little; one of them has to go.
    attention, time_s = [0.2, 0.19, 0.011, 0.18, 0.17, 0.010], [0, 0, 0, 0, 20, 20]
    early, late = (Losing(1).after(view(layer, attention, time_s), Budget(2, 0)).tolist() for layer in (4, 5))
    assert early == [0, 1, 2, 3, 4, 5, 7]  # row 6 has the least
    assert late == [0, 1, 2, 4, 5, 6, 7]  # but is far from what matters, and row 3 beside it is not
    assert OmniDrop().after(view(9, attention, time_s), Budget(6, 0)) is None


def test_options_that_make_no_sense():
    for options in ({"first": -0.1}, {"last": 0.0}, {"last": 1.0}):
        with pytest.raises(ValueError, match="first and last"):
            OmniDrop(**options)
