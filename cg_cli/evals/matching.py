"""Whether an answer is the expected one: multiple choice by letter or by text, short answers by their words."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

ARTICLES = {"a", "an", "the"}
_LETTER = re.compile(
    r"\s*(?:the )?(?:final |correct |best )?(?:answer|option|choice)?(?: is)?[:\s]*[\*\(\[]*([A-Z])(?![A-Za-z'])",
    re.IGNORECASE | re.ASCII,
)
_ARTICLE = re.compile(r"\s*A [a-z]")  # "A dog barks" begins with no letter of a choice


def right(answer: str, expected: str, choices: Sequence[str] = ()) -> bool:
    """Whether ``answer`` gives ``expected``.

    Args:
        expected: the text of a choice, its letter (A is the first), or a short answer.
        choices: their texts, possibly with a letter in front ("B. red").
    """
    if not choices:
        return normalize(answer) == normalize(expected)
    texts = [normalize(_without_letter(choice, number)) for number, choice in enumerate(choices)]
    expected_index = _choice_index(expected, texts)
    return expected_index is not None and _choice_index(answer, texts) == expected_index


def normalize(text: str) -> str:
    """Lower case words without accents, punctuation and articles."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    words = re.sub(r"[^\w\s]", " ", plain).split()
    return " ".join(word for word in words if word not in ARTICLES or len(words) == 1)


def _choice_index(text: str, choices: list[str]) -> int | None:
    """The choice that ``text`` names: by all of its words, else by a letter at its beginning, else as the only one in
    it."""
    words = normalize(text)
    if words in choices:
        return choices.index(words)
    letter = _LETTER.match(text)
    if (
        letter
        and not _ARTICLE.match(text)
        and (number := string.ascii_uppercase.index(letter[1].upper())) < len(choices)
    ):
        return number
    mentions = lambda choice: choice and re.search(rf"\b{re.escape(choice)}\b", words)
    mentioned = [number for number, choice in enumerate(choices) if mentions(choice)]
    return mentioned[0] if len(mentioned) == 1 else None


def _without_letter(choice: str, number: int) -> str:
    return re.sub(rf"^\s*[\(\[]?{string.ascii_uppercase[number % 26]}[\)\].:]\s*", "", choice)
