"""Sound that repeats is encoded once: digital silence, in blocks that the tower encodes alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import tiny
from helpers.families import FAMILIES

from cg_cli.media.clip import SAMPLE_RATE
from cg_cli.media.repeats import block_sources
from cg_cli.pruning import registry
from cg_cli.pruning.budget import plan
from cg_cli.pruning.stream import AUDIO, VIDEO, apply

SECONDS = {"qwen2_5_omni": 9.3, "qwen3_omni": 34.9, "video_salmonn2": 95.0}  # four blocks and a rest, or three


@pytest.fixture(scope="module", params=SECONDS)
def case(request, backbone, families):
    """A backbone, and a clip whose second half is silent, read with and without looking once."""
    own = backbone if request.param == "qwen2_5_omni" else families(request.param)
    side = (56, 84) if request.param == "qwen2_5_omni" else (FAMILIES[request.param].height,) * 2
    clip = tiny.clip(6, *side, SECONDS[request.param], seconds_per_frame=SECONDS[request.param] / 6)
    clip.audio[len(clip.audio) // 4 :] = 0
    return own, clip, replace(clip, look_once=0)


def test_silence_is_encoded_once_and_the_same_tokens_come_out(case):
    backbone, clip, once = case
    whole, stream = backbone.encode(clip), backbone.encode(once)
    sources = backbone.sound_sources(clip.audio)
    assert len(np.unique(sources)) < len(sources) == len(clip.audio) // backbone.sound_block
    torch.testing.assert_close(stream.embeddings, whole.embeddings, atol=1e-5, rtol=1e-4)
    assert whole.same_as is None
    copies = (stream.same_as != torch.arange(len(stream))).nonzero()[:, 0]
    assert set(stream.modality[copies].tolist()) == {AUDIO}
    assert torch.equal(stream.embeddings[copies], stream.embeddings[stream.same_as[copies]])
    tokens = backbone.media_tokens(0, 0, 0, backbone.sound_block)[2]
    assert len(copies) == tokens * (len(sources) - len(np.unique(sources)))


def test_only_what_is_encoded_counts(case):
    backbone, clip, once = case
    silent = len(once.audio) // backbone.sound_block - len(np.unique(backbone.sound_sources(once.audio)))
    shorter = replace(clip, audio=clip.audio[: len(clip.audio) - silent * backbone.sound_block])
    assert backbone.encode_flops(once) == backbone.encode_flops(shorter)
    assert backbone.encode_flops(once)[1] < backbone.encode_flops(clip)[1]


def test_what_silence_does_not_need_goes_to_the_picture(case):
    backbone, clip, once = case
    whole, stream = backbone.encode(clip), backbone.encode(once)
    before, after = plan(whole, 0.6), plan(stream, 0.6)
    fresh = [
        int(((stream.modality == kind) & (stream.same_as == torch.arange(len(stream)))).sum())
        for kind in (VIDEO, AUDIO)
    ]
    assert after.audio <= fresh[1] and after.video >= before.video
    assert after.count == min(before.count, sum(fresh))
    for name in ("contextguard", "uniform"):
        pruner = registry.make(name).with_folding()
        selection = pruner.prune(stream, after)
        kept = apply(stream, selection)
        counts = [int((kept.modality == kind).sum()) for kind in (VIDEO, AUDIO)]
        assert counts == [after.video, after.audio], name


def test_blocks_repeat_sample_for_sample_with_what_their_windows_see_behind_them():
    noise = np.random.default_rng(0).standard_normal(10).astype(np.float32)
    held = np.concatenate([np.tile(noise, 4), noise[:3]])
    assert block_sources(held, 10, 3).tolist() == [0, 0, 0, 0]
    assert block_sources(held[:-1], 10, 3).tolist() == [0, 0, 0]  # no overlap behind the last
    held[23] += 1e-6  # in the third block, and seen by the second
    assert block_sources(held, 10, 3).tolist() == [0, 0, 2, 3]
    held[23], held[22] = held[33], held[22] + 1e-6
    assert block_sources(held, 10, 3).tolist() == [0, 1, 2, 3]
    assert block_sources(noise, 20, 0).tolist() == []


def test_silence_of_minus_zero_is_silence():
    sound = np.zeros(2 * SAMPLE_RATE, np.float32)
    sound[SAMPLE_RATE:] = -0.0
    assert block_sources(sound, SAMPLE_RATE, 0).tolist() == [0, 0]
