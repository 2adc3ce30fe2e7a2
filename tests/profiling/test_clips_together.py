"""Answers of several clips together against one after another: what is timed is the same work."""

from __future__ import annotations

from helpers import tiny

from cg_cli import backbones
from cg_cli.profiling import decoding


def test_the_same_tokens_are_made_however_many_clips_are_together(tmp_path):
    backbone = backbones.load(str(tiny.build(tmp_path / "tiny")), device="cpu", dtype="float32", offline=True)
    prefixes = decoding.make_prefixes(backbone, 20, 4)
    assert [prefix.length for prefix in prefixes] == [20, 23, 27, 30]
    assert prefixes[0].cache.bias is not None  # merged tokens, as pruned clips have
    made = [decoding.seconds(backbone, prefixes, together, 6)[1] for together in (1, 2, 4)]
    assert made[0] == made[1] == made[2] > 0
