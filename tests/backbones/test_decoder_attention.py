"""The decoder's attention against plain softmax: heads that share keys as further rows, and merge sizes as features of
the keys."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers.attention import causal_attention
from transformers.integrations.sdpa_attention import repeat_kv

from cg_cli.backbones.decoder_attention import MOST_ROWS, NAME
from cg_cli.backbones.decoder_attention import decoder_attention as attend


@pytest.mark.parametrize("kind", ["bool", "float", "none"])
@pytest.mark.parametrize("new", [1, 2, 7, MOST_ROWS + 1, 2 * MOST_ROWS + 3])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
def test_it_is_attention_with_repeated_keys(kind, new, key_heads):
    draw = torch.Generator().manual_seed(new + key_heads)
    randn = lambda *shape: torch.randn(shape, generator=draw)
    query, key, value = randn(3, 6, new, 8), randn(3, key_heads, 140, 8), randn(3, key_heads, 140, 8)
    allowed = torch.rand(3, 1, new, 140, generator=draw) < 0.6
    allowed[..., 0] = True
    mask = {"bool": allowed, "none": None}.get(kind, randn(3, 1, new, 140).masked_fill(~allowed, -1e30))
    module = SimpleNamespace(num_key_value_groups=6 // key_heads, is_causal=False, layer_idx=0)
    ours, _ = attend(module, query, key, value, mask, scaling=0.3)
    keys, values = (repeat_kv(x, 6 // key_heads) for x in (key, value))
    scores = query @ keys.mT * 0.3
    if kind == "bool":
        scores = scores.masked_fill(~allowed, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    torch.testing.assert_close(ours, (scores.softmax(-1) @ values).transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("heads, key_heads, size", [(4, 2, 128), (6, 6, 16), (7, 1, 40)])
def test_merge_sizes_in_the_keys_are_a_bias_of_the_logits(dtype, tolerance, heads, key_heads, size):
    draw = torch.Generator().manual_seed(heads)
    randn = lambda count: torch.randn(1, count, 200, size, generator=draw).to(dtype)
    query, key, value = randn(heads), randn(key_heads), randn(key_heads)
    bias = torch.randint(1, 3000, (200,), generator=draw).float().log()
    module = SimpleNamespace(num_key_value_groups=heads // key_heads, is_causal=True, layer_idx=0)
    ours, _ = attend(module, query, key, value, bias[None, None, None], scaling=size**-0.5)
    expected = causal_attention(query.double(), key.double(), value.double(), bias.double(), size**-0.5)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), expected, atol=tolerance, rtol=tolerance)
    # As near as with a mask in the same dtype, where torch has one for heads of their own.
    mask = bias.expand(200, -1).masked_fill(torch.ones(200, 200).triu(1).bool(), -torch.inf).to(dtype)
    keys, values = (repeat_kv(x, heads // key_heads) for x in (key, value))
    masked = torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask).transpose(1, 2)
    error, usual = ((x.double() - expected).abs().mean() for x in (ours, masked))
    assert error < 2 * usual


def test_the_decoder_uses_it_and_the_towers_do_not(backbone):
    assert backbone.model.config.text_config._attn_implementation == NAME
    assert NAME not in {
        getattr(backbone.model.config, tower)._attn_implementation for tower in ("vision_config", "audio_config")
    }
