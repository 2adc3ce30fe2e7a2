"""The record of an answer: from what the pipeline made to ``cg.answer/1``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cg_cli import __version__, records
from cg_cli.backbones.base import Backbone
from cg_cli.engine import metrics
from cg_cli.engine.inputs import AnswerInputs
from cg_cli.engine.pipeline import Decoded, Prefilled
from cg_cli.errors import ItemError
from cg_cli.util.text import utc_now


def identity(inputs: AnswerInputs, video: str, question: str) -> dict[str, str]:
    """Key, video and question of a record; ``inputs`` are those of the video."""
    return {"key": replace(inputs, question=question).key, "video": video, "question": question}


def failure(record_identity: Mapping[str, str], error: ItemError, **more: Any) -> records.Failure:
    """The record of a question that was not answered."""
    return records.failure(
        record_identity, error.stage, error.kind, str(error), cg=__version__, created=utc_now(), **more
    )


def no_words() -> ItemError:
    """The error of an answer that is empty."""
    return ItemError("decode", "the model ended its turn without a word; ask in other words", "empty_answer")


def too_long(tokens: int, most: int) -> ItemError:
    """The error of a question that would leave no room in the model."""
    return ItemError(
        "decode", f"the question has {tokens:,} tokens, and {most:,} can be read after this clip", "question_too_long"
    )


def answer(
    record_identity: Mapping[str, str],
    inputs: AnswerInputs,
    backbone: Backbone,
    prefilled: Prefilled,
    decoded: Decoded,
    *,
    media_seconds: float,
    total_seconds: float,
    reused: bool = False,
    preset: str | None = None,
    predictor: str | None = None,
    warnings: Sequence[str] = (),
) -> records.Answer:
    """The record of an answer.

    Args:
        record_identity: from ``identity``.
        inputs: of the video.
        media_seconds, total_seconds: that reading the file took, and what this answer took.
        reused: an earlier question paid for the clip.
        predictor: what people call it.
    """
    pruned, generation = prefilled.pruned, decoded.generation
    clip, pruner, full, kept = pruned.encoded.clip, pruned.pruner, pruned.encoded.tokens, decoded.tokens
    flops, prefill_seconds, kv_bytes = prefilled.flops, prefilled.seconds, 0
    if prefilled.prefix is not None:
        kv_bytes = prefilled.prefix.kv_bytes
    elif decoded.layerwise is not None:
        total = sum(full.values()) + generation.question_tokens
        flops |= metrics.layerwise_flops(backbone, decoded.layerwise, total)
        prefill_seconds, kv_bytes, reused = decoded.prefill_seconds, decoded.layerwise.kv_bytes, False
    height, width = clip.frames.shape[1:3] if clip.frames is not None else (0, 0)
    grids = 0 if clip.frames is None else backbone.media_tokens(len(clip.frames), height, width, 0)[0]
    return records.Answer(
        key=record_identity["key"],
        video=record_identity["video"],
        question=record_identity["question"],
        answer=generation.text.strip(),
        finish=generation.finish,  # type: ignore[arg-type]  # the record checks it
        prefix_reused=reused,
        answered_together=decoded.together,
        model=records.Model(
            id=backbone.id,
            revision=backbone.revision,
            family=backbone.family,
            device=str(backbone.device),
            device_name=metrics.device_name(backbone.device),
            dtype=inputs.dtype,
            quantize=inputs.quantize,  # type: ignore[arg-type]  # the record checks it
            adapter=backbone.adapter,
            generation_config=dict(backbone.generation.said),
        ),
        pruner=records.Pruning(
            name=pruner.name,
            preset=preset,
            keep=pruned.keep,
            predictor=predictor,
            options=dict(inputs.pruner_options),
            requested_keep=inputs.keep,
            version=inputs.pruner_version,
            implementation=inputs.pruner,
            predictor_sha256=inputs.predictor,
        ),
        media=records.Media(
            duration_s=round(clip.duration_s, 6),
            frames=0 if clip.frames is None else len(clip.frames),
            fps=round(1 / clip.seconds_per_frame, 6) if clip.seconds_per_frame else 0.0,
            width=width,
            height=height,
            source_width=clip.source_width,
            source_height=clip.source_height,
            audio=clip.audio_status,  # type: ignore[arg-type]  # the record checks it
            audio_s=round(clip.audio_s, 6),
            complete=clip.complete,
            content=inputs.video,
            options=dict(inputs.media),
            audio_track=clip.audio_track,
            grids=grids,
            grids_encoded=grids - grids * pruned.encoded.repeated // max(full["video"], 1),
            grid_starts=None if clip.grid_starts is None else [round(start, 6) for start in clip.grid_starts.tolist()],
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
        flops=records.Flops(**flops, decode=metrics.decode_flops(backbone, prefilled, decoded)),
        latency_s=records.Latency(
            media=media_seconds,
            encode=pruned.encoded.seconds,
            prune=pruned.seconds,
            prefill=prefill_seconds,
            decode=decoded.seconds,
            total=total_seconds,
            first_token=generation.seconds_to_first_token if decoded.together == 1 else None,
        ),
        memory=records.Memory(peak_bytes=metrics.peak_bytes(backbone.device), kv_bytes=kv_bytes),
        sampling=records.Sampling(**inputs.sampling),
        rules=records.Rules(
            prompt=inputs.prompt,
            media=inputs.media_version,
            merge=inputs.merge_version,
            decode=inputs.decode_version,
            positions=inputs.positions,
        ),
        cg=__version__,
        created=utc_now(),
        warnings=tuple(warnings),
    )
