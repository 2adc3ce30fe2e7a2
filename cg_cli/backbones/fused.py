"""Fewer and faster kernels on CUDA for what transformers' models write out operation by operation.

The numbers stay those of float32, but not to the last bit, so that the CPU keeps transformers' own code. A class or a
function of transformers is only replaced if it computes the same as the replacement, which is tried when it is met.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, rms_norm

ALIGNED = 8  # features that the fast kernels of half-precision matrix products want multiples of ...
TILE = 64  # ... and what they work in
GATED = ("gate_proj", "up_proj", "down_proj")
ROTARY = "apply_rotary_pos_emb_vision"
ROTARY_ARGUMENTS = ["q", "k", "cos", "sin"]

Rotary = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def use_in_model(model: nn.Module) -> None:
    """Replace all of it in a loaded model on CUDA; transformers' functions as well, for tensors on CUDA."""
    pad_gated_mlps(model)
    fuse_rms_norms(model)
    for module in {sys.modules[type(part).__module__] for part in model.modules()}:
        fuse_rotary(module, next(model.parameters()).device)


def pad_gated_mlps(model: nn.Module) -> None:
    """Fill the inner features of gated MLPs up to a multiple of TILE with zeros, where they are no multiple of ALIGNED:
    3,420 in the vision tower of Qwen2.5. What is added is zero times the activation of zero. Quantized weights stay as
    they are."""
    for mlp in model.modules():
        linears: list[Any] = [getattr(mlp, name, None) for name in GATED]
        if not all(type(linear) is nn.Linear for linear in linears):
            continue
        gate, up, down = linears
        missing = -down.in_features % TILE
        if down.in_features % ALIGNED == 0 or not gate.out_features == up.out_features == down.in_features:
            continue
        for linear in (gate, up):
            linear.weight = _padded(linear.weight, (0, 0, 0, missing))
            linear.bias = None if linear.bias is None else _padded(linear.bias, (0, missing))
            linear.out_features += missing
        down.weight = _padded(down.weight, (0, missing))
        down.in_features += missing


def fuse_rms_norms(model: nn.Module) -> None:
    """Compute RMSNorms with one kernel each, which multiplies by the weights before it rounds to the dtype;
    transformers' own code rounds twice."""
    same: dict[type, bool] = {}
    for norm in model.modules():
        kind: Any = type(norm)
        if kind.__name__.endswith("RMSNorm") and kind not in same:
            same[kind] = _is_plain_rms_norm(norm)
        if same.get(kind):
            norm.__class__ = _fused_rms_norm(kind)  # it stays an instance of its class


def fuse_rotary(module: ModuleType, device: torch.device) -> None:
    """Let a module of transformers' models turn queries and keys of a vision tower with ``rotated`` where they are on
    CUDA."""
    written_out = getattr(module, ROTARY, None)
    if written_out is None or written_out.__module__ == __name__ or not _is_known_rotary(written_out, device):
        return

    def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        if q.device.type != "cuda" or torch.is_grad_enabled():  # ``rotated`` has no gradient
            return written_out(q, k, cos, sin)
        return rotated(q, cos, sin), rotated(k, cos, sin)

    setattr(module, ROTARY, rotary)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of rows ``x`` [n, heads, head_dim], computed in float32, by the cosines and sines [n, head_dim]
    float32: x * cos + (-x2, x1) * sin for the halves x1 and x2 of a row, in the dtype of ``x``."""
    half = x.shape[-1] // 2
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    scaled = x * cos  # float32, as are the sums below before they are rounded to ``turned``
    turned = torch.empty_like(x, memory_format=torch.contiguous_format)
    first, second = (..., slice(half)), (..., slice(half, None))
    torch.addcmul(scaled[first], x[second], sin[first], value=-1, out=turned[first])
    torch.addcmul(scaled[second], x[first], sin[second], out=turned[second])
    return turned


def _padded(parameter: nn.Parameter, more: tuple[int, ...]) -> nn.Parameter:
    return nn.Parameter(pad(parameter.detach(), more), requires_grad=parameter.requires_grad)


@functools.cache
def _fused_rms_norm(kind: type) -> type:
    """A subclass of the RMSNorm ``kind`` of transformers."""

    def forward(self: Any, hidden_states: Tensor) -> Tensor:
        return rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)

    return type(f"Fused{kind.__name__}", (kind,), {"forward": forward})


@torch.no_grad()
def _is_plain_rms_norm(norm: Any) -> bool:
    """Whether it is rows over their root mean square times its weights, and takes nothing but rows."""
    weight, eps = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if weight is None or eps is None or len(inspect.signature(type(norm).forward).parameters) != 2:
        return False
    row = torch.linspace(-1, 2, weight.numel(), device=weight.device)
    rows = torch.stack([row, row * eps**0.5])  # the second is so small that ``eps`` matters
    ours = rms_norm(rows, weight.shape, weight.float(), eps)
    return torch.allclose(type(norm).forward(norm, rows).float(), ours, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def _is_known_rotary(function: Rotary, device: torch.device) -> bool:
    """Whether it turns queries and keys as ``rotated`` does."""
    if list(inspect.signature(function).parameters) != ROTARY_ARGUMENTS:
        return False
    rows = torch.linspace(-1, 2, 4 * 3 * 16, device=device).view(4, 3, 16)
    angles = torch.linspace(0, 9, 4 * 16, device=device).view(4, 16)
    cos, sin = angles.cos(), angles.sin()
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        q, k = rows.to(dtype), rows.flip(0).to(dtype)
        for ours, theirs in zip((rotated(q, cos, sin), rotated(k, cos, sin)), function(q, k, cos, sin)):
            if ours.dtype != theirs.dtype or not torch.allclose(ours, theirs, rtol=tolerance, atol=1e-5):
                return False
    return True
