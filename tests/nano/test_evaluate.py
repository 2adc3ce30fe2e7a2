"""The table, and the arithmetic behind it: what guessing gives."""

from __future__ import annotations

import pytest

from cg_cli.nano import evaluate
from cg_cli.nano.tables import Hits

pytestmark = pytest.mark.slow


def row(question: str, answer: str, choices: list[str], kind: str = "colour", category: str = "silent") -> dict:
    return {"question": question, "answer": answer, "choices": choices, "type": kind, "category": category}


def test_guessing_takes_the_most_frequent_answer_of_each_type():
    colours = [row("What colour?", c, ["red", "blue"]) for c in ("red", "red", "red", "blue")]
    places = [row("Where?", p, ["top left", "top right"], "place") for p in ("top left", "top right")]
    assert evaluate.prior(colours + places) == {"silent": (3 + 1) / 6}


def test_guessing_may_always_take_the_choice_that_is_named_first_or_last():
    rows = [
        row("Which is first, the bell or the dog?", "dog", ["bell", "dog"], "first_of", "order"),
        row("Which is first, the car or the drum?", "drum", ["drum", "car"], "first_of", "order"),
        row("Which is first, the horn or the bird?", "horn", ["bird", "horn"], "first_of", "order"),
    ]
    assert evaluate.prior(rows) == {"order": 2 / 3}


def test_the_table_has_a_row_a_category_the_interval_over_clips_and_what_was_kept():
    def line(clip: int, name: str, right: list[bool]) -> dict:
        categories = ["silent", "digits"]
        return {"seed": 0, "video": f"{clip}", "condition": name, "category": categories, "right": right, "kept": 0.4}

    # Both questions on a clip are right, or neither is: as sure as two clips are, not four questions.
    hits = Hits(line(clip, "a", [clip == 1] * 2) for clip in range(2))
    table = evaluate.table(hits, ["a"], {"silent": 0.5, "digits": 0.25}, "title")
    rows = list(zip(*(column.cells for column in table.columns)))
    assert rows == [
        ("silent", "2", "50", "50.0"),
        ("digits", "2", "25", "50.0"),
        ("all", "4", "", "50.0"),
        ("95 % interval", "", "", "0.0-100.0"),
        ("kept", "", "", "0.40"),
    ]


def test_every_pruner_before_the_model_and_its_rivals_have_a_column():
    names = [column.name for column in evaluate.conditions(0.45)]
    assert {"full", "contextguard", "tome", "downsample", "fewer frames", "neither"} <= set(names)
    assert len(set(names)) == len(names) and not {"none", "fastv"} & set(names)
