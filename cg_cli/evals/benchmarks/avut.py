"""AVUT (arXiv 2503.19951): questions on videos whose sound tells what the picture does not; 1,734 of them by people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from cg_cli.evals.benchmarks.base import LETTERS, Benchmark, Row, by_letter, letter


def rows(data: Any) -> Iterator[Row]:
    """A list. ``video_path`` names a folder ``data`` that the hub does not have, hence only its last part is used."""
    for entry in data:
        answer = letter(entry["answer"])
        options = {name: entry[f"option_{name}"] for name in LETTERS if f"option_{name}" in entry}
        if answer not in options:
            raise ValueError(f"question {entry.get('QA_id')} has no option_{answer}")
        yield Row(
            id=str(entry["QA_id"]),
            video=PurePosixPath(entry["video_path"]).stem,
            question=entry["question"],
            choices=by_letter(options, answer),
            answer=answer,
            category=entry["task_type"],
            groups={"video_type": str(entry.get("video_type") or "")},
        )


BENCHMARK = Benchmark(
    name="avut",
    source="tsinghua-ee/AVUTBenchmark on the hub",
    annotations=(
        "AV_Human_data.json",
        "AV_Human_filtered_data.json",
        "AV_Gemini_data.json",
        "AV_Gemini_filtered_data.json",
    ),
    videos=(
        "{video}",
        "{video}_fullsize",
        "data/{video}",
        "data/{video}_fullsize",
        "videos/{video}",
        "videos/{video}_fullsize",
    ),
    rows=rows,
    prompt="{question}\nOptions:\n{choices}\nAnswer with the option's letter from the given choices directly.",
    prompt_source="OmniZip's, avut",
)
