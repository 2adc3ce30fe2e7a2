"""What choosing the tokens costs: the figures hang together. Sizes are small here; the command has the 7B model's."""

from __future__ import annotations

import json
import sys

import pytest

from cg_cli.profiling import overhead

pytestmark = pytest.mark.slow


@pytest.fixture
def small(monkeypatch):
    shape = {"hidden_size": 512, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    monkeypatch.setattr(overhead, "SHAPE", shape)


@pytest.mark.parametrize("pruner", ["contextguard", "contextguard-online", "random"])
def test_figures_hang_together(small, monkeypatch, capsys, pruner):
    arguments = [
        "x",
        "--pruner",
        pruner,
        "--seconds",
        "4",
        "--tokens",
        "3",
        "5",
        "--layers",
        "2",
        "--repeat",
        "3",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    overhead.main()
    out = capsys.readouterr()
    result = json.loads(out.out)
    assert (result["video_tokens"], result["audio_tokens"], result["kept"]) == (60, 100, 72)
    assert result["time_share"] == pytest.approx(result["time_share_of_layers_run"] * 2 / overhead.LAYERS)
    for name, median in result["seconds"].items():
        low, high = result["spread_s"][name]
        assert 0 < low <= median <= high
    assert (result["flops"]["select"] > 0) == pruner.startswith("contextguard")
    assert "2 layers, measured" in out.err and "28 layers, scaled" in out.err
