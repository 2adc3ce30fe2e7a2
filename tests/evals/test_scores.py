"""Scores of an archive's labelled answers."""

from __future__ import annotations

from cg_cli.evals.scores import CLIPS, scores


def record(key: str, video: str, correct: bool | None, category: str = "", question: str = "Who?") -> dict:
    labelled = {} if correct is None else {"correct": correct, "category": category}
    return {"key": key, "video": video, "question": question, "id": None, "ok": True, **labelled}


def test_the_last_answer_to_a_labelled_question_counts():
    records = [
        record("a", "1.mp4", False, "x"), record("b", "1.mp4", True, "y", "Where?"), record("c", "2.mp4", True, "x"),
        record("d", "3.mp4", None), record("other", "4.mp4", True, "x"), record("a", "1.mp4", True, "x"),
    ]  # fmt: skip
    computed = scores(iter(records), {"a", "b", "c", "d"})
    assert [(score.name, score.right, score.questions, score.interval) for score in computed] == [
        ("", 3, 3, None), ("x", 2, 2, None), ("y", 1, 1, None)]  # fmt: skip
    assert scores(records, {"d"}) == [] == scores([], {"a"})


def test_answers_are_read_anew_and_those_that_give_no_choice_are_counted():
    asked = {"choices": ["red", "blue", "green"], "expected": "B"}
    answers = [("B", True), ("it is blue", False), ("A dog", False), ("A or B", True), ("A", False)]
    records = [
        record(str(n), "1.mp4", correct, "x", f"{n}?") | asked | {"answer": answer}
        for n, (answer, correct) in enumerate(answers)
    ]
    whole, category = scores(records, set("01234"))
    assert (
        (whole.right, whole.questions, whole.unreadable)
        == (2, 5, 2)
        == (
            category.right,
            category.questions,
            category.unreadable,
        )
    )


def test_an_interval_takes_enough_clips():
    records = [record(str(n), f"{n}.mp4", n % 2 == 0) for n in range(CLIPS)]
    (score,) = scores(records, set(map(str, range(CLIPS))))
    assert score.right == CLIPS // 2 and score.interval[0] < 0.5 < score.interval[1]
