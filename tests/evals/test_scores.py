"""What an archive's labelled answers come to."""

from __future__ import annotations

import json
from pathlib import Path

from cg_cli.evals.scores import CLIPS, scores


def line(key: str, video: str, correct: bool | None, category: str = "", question: str = "Who?") -> str:
    labelled = {} if correct is None else {"correct": correct, "category": category}
    return json.dumps({"key": key, "video": video, "question": question, "id": None, "ok": True, **labelled}) + "\n"


def test_of_labelled_answers_that_were_asked_for_the_last_counts(tmp_path: Path):
    file = tmp_path / "out.jsonl"
    file.write_text(
        line("a", "1.mp4", False, "x") + line("b", "1.mp4", True, "y", "Where?") + line("c", "2.mp4", True, "x") + line("d", "3.mp4", None)
        + line("other", "4.mp4", True, "x") + line("a", "1.mp4", True, "x")
    )  # fmt: skip
    found = scores(file, {"a", "b", "c", "d"})
    assert [(score.name, score.right, score.questions, score.interval) for score in found] == [
        ("", 3, 3, None), ("x", 2, 2, None), ("y", 1, 1, None)]  # fmt: skip
    assert scores(file, {"d"}) == [] == scores(tmp_path / "gone", {"a"})


def test_an_interval_takes_enough_clips(tmp_path: Path):
    file = tmp_path / "out.jsonl"
    file.write_text("".join(line(str(n), f"{n}.mp4", n % 2 == 0) for n in range(CLIPS)))
    (score,) = scores(file, set(map(str, range(CLIPS))))
    assert score.right == CLIPS // 2 and score.interval[0] < 0.5 < score.interval[1]
