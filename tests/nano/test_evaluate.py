"""The arithmetic behind the table: what guessing gives, and how sure a share is."""

from __future__ import annotations

import pytest

from cg_cli.nano import evaluate

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


def test_interval_of_a_share():
    low, high = evaluate.wilson(5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert evaluate.wilson(0, 0) == (0.0, 1.0)
