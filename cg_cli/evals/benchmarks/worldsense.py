"""WorldSense (arXiv 2502.04326): 3,172 questions on 1,662 videos that need sound and picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cg_cli.evals.benchmarks.base import Benchmark, Row, as_list, letter, with_letters


def rows(data: Any) -> Iterator[Row]:
    """The official file has a video a key, its questions below ``task0``, ``task1`` ...; the mirror a row a
    question."""
    if isinstance(data, dict):
        for video, entry in data.items():
            for task in sorted((key for key in entry if key.startswith("task")), key=lambda key: (len(key), key)):
                yield _row(str(entry.get("video_id", video)), task, {**entry, **entry[task]})
    else:
        for number, entry in enumerate(data):
            yield _row(str(entry["video"]).removesuffix(".mp4"), str(entry.get("index", number)), entry)


def _row(video: str, task: str, entry: dict[str, Any]) -> Row:
    audio_class = entry.get("audio_class") or []
    return Row(
        id=f"{video}/{task}",
        video=video,
        question=entry["question"],
        choices=with_letters(as_list(entry["candidates"])),
        answer=letter(entry["answer"]),
        category=entry["domain"],
        groups={
            **{name: str(entry.get(name, "")) for name in ("task_domain", "task_type", "sub_category", "duration")},
            "audio_class": ", ".join(as_list(audio_class)) if audio_class else "",
        },
    )


BENCHMARK = Benchmark(
    name="worldsense",
    source="honglyhly/WorldSense on the hub",
    annotations=("worldsense_qa.json", "WorldSense.tsv", "data/test-*.parquet", "test-*.parquet"),
    videos=("videos/{video}", "{video}"),
    rows=rows,
    prompt=(
        "Carefully watch this video and pay attention to every detail. Based on your observations, select the best "
        "option that accurately addresses the question.\n"
        "These are the frames of a video and the corresponding audio. Select the best answer to the following "
        "multiple-choice question based on the video. Respond with only the letter (A, B, C, or D) of the correct "
        "option.\n"
        "{question}\n{choices}\n"
    ),
    prompt_source="lmms-eval, worldsense",
)
