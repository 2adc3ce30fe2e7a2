"""Qwen3-Omni against transformers' generate() on the same raw inputs: order, fractional positions, deepstack,
experts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import official, tiny
from helpers.official import generate, logits_of
from test_cost import counted
from transformers import WhisperFeatureExtractor
from transformers.models.qwen3_omni_moe.processing_qwen3_omni_moe import (
    Qwen3OmniMoeProcessor,
    _get_feat_extract_output_lengths,
)

from cg_cli.backbones import qwen_inputs
from cg_cli.backbones.qwen3_omni import model as qwen3_omni
from cg_cli.media.clip import SAMPLE_RATE
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, Merge, Selection, apply

pytestmark = pytest.mark.slow

NEW = 12
TOLERANCE = 1e-4  # on logits with a standard deviation of some units; expert outputs add up in another order
QUESTION = "What do you see?"
CLIPS = {
    "both": tiny.clip(6, 64, 96, 3.0),
    "odd frames": tiny.clip(5, 64, 64, 2.5),
    "capped video": tiny.clip(20, 32, 64, 37.0, seconds_per_frame=1.85),
    "short sound": tiny.clip(4, 32, 160, 0.3),
    "long sound": tiny.clip(2, 64, 64, 5.07),
    "video only": tiny.clip(6, 96, 64, None),
    "audio only": tiny.clip(None, seconds=9.31),
}


@pytest.fixture
def backbone(families):
    return families("qwen3_omni")


def inputs(tokenizer, clip):
    """Keyword arguments for ``generate``: placeholders by the official processor's own method, pixels and mel."""
    arguments, grid, audio = {}, None, 0
    media = ""
    if clip.frames is not None:
        grid = ((len(clip.frames) + 1) // 2, clip.frames.shape[1] // 16, clip.frames.shape[2] // 16)
        half = np.full(3, 0.5)
        arguments["pixel_values_videos"] = torch.tensor(
            official.patches(clip.frames, 16, half, half), dtype=torch.float32
        )
        arguments["video_grid_thw"] = torch.tensor([grid])
        arguments["video_second_per_grid"] = torch.tensor([2 * clip.seconds_per_frame])
        media = f"<|vision_start|>{'<|video_pad|>' * (int(np.prod(grid)) // 4)}<|vision_end|>"
    if clip.audio is not None:
        extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300, return_attention_mask=True)
        mel = extractor(clip.audio, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt")
        arguments["input_features"], arguments["feature_attention_mask"] = mel["input_features"], mel["attention_mask"]
        audio = int(_get_feat_extract_output_lengths(mel["attention_mask"].sum()))
        arguments["use_audio_in_video"] = grid is not None
        media = f"<|audio_start|>{'<|audio_pad|>' * audio}<|audio_end|>"
    if grid and audio:
        names = ("audio_bos_token", "audio_eos_token", "audio_token", "video_token")
        fake = SimpleNamespace(
            video_processor=SimpleNamespace(merge_size=2), **{name: getattr(tokenizer, name) for name in names}
        )
        inside = Qwen3OmniMoeProcessor.replace_video_with_audio_token(
            fake,
            {"video_grid_thw": np.array([grid]), "video_second_per_grid": [2 * clip.seconds_per_frame]},
            0,
            {"num_audio_tokens": np.array([audio])},
            0,
            position_id_per_seconds=13,
        )
        media = f"<|vision_start|>{inside}<|vision_end|>"
    text = f"<|im_start|>user\n{media}{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    return arguments | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("name", CLIPS)
def test_unpruned_equals_generate(backbone, name):
    clip = CLIPS[name]
    tokens, logits = generate(backbone, inputs(backbone.tokenizer, clip), NEW)
    prefix = backbone.prefill(backbone.encode(clip))
    assert backbone.answer(prefix, QUESTION, max_new_tokens=NEW).token_ids == tuple(tokens)
    assert logits.std() > 0.5  # not flat, or the tokens prove nothing
    ours = logits_of(backbone, prefix, QUESTION, tokens)
    torch.testing.assert_close(ours, logits[: len(tokens)], atol=TOLERANCE, rtol=0)


def test_the_published_way_to_write_rotary_settings_is_read(backbone):
    rotary = backbone.model.model.language_model.config.rope_parameters
    assert (rotary["rope_theta"], rotary["mrope_section"]) == (1e6, [6, 5, 5])


@pytest.mark.parametrize("name", ["both", "capped video"])
def test_the_model_notices_wrong_rows_positions_and_deepstack(backbone, name):
    """Else the equalities here would prove nothing."""
    stream, tokens = backbone.encode(CLIPS[name]), [7, 8, 9]
    media = stream.modality != TEXT
    later = stream.positions.clone()
    later[0, media] += 0.3
    swapped = stream.embeddings.clone()
    swapped[media] = swapped[media].flip(0)
    right = logits_of(backbone, backbone.prefill(stream), QUESTION, tokens)
    for wrong in (replace(stream, positions=later), replace(stream, embeddings=swapped), replace(stream, carry={})):
        assert (logits_of(backbone, backbone.prefill(wrong), QUESTION, tokens) - right).abs().max() > 10 * TOLERANCE


def test_deepstack_rows_are_kept_and_merged_with_the_weights_of_their_tokens(backbone):
    stream = backbone.encode(CLIPS["both"])
    rows = stream.carry["deepstack"]
    video = (stream.modality == VIDEO).nonzero()[:, 0]
    assert rows.shape == (len(stream), 2, backbone.hidden_size) and (rows[video] != 0).any(-1).all()
    assert (rows[stream.modality != VIDEO] == 0).all()
    kept = torch.tensor([i for i in range(len(stream)) if i not in video[1:3].tolist()])
    merged = apply(stream, Selection(kept, Merge(video[1:3], video[:1].expand(2), torch.tensor([0.5, 2.0]))))
    index = int((kept == video[0]).nonzero())
    for before, after in ((stream.embeddings, merged.embeddings), (rows, merged.carry["deepstack"])):
        expected = (before[video[0]] + 0.5 * before[video[1]] + 2 * before[video[2]]) / 3.5
        torch.testing.assert_close(after[index], expected)
        assert torch.equal(after[kept != video[0]], before[kept[kept != video[0]]])
    prefix = backbone.prefill(merged)
    forgotten = backbone.prefill(replace(merged, carry={}))
    ours, other = (logits_of(backbone, p, QUESTION, [7]) for p in (prefix, forgotten))
    assert (ours - other).abs().max() > 10 * TOLERANCE


def test_order_places_and_times(backbone):
    stream = backbone.encode(tiny.clip(6, 32, 64, 3.0))
    kinds = "".join("TVA"[kind] for kind in stream.modality.tolist())
    body = kinds.strip("T")
    assert body == "VV" + "A" * 13 + "VV" + "A" * 13 + "VV" + "A" * 13 and kinds.endswith("TT")
    audio = stream.modality == AUDIO
    assert stream.time_s[audio][[0, 1, 12, 13]].tolist() == pytest.approx([0.0, 0.08, 0.96, 1.0])
    assert stream.time_s[stream.modality == VIDEO].tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    fine = backbone.encode(tiny.clip(6, 32, 64, 3.0, seconds_per_frame=0.45))
    video = fine.modality == VIDEO
    start = fine.positions[0, video][0]
    torch.testing.assert_close(fine.positions[0, video][2] - start, torch.tensor(11.7))  # no whole position


def test_audio_tokens_count_like_the_tower():
    frames = torch.arange(3, 1300)
    expected = _get_feat_extract_output_lengths(frames)
    assert [qwen3_omni.audio_token_count(int(n)) for n in frames] == expected.tolist()


@pytest.mark.parametrize("seconds", [16.0, 24.5, 17.0])  # the last: a tail as long as a chunk, and no longer
def test_encoders_in_pieces_equal_one_piece(backbone, monkeypatch, seconds):
    clip = tiny.clip(10, 64, 96, seconds)
    whole = backbone.encode(clip)
    monkeypatch.setattr(qwen_inputs, "MAX_PATCHES", 50)  # 2 grids of 24 patches
    monkeypatch.setattr(qwen3_omni, "PIECE", 800)
    frames = qwen_inputs.mel_frame_count(len(clip.audio))
    assert len(qwen3_omni.mel_pieces(frames)) == (2 if seconds == 16 else 3)
    pieces = backbone.encode(clip)
    torch.testing.assert_close(pieces.embeddings, whole.embeddings, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pieces.carry["deepstack"], whole.carry["deepstack"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frames", [3, 99, 100, 101, 799, 800, 931, 1700])
def test_the_audio_towers_operations_are_counted_at_any_length(backbone, frames):
    mel, mask = torch.zeros(1, 128, frames), torch.ones(1, frames, dtype=torch.long)
    assert qwen3_omni.audio_flops(backbone.model.config.audio_config, frames) == counted(
        backbone.model.get_audio_features, mel, mask
    )


def test_a_short_tail_stays_with_the_piece_before_it():
    assert qwen3_omni.mel_pieces(12_099) == [(0, 12_099)]
    assert qwen3_omni.mel_pieces(12_100) == [(0, 12_000), (12_000, 12_100)]
    assert qwen3_omni.mel_pieces(3) == [(0, 3)]


def test_the_published_shape_counts_active_experts():
    config = qwen3_omni.shape_config("30b-a3b", None)
    text = qwen3_omni.cost.TextSizes.from_config(config.text_config)
    weights = text.hidden * (2 * 32 * 128 + 2 * 4 * 128 + 3 * 8 * 768 + 128)
    assert qwen3_omni.cost.layer_flops(text, 1, 0) == 2 * weights + 4 * 32 * 128
    active = 48 * weights + 2 * text.hidden * text.vocab
    assert active == pytest.approx(3.3e9, rel=0.05)  # "A3B"
