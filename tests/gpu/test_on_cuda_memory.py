"""Memory of a device: what does not fit is tried again with less, and clips leave nothing behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from helpers import tiny

from cg_cli.engine import memory, pipeline
from cg_cli.engine.inputs import Sampling
from cg_cli.engine.session import Reading, Session
from cg_cli.errors import ItemError
from cg_cli.media.clip import DecodeOptions
from cg_cli.pruning import registry
from cg_cli.pruning.methods.random import Random

CLIP = tiny.clip(16, 112, 112, 4.0)
QUESTION = "What do you see?"
MIB = 1 << 20
ROOM = 1024 * MIB  # that a process may have beside what it has
LEFT = 512 * MIB  # on a full card


@dataclass(frozen=True)
class Hungry(Random):
    """Takes three quarters of ROOM for half of the clip's budget, and so twice that for all of it."""

    name: ClassVar[str] = "hungry"
    full: ClassVar[int] = 0  # tokens of the whole budget

    def select(self, stream, budget):
        need = 1.5 * ROOM * budget.count / self.full
        if stream.embeddings.device.type != "cuda" and need > ROOM:
            raise torch.OutOfMemoryError("on the CPU nothing else would fail")
        torch.empty(int(need), dtype=torch.uint8, device=stream.embeddings.device)
        return super().select(stream, budget)


@pytest.fixture
def session(load, device):
    """Answers with ``random`` at keep 0.8."""
    backbone = load(device, "bfloat16")
    options = DecodeOptions(side_multiple=backbone.side_multiple, frame_multiple=backbone.frame_multiple)
    return Session(backbone, registry.make("random"), 0.8, Sampling(max_new_tokens=4), options)


@pytest.fixture
def little_room(session):
    """The process may have ROOM more of its card, and no more."""
    device = session.backbone.device
    if device.type == "cuda":
        memory.release(device)
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + ROOM) / total, device)
    yield
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def ask(session):
    """The record of a question on CLIP, which is no file."""
    (record,) = session.ask("clip", [QUESTION], Reading(CLIP, "clip", 0.0)).records(together=True)
    return record


def test_a_clip_that_runs_out_of_memory_is_tried_with_less(session, little_room, monkeypatch):
    stream = session.backbone.encode(CLIP)
    monkeypatch.setattr(Hungry, "full", pipeline.budgets.plan(stream, session.keep).count)
    session.pruner = Hungry()
    record = ask(session)
    assert record.ok and record.pruner.keep == session.keep * memory.SHRINK
    assert any(warning.startswith("out of memory on ") for warning in record.warnings)


def test_what_does_not_fit_what_is_free_is_refused_first(session, monkeypatch):
    backbone = session.backbone
    encoded = pipeline.encode(backbone, CLIP)
    check = lambda: memory.check_fits(
        backbone, CLIP, encoded.stream, 2 * LEFT // backbone.prefill_bytes(1), encoded.tokens, 1.0, session.pruner
    )
    memory.release(backbone.device)
    check()
    filler = None
    if backbone.device.type == "cuda":
        free = torch.cuda.mem_get_info(backbone.device)[0]
        filler = torch.empty(free - LEFT, dtype=torch.uint8, device=backbone.device)
    else:
        monkeypatch.setattr(memory, "free_bytes", lambda device: LEFT)
    with pytest.raises(ItemError, match="would fit|take a smaller model") as caught:
        check()
    assert caught.value.kind == memory.OUT_OF_MEMORY
    del filler


def test_peak_memory_is_recorded_and_clips_leave_nothing_behind(session, device):
    ask(session)  # libraries take workspaces of their own, once
    peaks = [ask(session).memory.peak_bytes for _ in range(4)]
    assert all(peak > 0 for peak in peaks)
    if device == "cuda":  # on the CPU it is the whole process's, since it started
        assert max(peaks[1:]) <= 1.02 * peaks[0]
