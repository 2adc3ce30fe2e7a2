"""Heads that share keys as further rows: what repeated keys and values give, and where it is used."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import repeat_kv

from cg_cli.backbones import grouped_queries
from cg_cli.backbones.grouped_queries import MOST_ROWS, NAME
from cg_cli.backbones.grouped_queries import grouped_queries as attend


@pytest.mark.parametrize("kind", ["bool", "float", "none"])
@pytest.mark.parametrize("new", [1, 2, 7, MOST_ROWS + 1])
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


def test_the_decoder_uses_it_and_the_towers_do_not(backbone):
    assert backbone.model.config.text_config._attn_implementation == NAME
    assert NAME not in {
        getattr(backbone.model.config, tower)._attn_implementation for tower in ("vision_config", "audio_config")
    }
    assert grouped_queries.NAME == NAME
