"""Things that go wrong in a batch: pruners that misbehave, and the clip at which they do."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.made import CLIPS

PLUGIN = """
import os
from dataclasses import dataclass
import torch
from cg_cli.pruning.methods.random import Random
from cg_cli.pruning.stream import AUDIO, VIDEO

@dataclass(frozen=True)
class Killer(Random):
    "Kills its process at a clip without sound."
    def select(self, stream, budget):
        if not (stream.modality == AUDIO).any():
            os.kill(os.getpid(), 9)
        return super().select(stream, budget)

@dataclass(frozen=True)
class Greedy(Random):
    "Runs out of memory at a clip of 8 s unless the budget is small, and always at one without sound."
    def select(self, stream, budget):
        if budget.count > 200 and (stream.modality == VIDEO).sum() == 512 or not (stream.modality == AUDIO).any():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().select(stream, budget)
"""


@pytest.fixture
def plugin(tmp_path):
    """A package with pruners that misbehave, for ``PYTHONPATH``."""
    place = tmp_path / "plugin"
    (place / "bad-1.0.dist-info").mkdir(parents=True)
    (place / "bad_pruners.py").write_text(PLUGIN)
    (place / "bad-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    (place / "bad-1.0.dist-info" / "entry_points.txt").write_text(
        "[cg_cli.pruners]\nkiller = bad_pruners:Killer\ngreedy = bad_pruners:Greedy\n"
    )
    return place


@pytest.fixture
def silent(tmp_path) -> Path:
    import av

    path = tmp_path / "silent.mp4"
    with av.open(str(CLIPS[0])) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path
