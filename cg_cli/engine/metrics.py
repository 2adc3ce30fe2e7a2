"""What a clip and an answer cost: tokens, operations, bytes, off tensors and sizes."""

from __future__ import annotations

import platform
import resource
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from cg_cli.backbones.base import Backbone, LayerwisePrefill
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, TokenStream

if TYPE_CHECKING:
    from cg_cli.engine.pipeline import Decoded, Prefilled, Pruned


def token_counts(stream: TokenStream) -> dict[str, int]:
    """Tokens by modality, off the real tensor; waits for the device once."""
    kinds = {"video": VIDEO, "audio": AUDIO, "text": TEXT}
    counts = torch.stack([(stream.modality == kind).sum() for kind in kinds.values()]).tolist()
    return dict(zip(kinds, counts))


def repeated_tokens(stream: TokenStream) -> int:
    """Video tokens that are copies of others."""
    if stream.same_as is None:
        return 0
    is_copy = stream.same_as != torch.arange(len(stream), device=stream.same_as.device)
    return int((is_copy & (stream.modality == VIDEO)).sum())


def clip_flops(backbone: Backbone, pruned: Pruned) -> dict[str, int]:
    """Operations up to prefill, as in ``records.Flops``."""
    encoded, budget = pruned.encoded, pruned.budget
    vision, audio = backbone.encode_flops(encoded.clip)
    vision_full, audio_full = backbone.encode_flops(replace(encoded.clip, look_once=None))
    selection, tokens = 0, encoded.tokens
    if budget.count < tokens["video"] + tokens["audio"]:
        grids = int(encoded.stream.grid.max()) + 1
        selection = pruned.pruner.flops(budget, tokens["audio"], tokens["video"], grids, backbone.hidden_size)
    return {
        "vision": vision,
        "vision_full": vision_full,
        "audio": audio,
        "audio_full": audio_full,
        "predictor": selection,
        "prefill": backbone.decoder_flops(len(pruned.stream), 0, 0),
        "prefill_full": backbone.decoder_flops(len(encoded.stream), 0, 0),
    }


def layerwise_flops(backbone: Backbone, layerwise: LayerwisePrefill, total: int) -> dict[str, int]:
    """Operations of a prefill whose layers read fewer and fewer rows, and of one whose layers read all ``total``
    rows."""
    pruned = sum(backbone.layer_flops(rows, 0) for rows in layerwise.rows)
    return {"prefill": pruned, "prefill_full": backbone.decoder_flops(total, 0, 0)}


def decode_flops(backbone: Backbone, prefilled: Prefilled, decoded: Decoded) -> int:
    """Operations of an answer: the question, unless the prefill had it already, and one step a token."""
    generation = decoded.generation
    # The last token chosen is not fed back, so a generation of n tokens takes the question and n - 1 steps more;
    # one that stopped by itself also computed the token that stopped it.
    steps = len(generation.token_ids) - (generation.finish == "length")
    if decoded.layerwise is not None:
        logits = backbone.decoder_flops(0, 0, 1)
        rows = decoded.layerwise.rows
        return logits * (1 + steps) + sum(backbone.layer_flops(1, n + i) for i in range(steps) for n in rows)
    assert prefilled.prefix is not None
    length, question_tokens = prefilled.prefix.length, generation.question_tokens
    question = backbone.decoder_flops(question_tokens, length, 1)
    return question + sum(backbone.decoder_flops(1, length + question_tokens + i, 1) for i in range(steps))


CPU = torch.device("cpu")


def device_name(device: torch.device) -> str:
    """What people call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def dtype_name(dtype: torch.dtype) -> str:
    """``float32``, ``bfloat16`` ..."""
    return str(dtype).removeprefix("torch.")


def reset_peak_bytes(device: torch.device) -> None:
    """Begin to count anew, where a device counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Peak bytes of tensors on a CUDA device since ``reset_peak_bytes``; on the CPU, of the whole process since it
    started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
