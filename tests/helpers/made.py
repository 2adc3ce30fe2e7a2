"""Clips for a run, and records as a run leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cg_cli import records
from helpers import SAMPLES

CLIPS = sorted(SAMPLES.glob("*.mp4"))


def folder_of(path: Path, count: int) -> Path:
    """``count`` clips, each of another content and so with a key of its own."""
    path.mkdir()
    for i in range(count):
        distinct_copy(CLIPS[i % len(CLIPS)], path / f"c{i:03d}.mp4", i)
    return path


def distinct_copy(source: Path, target: Path, number: int) -> Path:
    """The same film in a file of its own: a box that players pass over (``free``) with ``number`` in it follows."""
    box = number.to_bytes(8)
    target.write_bytes(source.read_bytes() + (8 + len(box)).to_bytes(4) + b"free" + box)
    return target


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def told(record: dict) -> tuple:
    """What has to be the same however a batch came to its end."""
    return (
        record["key"],
        record["video"],
        record["question"],
        record["ok"],
        record.get("answer"),
        (record.get("error") or {}).get("type"),
    )


def answer(video: str = "a.mp4", question: str = "q?", key: str | None = None, **more: Any) -> records.Answer:
    return records.Answer(
        key=key or f"key of {video} {question}",
        video=video,
        question=question,
        answer="A dog.",
        finish="stop",
        model={"id": "m", "revision": None, "family": "f", "device": "cpu", "device_name": "cpu", "dtype": "float32"},
        pruner={"name": "random", "preset": "paper", "keep": 0.45, "predictor": None, "options": {}},
        media={"duration_s": 8, "frames": 16, "fps": 2, "width": 224, "height": 224,
               "source_width": 224, "source_height": 224, "audio": "used", "audio_s": 8, "complete": True},
        tokens={"video": 512, "video_kept": 120, "audio": 200, "audio_kept": 200, "text": 31,
                "keep": 0.4494, "question": 9, "answer": 4},
        flops={"vision": 1, "audio": 1, "predictor": 0, "prefill": 2, "prefill_full": 4, "decode": 1},
        latency_s={"media": 0, "encode": 0, "prune": 0, "prefill": 0, "decode": 0, "total": 0},
        memory={"peak_bytes": 1, "kv_bytes": 1},
        **more,
    )  # fmt: skip


def failed(video: str = "a.mp4", question: str = "q?", kind: str = "timeout", **more: Any) -> records.Failure:
    identity = {"key": f"key of {video} {question}", "video": video, "question": question}
    return records.failure(identity, "media", kind, "it failed", **more)
