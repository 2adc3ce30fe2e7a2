"""Daily-Omni (arXiv 2505.17862): 1,197 questions on 684 videos of 30 and 60 s."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cg_cli.evals.benchmarks.base import Benchmark, Row, as_list, letter, with_letters


def rows(data: Any) -> Iterator[Row]:
    """A list; questions have no id of their own, so their number is it."""
    for number, entry in enumerate(data.values() if isinstance(data, dict) else data):
        yield Row(
            id=str(entry.get("question_id", number)),
            video=str(entry["video_id"]),
            question=entry["Question"],
            choices=with_letters(as_list(entry["Choice"])),
            answer=letter(entry["Answer"]),
            category=entry["Type"],
            groups={
                name: str(entry.get(key) or "")
                for name, key in (("duration", "video_duration"), ("video_category", "video_category"))
            },
        )


BENCHMARK = Benchmark(
    name="daily-omni",
    source="liarliar/Daily-Omni on the hub",
    annotations=("qa.json", "data/*.parquet", "*.parquet"),
    videos=("Videos/{video}/{video}_video", "videos/{video}/{video}_video", "{video}/{video}_video"),
    rows=rows,
    prompt=(
        "Your task is to accurately answer multiple-choice questions based on the given video.\n"
        "Select the single most accurate answer from the given choices.\n"
        "Question: {question}\nChoices: {choices}\n"
        "Your answer should be a capital letter representing your choice: A, B, C, or D. "
        "Don't generate any other text.\n"
    ),
    prompt_source="Daily-Omni's own, a choice a line",
)
