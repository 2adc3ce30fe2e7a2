"""Analytic FLOPs and bytes of an Omni model, from sizes alone. Imports no torch.

A multiply-add counts as 2 operations; norms, activations, softmax and embeddings count as none, as in
``torch.utils.flop_counter``, which the tests hold these formulas to, exactly. The language model's attention is counted
as causal kernels compute it: a token attends to itself and to what is before it. The towers' is full inside windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextSizes:
    """The language model. With ``experts`` to choose from in each layer, ``intermediate`` is the width of those that a
    token goes through, together."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    experts: int = 0

    @classmethod
    def from_config(cls, config: Any) -> TextSizes:
        """From a transformers text config (Qwen naming)."""
        experts = getattr(config, "num_experts", 0)
        return cls(
            hidden=config.hidden_size,
            intermediate=config.num_experts_per_tok * config.moe_intermediate_size
            if experts
            else config.intermediate_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            vocab=config.vocab_size,
            experts=experts,
        )


@dataclass(frozen=True)
class VisionSizes:
    """The vision tower; ``window`` is a side in pixels, ``full_blocks`` how many blocks see a whole grid, ``gated``
    whether the blocks' feed-forward part is (SwiGLU), ``mergers`` how many times patches are merged (deepstack merges
    them more often)."""

    hidden: int
    intermediate: int
    depth: int
    full_blocks: int
    channels: int
    patch: int
    merge: int
    temporal_patch: int
    window: int
    out: int
    gated: bool = True
    mergers: int = 1

    @classmethod
    def from_config(cls, config: Any) -> VisionSizes:
        """From a transformers vision config (Qwen naming)."""
        full = set(getattr(config, "fullatt_block_indexes", range(config.depth)))
        return cls(
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            depth=config.depth,
            full_blocks=sum(index < config.depth for index in full),
            channels=config.in_channels,
            patch=config.patch_size,
            merge=config.spatial_merge_size,
            temporal_patch=config.temporal_patch_size,
            window=getattr(config, "window_size", config.patch_size),
            out=config.out_hidden_size,
            gated=config.hidden_act == "silu",
            mergers=1 + len(getattr(config, "deepstack_visual_indexes", ())),
        )


@dataclass(frozen=True)
class AudioSizes:
    """The block-local audio tower; a block is ``2 * n_window`` mel frames."""

    mel_bins: int
    hidden: int
    feed_forward: int
    layers: int
    n_window: int
    out: int

    @classmethod
    def from_config(cls, config: Any) -> AudioSizes:
        """From a transformers ``Qwen2_5OmniAudioEncoderConfig``."""
        return cls(
            mel_bins=config.num_mel_bins,
            hidden=config.d_model,
            feed_forward=config.encoder_ffn_dim,
            layers=config.encoder_layers,
            n_window=config.n_window,
            out=config.output_dim,
        )


def decoder_flops(sizes: TextSizes, new: int, past: int, logit_rows: int) -> int:
    """Operations of the language model for ``new`` tokens after ``past`` cached ones and ``logit_rows`` of logits."""
    return sizes.layers * layer_flops(sizes, new, past) + 2 * logit_rows * sizes.hidden * sizes.vocab


def prefill_bytes(sizes: TextSizes, tokens: int, itemsize: int) -> int:
    """Bytes that ``tokens`` rows take in a prefill at least: their keys and values in all layers, and, in one, the
    residual and its norm beside the gate, the values and the product of the feed-forward part."""
    cache = 2 * sizes.layers * sizes.kv_heads * sizes.head_dim
    layer = 2 * sizes.hidden + 3 * sizes.intermediate
    return tokens * itemsize * (cache + layer)


def layer_flops(sizes: TextSizes, new: int, past: int) -> int:
    """Operations of one layer of the language model for ``new`` tokens after ``past`` cached ones."""
    query, key = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    weights = sizes.hidden * (2 * query + 2 * key + 3 * sizes.intermediate + sizes.experts)
    pairs = new * past + new * (new + 1) // 2  # a token attends to itself and to what is before it
    attention = 4 * pairs * query
    return 2 * new * weights + attention


def vision_flops(sizes: VisionSizes, grids: int, height: int, width: int) -> int:
    """Operations of the vision tower for ``grids`` temporal patches of ``height`` x ``width`` patches (not merged)."""
    patches = grids * height * width
    hidden, merged = sizes.hidden, sizes.merge**2 * sizes.hidden
    side = sizes.window // sizes.patch  # patches along a window
    windows = _squares(height, side) * _squares(width, side)
    attention = (
        4 * hidden * grids * (sizes.full_blocks * (height * width) ** 2 + (sizes.depth - sizes.full_blocks) * windows)
    )
    linear = sizes.depth * 2 * patches * (4 * hidden**2 + (2 + sizes.gated) * hidden * sizes.intermediate)
    embed = 2 * patches * sizes.channels * sizes.temporal_patch * sizes.patch**2 * hidden
    merger = sizes.mergers * 2 * (patches // sizes.merge**2) * (merged**2 + merged * sizes.out)
    return attention + linear + embed + merger


def audio_flops(sizes: AudioSizes, mel_frames: int) -> int:
    """Operations of the audio tower for one call on ``mel_frames`` frames of 10 ms.

    The convolutions run on blocks padded to the longest one, attention inside each block.
    """
    blocks = parts(mel_frames, 2 * sizes.n_window)
    halved = [(block - 1) // 2 + 1 for block in blocks]
    longest, hidden = max(blocks), sizes.hidden
    convolutions = 2 * 3 * hidden * len(blocks) * (longest * sizes.mel_bins + max(halved) * hidden)
    linear = 2 * sum(halved) * (4 * hidden**2 + 2 * hidden * sizes.feed_forward)
    attention = 4 * hidden * sum(length**2 for length in halved)
    tokens = (((mel_frames - 1) // 2 + 1) - 2) // 2 + 1
    return convolutions + sizes.layers * (linear + attention) + 2 * tokens * hidden * sizes.out


def kv_bytes_per_token(sizes: TextSizes, value_bytes: int) -> int:
    """Bytes of KV cache a token takes, at ``value_bytes`` a number (2 in bfloat16)."""
    return 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * value_bytes


def parts(length: int, size: int) -> list[int]:
    """``length`` cut into parts of ``size``; the last may be shorter."""
    return [min(size, length - start) for start in range(0, length, size)]


def _squares(length: int, size: int) -> int:
    """Sum of the squared part lengths."""
    return sum(part**2 for part in parts(length, size))
