"""What does not fit is said before it fails, with options that do fit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cg_cli import media
from cg_cli.backbones import cost
from cg_cli.engine import memory, pipeline
from cg_cli.engine.setup import open_session
from cg_cli.errors import ItemError
from cg_cli.media.clip import Clip
from cg_cli.pruning.methods.none import KeepAll
from cg_cli.settings.resolve import resolve_settings

pytestmark = pytest.mark.slow

CLIP = str(Path(__file__).parents[2] / "samples" / "dog.mp4")


@pytest.fixture(scope="module")
def session():
    return open_session(resolve_settings({"model": "nano", "offline": True}))


def test_the_least_that_a_prefill_takes_is_no_more_than_it_takes(session):
    stream = session.backbone.encode(media.decode(CLIP, session.decode_options))
    kv = session.backbone.prefill(stream).kv_bytes
    sizes = session.backbone._text
    assert (
        session.backbone.prefill_bytes(len(stream))
        == cost.prefill_bytes(sizes, len(stream), 4)
        == kv + 4 * len(stream) * (2 * sizes.hidden + 3 * sizes.intermediate)
    )
    held: list[int] = []

    class PruningObserver(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), more=None):
            out = function(*arguments, **(more or {}))
            held.append(
                sum(t.nbytes for t in (out if isinstance(out, tuple | list) else [out]) if isinstance(t, torch.Tensor))
            )
            return out

    with PruningObserver():
        session.backbone.prefill(stream)
    assert session.backbone.prefill_bytes(len(stream)) <= kv + sum(held)


def test_7b_at_the_published_sizes():
    from cg_cli.backbones import qwen_shapes

    sizes = cost.TextSizes.from_config(qwen_shapes.config("7b", None).text_config)
    assert cost.prefill_bytes(sizes, 1, 2) == 57_344 + 2 * (2 * 3584 + 3 * 18944)  # keys and values as in the facts


def tight(session, monkeypatch, share: float) -> int:
    """Let so much of what the clip takes at the session's keep be free; returns that many bytes."""
    clip = media.decode(CLIP, session.decode_options)
    stream = session.backbone.encode(clip)
    from cg_cli.pruning.budget import plan

    kept = plan(stream, session.keep).count + int((stream.modality == 0).sum())
    free = int(share * memory.needed_bytes(session.backbone, stream, kept))
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    return free


def test_what_does_not_fit_is_said_with_what_would(session, monkeypatch):
    tight(session, monkeypatch, 0.7)
    clip = media.decode(CLIP, session.decode_options)
    with pytest.raises(ItemError) as caught:
        pipeline.prepare(session.backbone, clip, session.pruner, session.keep)
    assert (caught.value.stage, caught.value.kind) == ("prefill", "out_of_memory")
    match = re.fullmatch(
        r"reading [\d,]+ tokens takes .+ MiB at least, and .+ MiB are free on cpu: "
        r"--keep (\S+) or --max-frames (\d+) would fit",
        str(caught.value),
    )
    keep, frames = float(match[1]), int(match[2])
    for change in ({"keep": keep}, {"decode_options": replace(session.decode_options, max_frames=frames)}):
        (again,) = replace(session, **change).answer(CLIP, ["What is seen?"])
        assert again.ok and not any("out of memory" in warning for warning in again.warnings)


def test_asking_one_video_tries_again_with_less_as_a_batch_does(session, monkeypatch):
    tight(session, monkeypatch, 0.7)
    (record,) = session.answer(CLIP, ["What is seen?"])
    assert record.ok and record.pruner.keep == session.keep / 2 and record.pruner.requested_keep == session.keep
    assert "out of memory on cpu in prefill: tried again with keep 0.225 instead of 0.45" in record.warnings


def test_what_does_not_fit_twice_is_a_failure(session, monkeypatch):
    tight(session, monkeypatch, 0.2)
    (record,) = session.answer(CLIP, ["What is seen?"])
    assert not record.ok and record.error.stage == "prefill" and record.error.type == "out_of_memory"
    assert record.attempts == 2 and "would fit" in record.error.message


def test_with_enough_room_or_none_that_is_known_nothing_is_said(session, monkeypatch):
    tight(session, monkeypatch, 1.01)
    assert next(iter(session.answer(CLIP, ["What is seen?"]))).ok
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    assert next(iter(session.answer(CLIP, ["What is seen?"]))).ok


def test_without_a_pruner_only_frames_help(session, monkeypatch):
    clip = media.decode(CLIP, session.decode_options)
    encoded = pipeline.encode(session.backbone, clip)
    check = lambda: memory.check_fits(
        session.backbone, clip, encoded.stream, len(encoded.stream), encoded.tokens, 1.0, KeepAll()
    )
    monkeypatch.setattr(memory, "free_bytes", lambda device: session.backbone.prefill_bytes(400))
    with pytest.raises(ItemError, match=r"free on cpu: --max-frames \d+ would fit"):
        check()
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10)
    with pytest.raises(ItemError, match="take a smaller model"):
        check()


def test_fewer_frames_are_whole_grids_where_these_were_chosen():
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 28, 28, 3), np.uint8)
    even = Clip("a.mp4", pixels, np.arange(6) / 2, 0.5, None, "absent", 3.0, 28, 28)
    for starts, frames in ((None, [0, 2, 4]), (np.array([0.5, 4, 9]), [0, 1, 4, 5])):
        clip = replace(even, grid_starts=starts)
        fewer, keep, words = memory.shrink_after_oom(clip, 1.0, KeepAll(), "encode")
        assert fewer.frames[:, 0, 0, 0].tolist() == frames and keep == 1
        assert words == f"{len(frames)} frames instead of 6"
        assert fewer.seconds_per_frame == pytest.approx(3 / len(frames))
    assert fewer.grid_starts.tolist() == [0.5, 9]


def test_what_is_needed_is_the_pruned_stream_and_its_prefill_or_the_choice(session):
    stream = session.backbone.encode(media.decode(CLIP, session.decode_options))
    size = sum(rows.nbytes for rows in (stream.embeddings, *stream.carry.values()))
    half, whole = len(stream) // 2, len(stream)
    for rows, copied in ((half, size * half // whole), (whole, 0)):
        assert memory.needed_bytes(session.backbone, stream, rows) == copied + session.backbone.prefill_bytes(rows)
    assert memory.needed_bytes(session.backbone, stream, 0) == int(memory.SELECTION * size)
