"""Video-Holmes (arXiv 2505.21374): 1,837 questions with up to six choices on 270 short suspense films."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cg_cli.evals.benchmarks.base import Benchmark, Row, by_letter, letter


def rows(data: Any) -> Iterator[Row]:
    """A list; question ids may start anew with each film."""
    for entry in data:
        answer = letter(entry["Answer"])
        options = {name: text for name, text in entry["Options"].items() if text is not None}
        if answer not in options:
            raise ValueError(f"{entry['video ID']}, question {entry['Question ID']}: no option {answer}")
        yield Row(
            id=f"{entry['video ID']}/{entry['Question ID']}",
            video=str(entry["video ID"]),
            question=entry["Question"],
            choices=by_letter(options, answer),
            answer=answer,
            category=entry["Question Type"],
        )


BENCHMARK = Benchmark(
    name="video-holmes",
    source="TencentARC/Video-Holmes on the hub",
    annotations=("test_Video-Holmes.json", "Benchmark/test_Video-Holmes.json"),
    videos=(
        "videos_cropped/{video}",
        "videos/{video}",
        "videos/videos_cropped/{video}",
        "Benchmark/videos_cropped/{video}",
        "video/{video}",
    ),
    rows=rows,
    prompt=(
        "Question: {question}\n{choices}\n"
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, D, E, or F) of the correct option."
    ),
    prompt_source="lmms-eval, video_holmes (no reasoning)",
)
