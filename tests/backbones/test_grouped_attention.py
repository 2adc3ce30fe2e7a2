"""Windows as one batch give what windows one by one give."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from cg_cli.backbones import grouped_attention


@pytest.mark.parametrize("lengths", [[5], [4, 4, 4], [4, 4, 4, 3], [16, 8, 16, 8, 4, 2, 16], [1, 3, 3, 2]])
def test_equals_a_masked_softmax(lengths):
    torch.manual_seed(0)
    total, scaling = sum(lengths), 0.3
    query, key, value = (torch.randn(1, 2, total, 8) for _ in range(3))
    window = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    scores = query @ key.transpose(2, 3) * scaling
    scores = scores.masked_fill(window[:, None] != window[None, :], -torch.inf)
    expected = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2)
    borders = torch.tensor([0, *lengths]).cumsum(0)
    output, weights = grouped_attention.grouped_attention(
        None, query, key, value, scaling=scaling, cu_seq_lens_q=borders
    )
    assert weights is None
    torch.testing.assert_close(output, expected)


def test_towers_equal_plain_sdpa_bit_for_bit(thinker_dir, monkeypatch):
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(thinker_dir, attn_implementation="sdpa").eval()
    torch.manual_seed(0)
    grid = torch.tensor([[2, 14, 22]])  # windows of 8 x 8 patches and smaller ones at both edges
    pixels, mel = torch.randn(2 * 14 * 22, 1176), torch.randn(1, 128, 470)
    mask = torch.ones(1, 470, dtype=torch.long)

    def towers() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            vision = model.get_video_features(pixels, grid, return_dict=True).pooler_output[0]
            return vision, model.get_audio_features(mel, mask, return_dict=True).last_hidden_state

    calls = []
    for block in (model.model.visual.blocks[0].attn, model.model.audio_tower.layers[0].self_attn):
        block.register_forward_hook(lambda module, *_: calls.append(module.config._attn_implementation))
    plain = towers()
    grouped_attention.use_in_towers(model)
    seen, windows = [], grouped_attention._windows
    monkeypatch.setattr(
        grouped_attention, "_windows", lambda borders, *more: seen.append(borders) or windows(borders, *more)
    )
    grouped = towers()
    # Of windows, whole grids and blocks of sound: all layers get the same tensors, so that these are read once.
    assert len(seen) == 4 and len({id(borders) for borders in seen}) == 3
    assert calls == ["sdpa", "sdpa", grouped_attention.NAME, grouped_attention.NAME]
    assert model.config.text_config._attn_implementation == "sdpa"
    for ours, expected in zip(grouped, plain):
        assert torch.equal(ours, expected)
    assert grouped[0].shape == (2 * 7 * 11, tiny.HIDDEN)
