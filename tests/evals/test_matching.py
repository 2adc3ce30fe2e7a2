"""What counts as right."""

from __future__ import annotations

import pytest

from cg_cli.evals.matching import right

COLOURS = ["red", "dark blue", "green", "a car"]


@pytest.mark.parametrize(
    "answer, expected, choices, hit",
    [
        ("A red ball.", "a RED ball", (), True),
        ("Red ball!", "the red ball", (), True),
        ("Café", "cafe", (), True),
        ("A red balloon", "a red ball", (), False),
        ("a", "A", (), True),
        ("Red", "red", COLOURS, True),
        ("B", "dark blue", COLOURS, True),
        ("(B)", "B", COLOURS, True),
        ("B. dark blue", "B", COLOURS, True),
        ("The answer is B.", "dark blue", COLOURS, True),
        ("Answer: C", "green", COLOURS, True),
        ("It is dark blue, I think", "B", COLOURS, True),
        ("A car", "D", COLOURS, True),  # the words of a choice before the letter of another
        ("A", "D", COLOURS, False),
        ("A dark blue one", "B", COLOURS, True),  # an article, not a letter
        ("The best answer is A because it is red", "A", COLOURS, True),
        ("Final Answer: C", "C", COLOURS, True),
        ("**B**", "B", COLOURS, True),
        ("red or green", "red", COLOURS, False),  # two named: no answer
        ("purple", "red", COLOURS, False),
        ("", "red", COLOURS, False),
        ("E", "red", COLOURS, False),
        ("Before", "B", COLOURS, False),  # not a letter
        ("dark blue", "B", ["A. red", "B. dark blue"], True),
        ("b", "B) dark blue", ["A) red", "B) dark blue"], True),
        ("no", "purple", COLOURS, False),  # an expectation that is no choice cannot be met
    ],
)
def test_what_counts_as_right(answer, expected, choices, hit):
    assert right(answer, expected, choices) is hit
