"""Video-MME (arXiv 2405.21075): 2,700 questions on 900 videos from seconds to an hour; here without subtitles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cg_cli.evals.benchmarks.base import Benchmark, Row, as_list, letter, with_letters


def rows(data: Any) -> Iterator[Row]:
    """A row a question, as on the hub and in VLMEvalKit's table; or a list of videos with ``questions``, as the owners'
    evaluation takes it."""
    for entry in data:
        for question in entry.get("questions", [entry]):
            yield _row({**entry, **question})


def _row(entry: dict[str, Any]) -> Row:
    def first(*names: str) -> Any:
        for name in names:
            if entry.get(name) not in (None, ""):
                return entry[name]
        raise KeyError(names[0])

    video = entry.get("videoID") or entry.get("video") or str(entry["url"]).rpartition("v=")[2]
    return Row(
        id=str(first("question_id", "index")),
        video=str(video).removesuffix(".mp4"),
        question=entry["question"],
        choices=with_letters(as_list(first("options", "choices", "candidates"))),
        answer=letter(entry["answer"]),
        category=str(first("duration", "duration_category")),
        groups={
            "domain": str(first("domain", "video_category")),
            "sub_category": str(first("sub_category", "video_subcategory")),
            "task_type": str(first("task_type")),
        },
    )


BENCHMARK = Benchmark(
    name="video-mme",
    source="lmms-lab/Video-MME on the hub",
    annotations=("videomme/test-*.parquet", "test-*.parquet", "videomme/*.json*", "Video-MME.tsv", "*.json", "*.jsonl"),
    videos=("data/{video}", "videos/data/{video}", "videos/{video}", "video/{video}", "{video}"),
    rows=rows,
    prompt=(
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, or D) of the correct option.\n{question}\n{choices}\nThe best answer is:"
    ),
    prompt_source="Video-MME's own, without subtitles",
)
