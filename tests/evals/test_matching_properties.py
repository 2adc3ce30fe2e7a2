"""Answer matching, for any text."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cg_cli.evals.matching import normalize, right

properties = settings(derandomize=True, deadline=None, max_examples=200)
texts = st.text(max_size=60)
words = st.text(string.ascii_lowercase, min_size=2, max_size=8).filter(lambda word: word not in ("an", "the"))
phrases = st.lists(words, min_size=1, max_size=4).map(" ".join)
choice_lists = st.lists(phrases, min_size=2, max_size=8, unique=True)
UNUSUAL = {"\u0130", "\u212a"}  # capital letters beyond ASCII that match [A-Z] without case: see the test at the end


@properties
@given(texts.filter(lambda t: not UNUSUAL & set(t)), texts, st.lists(texts, max_size=30))
def test_no_text_raises(answer, expected, choices):
    if not UNUSUAL & set(expected):
        assert right(answer, expected, choices) in (True, False)


@properties
@given(texts)
def test_a_text_is_right_for_itself(text):
    assert right(text, text)


@properties
@given(choice_lists, st.data())
def test_a_choice_is_right_by_its_text_and_letter_and_wrong_for_every_other(choices, data):
    letters = string.ascii_uppercase[: len(choices)]
    number = data.draw(st.integers(0, len(choices) - 1))
    letter, text = letters[number], choices[number]
    labelled = [f"{mark}. {choice}" for mark, choice in zip(letters, choices)]
    for options in (choices, labelled):
        for other, (other_letter, other_text) in enumerate(zip(letters, choices)):
            for expected in (other_letter, other_text):
                for answer in (letter, letter.lower(), f"({letter})", f"{letter}.", f"The answer is {letter}", text):
                    assert right(answer, expected, options) is (other == number), (answer, expected, options)


@properties
@given(st.lists(words, min_size=1, max_size=5), st.data())
def test_case_punctuation_and_articles_do_not_matter(sentence, data):
    written = []
    for word in sentence:
        article = data.draw(st.sampled_from(["", "a ", "An ", "the "]))
        change = data.draw(st.sampled_from([str.lower, str.upper, str.capitalize]))
        written.append(article + change(word) + data.draw(st.sampled_from(["", ",", "!", "...", ";"])))
    assert right(" ".join(written), " ".join(sentence)) and normalize(" ".join(written)) == " ".join(sentence)


@pytest.mark.parametrize("letter", sorted(UNUSUAL))
def test_a_letter_beyond_ascii_is_no_choice(letter):
    assert not right(letter, "A", ["red", "green"])
