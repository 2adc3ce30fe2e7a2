"""What is fused on CUDA computes what transformers writes out. On a device: ``tests/gpu``."""

from __future__ import annotations

from copy import deepcopy
from types import ModuleType

import pytest
import torch
from helpers import tiny
from torch import nn
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe

from cg_cli.backbones import fused

MODELS = (modeling_qwen2_5_omni, modeling_qwen2_5_vl, modeling_qwen3_omni_moe)
NAMES = ("qwen2_5_omni", "qwen3_omni", "video_salmonn2")
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-7}  # of one result, as a share of it


@pytest.fixture(params=NAMES)
def plain(request, backbone, families):
    """A family's model."""
    return (backbone if request.param == backbone.family else families(request.param)).model


@pytest.fixture
def model(plain, monkeypatch):
    """A copy of it with everything replaced, until the test is over."""
    for module in MODELS:
        monkeypatch.setattr(module, fused.ROTARY, getattr(module, fused.ROTARY))
    copy = deepcopy(plain)
    fused.use_in_model(copy)
    return copy


@pytest.mark.parametrize("dtype", ROUNDING)
def test_rms_norms_compute_the_same(model, dtype):
    norms = [part for part in model.modules() if hasattr(part, "variance_epsilon")]
    layers = model.config.text_config.num_hidden_layers
    assert len(norms) > 2 * layers and {type(norm).__name__[:5] for norm in norms} == {"Fused"}
    for norm in (norms[0], norms[-1]):
        norm.weight.data = 1 + torch.randn(norm.weight.shape).to(dtype)
        rows = torch.randn(2, 5, norm.weight.numel(), dtype=dtype)
        written_out = type(norm).__mro__[1].forward(norm, rows)
        assert norm(rows).dtype == dtype
        torch.testing.assert_close(norm(rows), written_out, rtol=ROUNDING[dtype], atol=1e-6)


class ShiftedRMSNorm(modeling_qwen2_5_vl.Qwen2_5_VLRMSNorm):
    def forward(self, hidden_states):
        return super().forward(hidden_states) / self.weight * (1 + self.weight)


class GatedRMSNorm(modeling_qwen2_5_vl.Qwen2_5_VLRMSNorm):
    def forward(self, hidden_states, gate=None):
        return super().forward(hidden_states if gate is None else hidden_states * gate)


@pytest.mark.parametrize("kind", [ShiftedRMSNorm, GatedRMSNorm, nn.RMSNorm])
def test_other_norms_are_left_alone(kind):
    norm = kind(8)
    fused.fuse_rms_norms(norm)
    assert type(norm) is kind


@pytest.mark.parametrize("kind", [modeling_qwen2_5_omni.Qwen2_5OmniMLP, modeling_qwen2_5_vl.Qwen2_5_VLMLP])
@pytest.mark.parametrize("features, padded", [(44, 64), (3420, 3456), (48, 48), (128, 128)])
def test_zeros_in_a_gated_mlp_change_nothing(kind, features, padded):
    config = tiny.config(tiny.tokenizer()).vision_config
    config.intermediate_size = features
    mlp = kind(config, bias=True)
    plain = deepcopy(mlp)
    fused.pad_gated_mlps(mlp)
    shapes = {name: tuple(getattr(mlp, name).weight.shape) for name in fused.GATED}
    assert shapes == {"gate_proj": (padded, 32), "up_proj": (padded, 32), "down_proj": (32, padded)}
    assert mlp.gate_proj.out_features == mlp.down_proj.in_features == len(mlp.up_proj.bias) == padded
    rows = torch.randn(7, 32)
    torch.testing.assert_close(mlp(rows), plain(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("module", MODELS)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_rotary_embeddings_are_those_that_are_written_out(module, dtype):
    queries, keys = torch.randn(9, 2, 3, 16).to(dtype).unbind(1)  # rows that lie apart, as those of one projection
    angles = 9 * torch.rand(9, 16)
    cos, sin = angles.cos(), angles.sin()
    expected = getattr(module, fused.ROTARY)(queries, keys, cos, sin)
    for ours, theirs in zip((fused.rotated(queries, cos, sin), fused.rotated(keys, cos, sin)), expected):
        assert ours.dtype == dtype and ours.is_contiguous()
        torch.testing.assert_close(ours, theirs, rtol=ROUNDING[dtype], atol=1e-6)
    replaced = ModuleType("replaced")
    setattr(replaced, fused.ROTARY, getattr(module, fused.ROTARY))
    for _ in range(2):
        fused.fuse_rotary(replaced, torch.device("cpu"))
        function = getattr(replaced, fused.ROTARY)
        assert function.__module__ == fused.__name__
        assert all(map(torch.equal, function(queries, keys, cos, sin), expected))  # the CPU's stay to the last bit


def other(q, k, cos, sin):
    return q * sin.unsqueeze(-2), k * cos.unsqueeze(-2)


@pytest.mark.parametrize("function", [other, lambda q, k, cos, sin, sections: (q, k)])
def test_another_rotary_function_is_left_alone(function):
    module = ModuleType("other")
    setattr(module, fused.ROTARY, function)
    fused.fuse_rotary(module, torch.device("cpu"))
    assert getattr(module, fused.ROTARY) is function


def test_a_model_says_what_it_says_without(model, plain):
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-4, rtol=0)
