"""Nano on a device says what it says elsewhere: what transformers generates, what masking gives, what float32 gives.

Kernels of a GPU sum in other orders than those of a CPU, and bfloat16 keeps eight bits: logits are near, and tokens are
the same but where two of them are about as good.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from helpers import official, tiny
from helpers.official import logits_of
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniVisionEncoder
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from cg_cli.backbones import fused, grouped_attention, qwen_inputs
from cg_cli.backbones.video_salmonn2 import audio_tower
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, Merge, Selection, apply

NEW = 12
QUESTION = "What do you see?"
QUESTIONS = (QUESTION, "What do you hear?", "How many red balls are there?")
CLIPS = (tiny.clip(8, 112, 112, 4.0), tiny.clip(4, 56, 84, 2.0, seed=1), tiny.clip(6, 84, 56, None, seed=2))
TOWERS = (Qwen2_5OmniVisionEncoder, Qwen2_5_VisionTransformerPretrainedModel)
NEAR = {"float32": 1e-3, "bfloat16": 0.1}  # how far logits may be apart, in their standard deviations; and features


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """Else those in float32 keep ten bits on CUDA."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def backbone(load, device, dtype):
    return load(device, dtype)


def assert_near(ours, expected, dtype):
    """Logits [n, vocabulary] that differ by no more than the dtype may make them."""
    ours, expected = ours.float().cpu(), expected.float().cpu()
    assert (ours - expected).abs().max() < NEAR[dtype] * expected.std()


def assert_same_rows(ours, expected, dtype):
    """Features [n, D] of which every row is as near as the dtype may make it."""
    ours, expected = ours.float().cpu(), expected.float().cpu()
    assert ((ours - expected).norm(dim=1) < NEAR[dtype] * expected.norm(dim=1)).all()


def assert_same_tokens(backbone, stream, question, ours, expected, dtype):
    """Token ids are the same up to the first place where another one is about as good."""
    at = next((at for at, pair in enumerate(zip(ours, expected)) if pair[0] != pair[1]), None)
    if at is None:
        return
    logits = logits_of(backbone, backbone.prefill(stream), question, expected[: at + 1])[-1].float()
    assert logits[expected[at]] - logits[ours[at]] < NEAR[dtype] * logits.std()


def merged(stream):
    """``stream`` in which every fourth video token has the three after it folded into it."""
    video = (stream.modality == VIDEO).nonzero()[:, 0]
    video = video[: len(video) // 4 * 4].view(-1, 4)
    dropped, into = video[:, 1:].flatten(), video[:, :1].expand(-1, 3).flatten()
    kept = torch.ones(len(stream), dtype=torch.bool, device=video.device).index_fill(0, dropped, False)
    weights = torch.ones(len(dropped), device=video.device)
    return apply(stream, Selection(kept.nonzero()[:, 0], Merge(dropped, into, weights)))


def moved(stream, backbone):
    """``stream`` on the device and in the dtype of ``backbone``."""
    tensors = {name: value for name, value in vars(stream).items() if isinstance(value, torch.Tensor)}
    there = {name: value.to(backbone.device) for name, value in tensors.items()}
    return replace(stream, **there | {"embeddings": there["embeddings"].to(backbone.dtype)})


def test_unpruned_equals_generate(backbone, dtype):
    raw = official.inputs(backbone.tokenizer, CLIPS[0], QUESTION)
    for name, value in raw.items():
        if isinstance(value, torch.Tensor):
            floating = name in ("pixel_values_videos", "input_features")
            raw[name] = value.to(backbone.device, backbone.dtype if floating else value.dtype)
    tokens, logits = official.generate(backbone, raw, NEW)
    stream = backbone.encode(CLIPS[0])
    assert tokens
    assert_near(logits_of(backbone, backbone.prefill(stream), QUESTION, tokens), logits[: len(tokens)], dtype)
    ours = backbone.answer(backbone.prefill(stream), QUESTION, max_new_tokens=NEW).token_ids
    assert_same_tokens(backbone, stream, QUESTION, ours, tokens, dtype)


def test_features_are_those_of_float32_on_the_cpu(backbone, load, device, dtype):
    reference = load("cpu", "float32")
    fast = {type(part).__name__ for part in backbone.model.modules() if hasattr(part, "variance_epsilon")}
    assert all(name.startswith("Fused") == (device == "cuda") for name in fast) and fast
    for clip in (*CLIPS, tiny.clip(6, 140, 196, 3.0, seed=3)):  # the last has windows of four sizes
        ours, expected = backbone.encode(clip), reference.encode(clip)
        for kind in (VIDEO, AUDIO):
            rows = expected.modality == kind
            assert torch.equal(ours.modality.cpu() == kind, rows)
            if rows.any():
                assert_same_rows(ours.embeddings[rows.to(backbone.device)], expected.embeddings[rows], dtype)


@pytest.mark.parametrize("tower_class", TOWERS)
def test_a_vision_tower_with_all_that_is_replaced_is_the_plain_one(tower_class, load, device, dtype):
    load(device, dtype)  # which registers the towers' attention
    config = tower_class.config_class(
        depth=2, hidden_size=128, intermediate_size=172, num_heads=4, out_hidden_size=64, fullatt_block_indexes=[1]
    )  # features that are no multiple of 8, as those of the published towers
    torch.manual_seed(0)
    plain = tower_class._from_config(config, attn_implementation="sdpa").eval()
    ours = deepcopy(plain).to(device, getattr(torch, dtype))
    fused.use_in_model(ours)
    assert ours.blocks[0].mlp.down_proj.in_features == 192
    ours.config._attn_implementation = grouped_attention.NAME
    grid, pixels = torch.tensor([[3, 10, 14]]), torch.randn(3 * 10 * 14, 1176)
    with torch.no_grad():
        expected = plain(pixels, grid).pooler_output
        assert_same_rows(ours(pixels.to(device), grid.to(device)).pooler_output, expected, dtype)


@pytest.mark.parametrize("seconds", [0.01, 3.0, 31.0])
def test_spectrograms_are_those_of_the_cpu(load, device, seconds):
    audio = tiny.clip(None, seconds=seconds).audio
    whisper = audio_tower.extractor(128)
    for log_mel, extractor in (
        (qwen_inputs.log_mel, load(device, "float32")._extractor),
        (audio_tower.log_mel, whisper),
    ):
        ours = log_mel(audio, extractor, torch.device(device))
        assert ours.device.type == device and ours.dtype == torch.float32
        torch.testing.assert_close(ours.cpu(), log_mel(audio, extractor), atol=1e-3, rtol=0)


def test_dropping_rows_equals_masking_their_keys(backbone, dtype):
    stream = backbone.encode(CLIPS[0])
    chosen = torch.rand(len(stream), generator=torch.Generator().manual_seed(1)).to(backbone.device) < 0.5
    kept = (stream.modality == TEXT) | chosen
    ours = logits_of(backbone, backbone.prefill(apply(stream, Selection(kept.nonzero()[:, 0]))), QUESTION, [0])

    fed = torch.tensor(backbone.question_ids(QUESTION), device=backbone.device)
    rows = torch.cat([stream.embeddings, backbone.model.get_input_embeddings()(fed).detach()])
    after = torch.arange(len(fed), device=backbone.device).expand(3, -1) + stream.next_position
    mask = torch.cat([kept, torch.ones_like(fed, dtype=torch.bool)]).long()
    with torch.no_grad():
        hidden = backbone.model.model.language_model(
            inputs_embeds=rows[None],
            position_ids=torch.cat([stream.positions, after], dim=1)[:, None],
            attention_mask=mask[None],
        ).last_hidden_state[0, -1:]
        assert_near(ours, backbone.model.lm_head(hidden), dtype)


def test_merge_sizes_weigh_as_in_float32_on_the_cpu(backbone, load, dtype):
    """Which is checked against the definition in ``test_proportional_attention.py``."""
    reference = load("cpu", "float32")
    stream = merged(reference.encode(CLIPS[0]))
    expected = logits_of(reference, reference.prefill(stream), QUESTION, [0])
    ours = logits_of(backbone, backbone.prefill(moved(stream, backbone)), QUESTION, [0])
    assert_near(ours, expected, dtype)
    plain = replace(stream, merge_size=None)
    without = logits_of(reference, reference.prefill(plain), QUESTION, [0])
    # Else the equality would prove nothing: what sizes change is more than what the dtype may.
    assert (without - expected).abs().max() > 2 * NEAR[dtype] * expected.std()


def test_together_is_as_alone(backbone, dtype):
    streams = [merged(backbone.encode(CLIPS[0])), *(backbone.encode(clip) for clip in CLIPS[1:])]
    prefixes = [backbone.prefill(stream) for stream in streams]
    asked = [(row, question) for row in range(len(streams)) for question in QUESTIONS[: row + 1]]
    together = {n: one for n, one, _ in backbone.answer_batch(prefixes, asked, max_new_tokens=NEW)}
    assert sorted(together) == list(range(len(asked)))
    for number, (row, question) in enumerate(asked):
        alone = backbone.answer(prefixes[row], question, max_new_tokens=NEW).token_ids
        assert_same_tokens(backbone, streams[row], question, together[number].token_ids, alone, dtype)
