"""Layer-wise prefill of a transformers decoder with mRoPE: a pruner drops rows between its layers."""

from __future__ import annotations

import functools
import time
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from cg_cli.backbones.base import LayerwisePrefill
from cg_cli.backbones.device import synchronize
from cg_cli.backbones.layout import DEEPSTACK
from cg_cli.backbones.weighted_cache import UnevenCache, cache_bytes
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.decoder import DecoderPruner, LayerView
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, TokenStream


def prefill(
    model: Any, stream: TokenStream, question_rows: Tensor, pruner: DecoderPruner, budget: Budget, started: float
) -> LayerwisePrefill:
    """Run ``model``'s decoder over a stream and a question's embeddings [Q, D], as ``Backbone.prefill_layerwise`` says.

    Args:
        started: ``time.perf_counter()`` when the prefill began.
    """
    if stream.merge_size is not None:
        raise ValueError("decoder-stage pruning does not support merged tokens")
    device = stream.embeddings.device
    question_positions = torch.arange(len(question_rows), device=device) + stream.next_position
    rows = torch.cat([stream.embeddings, question_rows])
    positions = torch.cat([stream.positions, question_positions.expand(3, -1)], dim=1)

    def extended(values: Tensor, value: float) -> Tensor:
        return torch.cat([values, values.new_full((len(question_rows), *values.shape[1:]), value)])

    modality, grid, time_s = (
        extended(values, value) for values, value in ((stream.modality, TEXT), (stream.grid, -1), (stream.time_s, -1))
    )
    deepstack = extended(stream.carry.get(DEEPSTACK, rows.new_zeros(len(stream), 0, rows.shape[1])), 0)
    decoder, cache = model.model.language_model, UnevenCache(config=model.config)
    rotary = decoder.rotary_emb(rows[None], positions[:, None])
    row_counts: list[int] = []
    media_counts: list[Tensor] = []
    indices = torch.arange(len(rows), device=device)  # of the rows that are left, in the whole sequence
    depth = torch.zeros(len(rows), device=device)
    for number, layer in enumerate(decoder.layers):
        layer_input = rows
        row_counts.append(len(rows))
        media_counts.append(torch.stack([(modality == kind).sum() for kind in (VIDEO, AUDIO)]))
        rows = layer(
            rows[None], attention_mask=None, position_embeddings=rotary, past_key_values=cache, use_cache=True
        )[0]
        if number < deepstack.shape[1]:
            rows = rows + deepstack[:, number]
        view = LayerView(
            number,
            len(decoder.layers),
            tuple(row_counts),
            modality,
            grid,
            time_s,
            len(question_rows),
            rows,
            functools.partial(_attention, layer, layer_input, rotary, cache.layers[number].keys),
        )
        kept = pruner.after(view, budget)
        if kept is not None:
            depth[indices] = (number + 1) / len(decoder.layers)
            indices, rows, modality, grid, time_s, deepstack = (
                values[kept] for values in (indices, rows, modality, grid, time_s, deepstack)
            )
            rotary = tuple(values[:, kept] for values in rotary)
    depth[indices] = 1.0
    logits = model.lm_head(decoder.norm(rows[-1]))
    synchronize(device)
    return LayerwisePrefill(
        cache=cache,
        logits=logits,
        rows=tuple(row_counts),
        media=tuple((video, audio) for video, audio in torch.stack(media_counts).tolist()),
        depth=depth[: len(stream)],
        next_position=stream.next_position + len(question_rows),
        kv_bytes=cache_bytes(cache),
        seconds=time.perf_counter() - started,
        prompt_ids=stream.prompt_ids,
    )


def _attention(
    layer: Any, layer_input: Tensor, rotary: tuple[Tensor, Tensor], keys: Tensor, query_rows: Tensor
) -> Tensor:
    """Attention [q, n] float32, the mean over heads, of rows ``query_rows`` [q] int64 to all rows in ``layer``.

    Args:
        layer_input: [n, D], the rows that the layer read.
        rotary: cosines and sines of their positions, [1, n, head] each.
        keys: [1, key heads, n, head] that the layer has in its cache.
    """
    attention = layer.self_attn
    rows = layer_input[query_rows]
    query = attention.q_proj(layer.input_layernorm(rows)).view(1, len(rows), -1, attention.head_dim)
    if hasattr(attention, "q_norm"):
        query = attention.q_norm(query)
    query = query.transpose(1, 2)
    cosines, sines = (values[:, query_rows] for values in rotary)
    query, _ = apply_rotary_pos_emb(query, query, cosines, sines)
    grouped = query[0].view(keys.shape[1], -1, *query.shape[2:]).float()
    scores = grouped @ keys[0][:, None].float().mT * attention.scaling
    later = torch.arange(keys.shape[2], device=keys.device) > query_rows[:, None]
    return scores.masked_fill(later, -torch.inf).softmax(-1).mean((0, 1))
