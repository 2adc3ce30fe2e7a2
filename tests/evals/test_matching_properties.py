"""Answer matching, for any text."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cg_cli.evals.matching import chosen, normalize, right

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


# Verdicts, which no text around them may change. Choices are words that stand in none of these.
CHOICES = ["zebra", "old piano", "quiet river", "umbrella", "violin", "candle"]
LETTERS = string.ascii_uppercase[: len(CHOICES)]
VERDICTS = [
    *(
        "The answer is {}",
        "the correct answer is ({})",
        "Answer: {}",
        "ANSWER IS ({})",
        "Final answer: **{}**",
        "It's {}",
    ),
    *(
        "I think the answer is {}",
        "So the answer is {}",
        "I would choose {}",
        "I'll go with option {}",
        "It must be {}",
    ),
    *(
        "{} is correct",
        "Option {} is the right one",
        "I believe {} is the best answer",
        "Therefore, {}",
        "The answer is\n{}",
    ),
    *(
        "<answer>{}</answer>",
        "\\boxed{{{}}}",
        "$\\boxed{{\\text{{{}}}}}$",
        "The best option would be {}",
        "答案是{}",
        "我选{}",
    ),
]
SHORT = [
    "{}",
    "({})",
    "[{}]",
    "<{}>",
    "{}.",
    "{})",
    "Option {}",
    "{}. {text}",
    "{}) {text}",
    "({}) {text}",
    "{}: {text}",
]
RULED_OUT = [
    *("Not {}.", "{} is wrong.", "It isn't {}.", "{} does not fit.", "{} can be ruled out.", "I don't think it is {}."),
    *("Option {} is incorrect.", "({}) is not right.", "The answer is not {}.", "{} contradicts the video."),
]
BEHIND = [
    ", not {}",
    " rather than {}",
    ", instead of {}",
    "; {} is wrong",
    " ({} is incorrect)",
    ", since {} doesn't fit",
]
PROSE = [
    "a dog", "the", "dog", "man", "woman", "barking", "plays", "walks", "in", "on", "near", "room", "street",
    "while", "quickly", "loud", "music", "guitar", "first", "then", "two", "three", "begins", "ends", "camera",
    "because", "sound", "it", "shows", "red", "and", "is", "but", "of", "with", "at", "his", "her", "sings",
    "stands", "answer", "question",
]  # fmt: skip
letters = st.sampled_from(LETTERS)


@properties
@given(st.sampled_from([*VERDICTS, *SHORT]), letters, st.booleans())
def test_a_verdict_gives_its_letter(template, letter, labelled):
    number = LETTERS.index(letter)
    choices = [f"{mark}. {text}" for mark, text in zip(LETTERS, CHOICES)] if labelled else CHOICES
    assert chosen(template.format(letter, text=CHOICES[number]), choices) == number


@st.composite
def prose(draw):
    """Sentences without verdicts, that begin with an article, a pronoun or any word."""
    sentences = []
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.sampled_from(["A dog", "A man", "I hear", "I see a", "The", "An old", "Music"]))
        rest = draw(st.lists(st.sampled_from(PROSE), max_size=8))
        sentences.append(" ".join([begin, *rest]) + draw(st.sampled_from([".", "!", ",", "...", ""])))
    return " ".join(sentences)


@properties
@given(prose(), st.sampled_from([str, str.upper]))
def test_prose_gives_no_letter(text, case):
    assert chosen(case(text), CHOICES) is None


@properties
@given(prose(), st.sampled_from(VERDICTS), letters)
def test_a_verdict_after_prose_gives_its_letter(text, template, letter):
    assert chosen(f"{text}\n{template.format(letter)}", CHOICES) == LETTERS.index(letter)


@properties
@given(st.sampled_from(VERDICTS), letters, letters, st.data())
def test_what_is_ruled_out_changes_no_verdict(template, letter, other, data):
    text, number = template.format(letter), LETTERS.index(letter)
    if letter == other:
        return
    before, after = (data.draw(st.sampled_from(RULED_OUT)).format(other) for _ in range(2))
    assert chosen(f"{before} {text}", CHOICES) == number
    assert chosen(f"{text}. {after}", CHOICES) == number
    assert chosen(text + data.draw(st.sampled_from(BEHIND)).format(other), CHOICES) == number


@properties
@given(st.sampled_from(RULED_OUT), letters)
def test_what_is_ruled_out_is_never_given(template, letter):
    assert chosen(template.format(letter), CHOICES) is None


@properties
@given(st.sampled_from(VERDICTS), letters, st.sampled_from(VERDICTS), letters)
def test_the_last_verdict_counts(first, before, second, letter):
    assert chosen(f"{first.format(before)}. No. {second.format(letter)}", CHOICES) == LETTERS.index(letter)


@properties
@given(letters, letters, st.sampled_from(["{} or {}", "{}, {}", "{} and {}", "The answer is {} or {}", "({}) ({})"]))
def test_of_two_letters_neither_is_given(one, other, template):
    assert one == other or chosen(template.format(one, other), CHOICES) is None


@properties
@given(st.one_of(prose(), st.tuples(st.sampled_from([*VERDICTS, *SHORT]), letters)), st.data())
def test_space_punctuation_and_emphasis_around_a_text_do_not_matter(text, data):
    if isinstance(text, tuple):
        template, letter = text
        text = template.format(letter, text=CHOICES[LETTERS.index(letter)])
    space = data.draw(st.sampled_from(["", " ", "\n", "\t\n ", "\u3000"]))
    emphasis = data.draw(st.sampled_from(["", "*", "**", "_", "__", "`", "***"]))
    end = data.draw(st.sampled_from(["", ".", "!", "...", "。", " ."]))
    assert chosen(f"{space}{emphasis}{text}{end}{emphasis}{space}", CHOICES) == chosen(text, CHOICES)


@properties
@given(st.sampled_from([*VERDICTS, *SHORT]), letters)
def test_full_width_letters_are_letters(template, letter):
    number = LETTERS.index(letter)
    wide = chr(ord(letter) + 0xFEE0)
    assert chosen(template.format(wide, text=CHOICES[number]), CHOICES) == number
