"""What a clip and the answers on it took, in words: for tables on a terminal and on pages."""

from __future__ import annotations

from collections.abc import Sequence

from cg_cli.records import Answer, prefills
from cg_cli.util.format import count, duration, share, size

FIGURES = ("", "full", "used", "share", "time")  # the columns of ``figures``

Row = tuple[str, ...]


def _row(name: str, full: str, used: str, part: str = "", took: str = "") -> Row:
    return name, full, used, part, took


def figures(answers: Sequence[Answer]) -> list[list[Row]]:
    """Tokens, FLOPs and latency of one clip and the questions answered on it, in words: sections of rows of
    ``FIGURES``."""
    first = answers[0]
    tokens, flops, seconds = first.tokens, first.flops, first.latency_s

    full, used = tokens.video + tokens.audio, tokens.video_kept + tokens.audio_kept
    counted = [
        _row("video tokens", f"{tokens.video:,}", f"{tokens.video_kept:,}", share(tokens.video_kept, tokens.video)),
        _row("audio tokens", f"{tokens.audio:,}", f"{tokens.audio_kept:,}", share(tokens.audio_kept, tokens.audio)),
        _row("audio + video tokens", f"{full:,}", f"{used:,}", share(used, full)),
        _row("audio in them", share(tokens.audio, full), share(tokens.audio_kept, used)),
    ]
    flop = lambda number: count(number, "FLOP")
    whole = (flops.vision if flops.vision_full is None else flops.vision_full) + (
        flops.audio if flops.audio_full is None else flops.audio_full
    )
    towers = flops.vision + flops.audio
    part = share(towers, whole) if towers < whole else ""
    predictor = flop(flops.predictor) if flops.predictor else "-"
    read = prefills(answers)
    took = sum(a.latency_s.prefill for a in answers if not a.prefix_reused) or seconds.prefill
    decode = sum(a.flops.decode for a in answers)
    questions = f"answer {len(answers)} questions" if len(answers) > 1 else "answer"
    clip_full, clip_used = whole + flops.prefill_full, towers + flops.predictor + read
    clip_took = seconds.media + seconds.encode + seconds.prune + took
    total = duration(sum(a.latency_s.total for a in answers))
    stages = [
        _row("read the file", "", "", "", duration(seconds.media)),
        _row("encode", flop(whole), flop(towers), part, duration(seconds.encode)),
        _row("prune", "-", predictor, "", duration(seconds.prune)),
        _row("prefill", flop(flops.prefill_full), flop(read), share(read, flops.prefill_full), duration(took)),
        _row("clip", flop(clip_full), flop(clip_used), share(clip_used, clip_full), duration(clip_took)),
        _row(questions, "", flop(decode), "", duration(sum(a.latency_s.decode for a in answers))),
        _row("all", "", flop(clip_used + decode), "", total),
    ]
    memory = [
        _row("KV cache of the clip", "", size(first.memory.kv_bytes)),
        _row("peak memory", "", size(max(a.memory.peak_bytes for a in answers))),
    ]
    return [counted, stages, memory]
