"""OmniVideoBench (arXiv 2510.10689): 1,000 questions on 628 videos up to half an hour, whose answers take sound and
picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cg_cli.evals.benchmarks.base import Benchmark, Row, as_list, letter, minutes, with_letters

UP_TO_MINUTES = (1, 5, 10, 30)


def rows(data: Any) -> Iterator[Row]:
    """A list of videos with ``questions``, or a row a question. ``answer`` is the right choice's text, not its
    letter."""
    counts: dict[str, int] = {}
    for entry in data:
        for question in entry.get("questions", [entry]):
            merged = {**entry, **question}
            video = str(merged["video"]).removeprefix("videos/").removesuffix(".mp4")
            number = counts.get(video, 0)
            counts[video] = number + 1
            yield Row(
                id=f"{video}/{number}",
                video=video,
                question=merged["question"],
                choices=with_letters(as_list(merged["options"])),
                answer=letter(merged["correct_option"]),
                category=merged["question_type"],
                groups={
                    "audio_type": str(merged.get("audio_type", "")),
                    "video_type": str(merged.get("video_type", "")),
                    "duration": _bucket(minutes(merged["duration"])) if merged.get("duration") else "",
                },
            )


def _bucket(length: float) -> str:
    return next((f"up to {limit} min" for limit in UP_TO_MINUTES if length <= limit), f"over {UP_TO_MINUTES[-1]} min")


BENCHMARK = Benchmark(
    name="omnivideobench",
    source="NJU-LINK/OmniVideoBench on the hub",
    annotations=("data.json", "data.parquet", "data.jsonl"),
    videos=("videos/{video}", "{video}"),
    rows=rows,
    prompt=(
        "You are given a video. Based on the content of the video, answer the following question:\n\n"
        "Question:\n{question}\n\nOptions:\n{choices}\n\n"
        "Answer with the option's letter directly(e.g., A, B, C, or D).If your access to the video content is limited, "
        "at least one option that is more likely than the others must be chosen."
        "Mustn't give any other reason for can not choose!"
    ),
    prompt_source="OmniVideoBench's own",
)
