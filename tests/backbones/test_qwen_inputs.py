"""Patches and mel features against plain references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import official
from helpers.tiny import clip
from transformers import WhisperFeatureExtractor

from cg_cli.backbones import qwen_inputs
from cg_cli.backbones.qwen2_5_omni.layout import audio_token_count
from cg_cli.media.clip import SAMPLE_RATE


@pytest.fixture(scope="module")
def extractor():
    return WhisperFeatureExtractor(feature_size=128, **qwen_inputs.OMNI_EXTRACTOR)


@pytest.mark.parametrize(("frames", "height", "width"), [(2, 28, 28), (3, 56, 84), (6, 84, 28)])
def test_patches_equal_the_definition(frames, height, width):
    pictures = clip(frames, height, width, None).frames
    even = qwen_inputs.even_frames(pictures, 2)
    assert len(even) % 2 == 0 and np.array_equal(even[-1], pictures[-1])
    rows = qwen_inputs.patchify(torch.tensor(even), qwen_inputs.PixelNorm())
    np.testing.assert_allclose(rows.numpy(), official.patches(pictures), atol=1e-5)


def test_patches_equal_the_official_image_processor():
    """An image is one grid of two equal frames; the PIL path needs no torchvision."""
    pytest.importorskip("PIL")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    picture = clip(1, 84, 56, None).frames
    expected = Qwen2VLImageProcessorPil(do_resize=False)(picture[0], return_tensors="pt")
    rows = qwen_inputs.patchify(torch.tensor(qwen_inputs.even_frames(picture, 2)), qwen_inputs.PixelNorm())
    assert expected["image_grid_thw"].tolist() == [[1, 6, 4]]
    torch.testing.assert_close(rows, expected["pixel_values"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(3, 28, 28), (2, 30, 28), (2, 28, 14)])
def test_sizes_that_do_not_divide_are_refused(shape):
    with pytest.raises(ValueError, match="multiples"):
        qwen_inputs.patchify(torch.zeros(*shape, 3, dtype=torch.uint8), qwen_inputs.PixelNorm())


@pytest.mark.parametrize("samples", [400, 401, 480, 16_000, 31_999, 50_001])
def test_mel_equals_the_official_features(extractor, samples):
    """Official: padded with silence to 300 s, then masked to the sound."""
    audio = clip(None, seconds=samples / SAMPLE_RATE).audio
    official_features = extractor(audio, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt")
    length = int(official_features["attention_mask"].sum())
    ours = qwen_inputs.log_mel(audio, extractor)
    assert ours.shape == (128, length) and length == qwen_inputs.mel_frame_count(samples)
    torch.testing.assert_close(ours, official_features["input_features"][0, :, :length], atol=2e-5, rtol=0)


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_a_spectrogram_in_pieces_is_the_whole_one(extractor, piece, monkeypatch):
    audio = clip(None, seconds=1.0).audio
    whole = qwen_inputs.log_mel(audio, extractor)
    monkeypatch.setattr(qwen_inputs, "MEL_PIECE", piece)
    torch.testing.assert_close(qwen_inputs.log_mel(audio, extractor), whole, atol=1e-6, rtol=0)


def test_sound_beyond_300_s_is_not_cut(extractor):
    audio = np.zeros(301 * SAMPLE_RATE, dtype=np.float32)
    audio[-SAMPLE_RATE:] = clip(None, seconds=1.0).audio
    mel = qwen_inputs.log_mel(audio, extractor)
    assert audio_token_count(mel.shape[1]) == 7525
    assert mel[:, 30_010:].max() > mel[:, :29_990].max() + 0.5  # the last second is there, and louder


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_a_moment_of_sound_is_one_token(extractor, samples):
    mel = qwen_inputs.log_mel(np.full(samples, 0.1, dtype=np.float32), extractor)
    assert audio_token_count(mel.shape[1]) == 1


@pytest.mark.parametrize("frames", [3, 200, 11_999, 12_000, 12_001, 12_002, 12_003, 36_500])
def test_mel_pieces_hold_all_tokens(frames):
    pieces = qwen_inputs.mel_pieces(frames, n_window=100)
    assert all(start % 200 == 0 for start, _ in pieces)
    assert all(a[1] == b[0] for a, b in zip(pieces, pieces[1:])) and pieces[0][0] == 0
    assert sum(audio_token_count(stop - start) for start, stop in pieces) == audio_token_count(frames)
    assert all(audio_token_count(stop - start) > 0 for start, stop in pieces)


def test_grid_pieces_are_bounded_and_cover_all():
    for patches in (4, 96, 10_000, 40_000):
        pieces = list(qwen_inputs.grid_pieces(37, patches))
        assert [grid for start, stop in pieces for grid in range(start, stop)] == list(range(37))
        assert all((stop - start) * patches <= qwen_inputs.MAX_PATCHES or stop - start == 1 for start, stop in pieces)
