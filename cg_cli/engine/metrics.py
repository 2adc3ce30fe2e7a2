"""What an answer took: from tensors, sizes and clocks to the figures of its record."""

from __future__ import annotations

import platform
import resource
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import torch

from cg_cli import records
from cg_cli.backbones.base import Backbone, Generation, LayerwisePrefill, Prefix
from cg_cli.media.clip import Clip
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, TokenStream
from cg_cli.settings.resolve import Settings


@dataclass
class Prepared:
    """A clip that has been read, encoded and pruned; questions are answered from its prefix or, where the pruner reads
    the question (``prefix`` is None), each from a reading of ``stream`` of its own."""

    clip: Clip
    keep: float  # that was asked of the pruner
    full: dict[str, int]  # tokens before pruning: video, audio, text
    kept: dict[str, int]
    stream: TokenStream  # what enters the language model
    budget: Budget
    prefix: Prefix | None
    kv_bytes: int
    flops: dict[str, int]
    seconds: dict[str, float]  # by stage, up to prefill
    warnings: list[str] = field(default_factory=list)
    rows: tuple[int, ...] = ()  # that each layer read, where they differ


def token_counts(stream: TokenStream) -> dict[str, int]:
    """Tokens by modality, off the real tensor; waits for the device once."""
    kinds = {"video": VIDEO, "audio": AUDIO, "text": TEXT}
    counts = torch.stack([(stream.modality == kind).sum() for kind in kinds.values()]).tolist()
    return dict(zip(kinds, counts))


def clip_flops(
    backbone: Backbone,
    pruner: Pruner,
    clip: Clip,
    stream: TokenStream,
    pruned: TokenStream,
    budget: Budget,
    full: Mapping[str, int],
) -> dict[str, int]:
    """Operations up to prefill, as in ``records.Flops``; ``full`` are the token counts of ``stream``."""
    vision, audio = backbone.encode_flops(clip)
    selection = 0
    if budget.count < full["video"] + full["audio"]:
        selection = pruner.flops(budget, full["audio"], full["video"], int(stream.grid.max()) + 1, backbone.hidden_size)
    return {
        "vision": vision,
        "audio": audio,
        "predictor": selection,
        "prefill": backbone.decoder_flops(len(pruned), 0, 0),
        "prefill_full": backbone.decoder_flops(len(stream), 0, 0),
    }


def narrowed(
    prepared: Prepared, found: LayerwisePrefill, kept: tuple[int, int], backbone: Backbone, asked: int
) -> Prepared:
    """``prepared`` as the question of ``asked`` tokens found it that ``found`` has read; (video, audio) ``kept``."""
    video, audio = kept
    flops = layerwise_flops(backbone, found, sum(prepared.full.values()) + asked)
    return replace(
        prepared,
        kept={**prepared.full, "video": video, "audio": audio},
        kv_bytes=found.kv_bytes,
        flops={**prepared.flops, **flops},
        seconds={**prepared.seconds, "prefill": found.seconds},
        rows=found.rows,
    )


def layerwise_flops(backbone: Backbone, found: LayerwisePrefill, whole: int) -> dict[str, int]:
    """Operations of a prefill whose layers read fewer and fewer rows, and of one whose layers read all ``whole``
    rows."""
    narrow = sum(backbone.layer_flops(n, 0) for n in found.rows)
    return {"prefill": narrow, "prefill_full": backbone.decoder_flops(whole, 0, 0)}


def decode_flops(backbone: Backbone, prepared: Prepared, generation: Generation) -> int:
    """Operations of an answer: the question, unless the prefill had it already, and one step a token."""
    # The last token chosen is not fed back, so a generation of n tokens takes the question and n - 1 steps more;
    # one that stopped by itself also computed the mark that stopped it.
    steps = len(generation.token_ids) - (generation.finish == "length")
    if prepared.prefix is None:
        logits = backbone.decoder_flops(0, 0, 1)
        return logits * (1 + steps) + sum(backbone.layer_flops(1, n + i) for i in range(steps) for n in prepared.rows)
    length, asked = prepared.prefix.length, generation.question_tokens
    question = backbone.decoder_flops(asked, length, 1)
    return question + sum(backbone.decoder_flops(1, length + asked + i, 1) for i in range(steps))


def answered(
    identity: Mapping[str, str],
    settings: Settings,
    backbone: Backbone,
    pruner: Pruner,
    predictor: str | None,
    prepared: Prepared,
    generation: Generation,
    seconds: Mapping[str, float],
    *,
    reused: bool,
    together: int = 1,
) -> records.Answer:
    """The record of an answer.

    Args:
        identity: its key, video and question.
        seconds: ``decode`` and ``total`` of this answer.
        reused: an earlier question paid for the clip.
        together: questions decoded side by side.
    """
    clip, full, kept = prepared.clip, prepared.full, prepared.kept
    height, width = clip.frames.shape[1:3] if clip.frames is not None else (0, 0)
    return records.Answer(
        **identity,
        answer=generation.text.strip(),
        finish=generation.finish,
        prefix_reused=reused,
        answered_together=together,
        model=records.Model(
            id=backbone.id,
            revision=backbone.revision,
            family=backbone.family,
            device=str(backbone.device),
            device_name=device_name(backbone.device),
            dtype=str(backbone.dtype).removeprefix("torch."),
            quantize=settings.quantize,
        ),
        pruner=records.Pruning(
            name=settings.pruner,
            preset=settings.preset,
            keep=prepared.keep,
            predictor=predictor,
            options=asdict(pruner),
        ),
        media=records.Media(
            duration_s=round(clip.duration_s, 6),
            frames=0 if clip.frames is None else len(clip.frames),
            fps=round(1 / clip.seconds_per_frame, 6) if clip.seconds_per_frame else 0.0,
            width=width,
            height=height,
            source_width=clip.source_width,
            source_height=clip.source_height,
            audio=clip.audio_status,
            audio_s=round(clip.audio_s, 6),
            complete=clip.complete,
        ),
        tokens=records.Tokens(
            video=full["video"],
            video_kept=kept["video"],
            audio=full["audio"],
            audio_kept=kept["audio"],
            text=full["text"],
            keep=round((kept["video"] + kept["audio"]) / (full["video"] + full["audio"]), 6),
            question=generation.question_tokens,
            answer=len(generation.token_ids),
            counted=pruner.counted,
        ),
        flops=records.Flops(**prepared.flops, decode=decode_flops(backbone, prepared, generation)),
        latency_s=records.Latency(
            **prepared.seconds, **seconds, first_token=generation.seconds_to_first_token if together == 1 else None
        ),
        memory=records.Memory(peak_bytes=peak_bytes(backbone.device), kv_bytes=prepared.kv_bytes),
        warnings=tuple(prepared.warnings),
    )


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


def peak_bytes(device: torch.device) -> int:
    """Peak bytes of tensors on a CUDA device since the clip began; on the CPU, of the whole process since it
    started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
