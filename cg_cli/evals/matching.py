"""Whether an answer is the expected one: multiple choice by letter or by text, short answers by their words.

How a text is read that answers a multiple-choice question; the first of these that holds decides:

1. The whole text is a letter ("b", "(B).") or a choice, word by word.
2. It says what its answer is ("the answer is B", "it's B", "B is correct", "\\boxed{B}", "答案是B", a line with nothing
   but B): the last such verdict counts, by its letter or else by the words of a choice.
3. It has letters where one answers: at the beginning, in brackets, after "option", as a clause of their own.
4. It mentions one choice by its words.

Letters are capital ones or stand in brackets; a small one counts as a whole answer alone. Those beyond the number of
choices are none, and neither are the article in "A dog barks", the pronoun I, "X-ray", "D.C.", or a letter inside the
words of a choice ("vitamin C"). What a text rules out ("not B", "B is wrong", "rather than B") is never its answer. Of
two different ones, each in the same step, neither is: such a text cannot be read, nor can one without any of the four.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Sequence

from cg_cli.evals import verdicts
from cg_cli.evals.verdicts import FOLLOWS, PRIVATE, UNSPACED, WORD

VERSION = 1  # of the rule above; told with every score
ARTICLES = {"a", "an", "the"}

_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d„「」『』【】《》〈〉", '\'\'"""()()[]<><>')
_THOUGHT = re.compile(r"\A.*</think(?:ing)?>(?=.*\w)", re.DOTALL | re.IGNORECASE)
_TEX = re.compile(r"\\(?!boxed)(?:[a-zA-Z]+\s*(?=\{)|[()\[\]])|\$")
_BOXED = re.compile(r"\\boxed\s*\{[\s{]*([^{}]*)[\s}]*\}|<answer>([^<]*)</answer>", re.IGNORECASE)
_TAGS = re.compile(r"<(b|i|u|em|strong|p|code)>(.{0,200}?)</\1>", re.DOTALL | re.IGNORECASE)
_EMPHASIS = re.compile(r"[*`~]+|(?<![^\W_])_+|_+(?![^\W_])")

_WORD = re.compile(WORD)
_ONLY_LETTER = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
# What is around a letter of a choice, and not around that of "X-ray", "D.C.", "C#" or "20 °C".
_BEFORE = rf"(?<!{WORD})(?<!{WORD}['-])(?<![A-Za-z]\.)(?<!°)"
_AFTER = rf"(?!{WORD})(?![+#°])(?!['-]{WORD})(?!\.[A-Za-z](?!{WORD}))"
# After the capital "A" or "I": no noun, or no verb, begins.
_NO_ARTICLE = (
    rf"(?:(?=\s*\Z|[^\w\s]|[ \t]*\n|{UNSPACED}"
    rf"|\s+[^\w\s\"'(\[<]|\s+\([^)\n]*\)\s*(?:\Z|[.,;:\n])|\s+(?i:{FOLLOWS}))"
    r"|(?i:(?<=option A)|(?<=choice A)))"
)
_NO_PRONOUN = r"(?:(?=\s*\Z|[)\].:])|(?i:(?<=option I)|(?<=choice I)))"
_SMALL = re.compile(  # the whole of what is said to be the answer
    r"((?i:\banswer(?:\s+(?:is|was|would\s+be|should\s+be)\b|\s*[:=\n])|\b(?:option|choice)\b(?:\s+is\b)?)\s*[:=]?\s*)"
    r"([a-z])(?=\s*(?:\Z|[.;!?\n]))"
)
_LETTER = re.compile(
    rf"{_BEFORE}(?:\(\s*([A-Za-z])\s*\)|\[\s*([A-Za-z])\s*\]|\{{\s*([A-Za-z])\s*\}}|<\s*([A-Za-z])\s*>"
    rf"|\"\s*([A-Z])\s*\"|'\s*([A-Z])\s*')"
    rf"|{_BEFORE}([B-HJ-Z]|A(?={_AFTER}){_NO_ARTICLE}|I(?={_AFTER}){_NO_PRONOUN}){_AFTER}"
    rf"|^[^\w\n]*([a-z])(?=\)|[.:](?:\s|\Z))",
    re.MULTILINE,
)


def right(answer: str, expected: str, choices: Sequence[str] = ()) -> bool:
    """Whether ``answer`` gives ``expected``.

    Args:
        expected: the text of a choice, its letter (A is the first), or a short answer.
        choices: their texts, possibly with a letter in front ("B. red").
    """
    if not choices:
        return normalize(answer) == normalize(expected)
    expected_number = chosen(expected, choices)
    return expected_number is not None and chosen(answer, choices) == expected_number


def agree(answer: str, other: str, choices: Sequence[str] = ()) -> bool:
    """Whether two answers to one question say the same: they give the same of ``choices``, or have the same words as
    ``normalize`` has them. Two of which neither can be read agree by their words alone."""
    return normalize(answer) == normalize(other) or (bool(choices) and right(answer, other, choices))


def readable(answer: str, choices: Sequence[str] = ()) -> bool:
    """Whether ``answer`` gives one of ``choices``, right or wrong; without choices every answer can be read."""
    return not choices or chosen(answer, choices) is not None


def chosen(answer: str, choices: Sequence[str]) -> int | None:
    """The number of the choice that ``answer`` gives; None if it cannot be read. Other arguments as for ``right``."""
    texts = [_without_letter(choice, number) for number, choice in enumerate(choices)]
    phrases = [normalize(text) for text in texts]
    for whole, candidates in ((_bare(answer), list(map(_bare, texts))), (normalize(answer), phrases)):
        if whole and candidates.count(whole) == 1:
            return candidates.index(whole)
    count = min(len(choices), verdicts.COUNT)
    plain = _plain(answer)
    if only := _ONLY_LETTER.fullmatch(plain):
        number = string.ascii_uppercase.index(only[1].upper())
        return number if number < count else None
    letters = verdicts.without_ruled_out(_mark_letters(plain, phrases, count), letters=True)
    given = verdicts.verdict(letters, letters=True)
    if not given:
        words = verdicts.without_ruled_out(_mark_phrases(plain, phrases[:count]), letters=False)
        unsaid = letters if verdicts.answers(letters) else words
        given = verdicts.verdict(words, letters=False) or verdicts.options(unsaid)
    return given.pop() if len(given) == 1 else None


def normalize(text: str) -> str:
    """Lower case words without accents, punctuation and articles."""
    plain = _without_accents(text.casefold())
    words = re.sub(r"[^\w\s]", " ", plain).split()
    return " ".join(word for word in words if word not in ARTICLES or len(words) == 1)


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _bare(text: str) -> str:
    """For choices that differ in their signs alone: "5" and "-5"."""
    return " ".join(text.casefold().split())


def _without_letter(choice: str, number: int) -> str:
    if number >= verdicts.COUNT:
        return choice
    letter = string.ascii_uppercase[number]
    label = rf"\s*[(\[]?(?:{letter}[)\].:、]|{letter.lower()}(?:\)|[.:](?=\s)))(?![A-Za-z]\.)\s*"
    return re.sub(rf"\A{label}", "", unicodedata.normalize("NFKC", choice))


def _plain(text: str) -> str:
    """``text`` without markup, thoughts and accents, in the plain forms of its characters."""
    text = PRIVATE.sub(" ", unicodedata.normalize("NFKC", text).translate(_QUOTES))
    text = re.sub(r" ?\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text.strip()))
    text = _TEX.sub("", _THOUGHT.sub("", text))
    text = _TAGS.sub(r"\2", text)
    text = _BOXED.sub(lambda found: f"\nanswer: {found[1] or found[2] or ''}\n", text)
    text = _EMPHASIS.sub("", text)
    # A letter by itself keeps its accent: "É" is a word, not the fifth choice.
    return re.sub(r"[^\W\d_]{2,}", lambda word: unicodedata.normalize("NFKC", _without_accents(word[0])), text).strip()


def _mark_letters(text: str, phrases: Sequence[str], count: int) -> str:
    """``text`` with a mark for each letter of the first ``count`` choices."""
    for phrase in phrases:
        if re.search(r"\b[a-z]\b", phrase) and " " in phrase:  # "vitamin C", "both A and B"
            text = _replace(text, phrase, lambda found: re.sub(r"\b[A-Za-z]\b", "_", found[0]))
    text = _SMALL.sub(lambda found: found[1] + found[2].upper(), text)
    text = _LETTER.sub(lambda found: _mark_of(found, count), text)
    for number in verdicts.options(text):  # "B. red - wrong" is said of B
        if phrases[number]:
            own = rf"([{verdicts.mark(number)}{verdicts.mark(number, firm=True)}])[\s).:(\]-]+"
            text = _replace(text, phrases[number], lambda found: found[1], own)
    return text


def _mark_of(found: re.Match[str], count: int) -> str:
    group = found.lastindex or 0
    number = string.ascii_uppercase.index(found[group].upper())
    if number >= count:
        return found[0]
    return found[0][: found.start(group) - found.start()] * (group > 6) + verdicts.mark(number, firm=group < 7)


def _mark_phrases(text: str, phrases: Sequence[str]) -> str:
    """``text`` with a mark for each mention of a choice by its words, the longest first: "dark blue" is not "blue"."""
    for number, phrase in sorted(enumerate(phrases), key=lambda pair: -len(pair[1])):
        if phrase and phrases.count(phrase) == 1:
            mark = verdicts.mark(number)
            text = _replace(text, phrase, lambda _, mark=mark: mark)  # type: ignore[misc]
    return text


def _replace(text: str, phrase: str, by: Callable[[re.Match[str]], str], after: str = "") -> str:
    """``text`` with normalized words, which follow the pattern ``after``, replaced where they end as words do."""
    words = [re.escape(unicodedata.normalize("NFKC", word)) for word in phrase.split()]
    pattern = after + r"[\W_]+(?:(?:an?|the)[\W_]+)*".join(words)

    def replacement(found: re.Match[str]) -> str:
        around = text[max(found.start() - 1, 0) : found.start()] + text[found.end() : found.end() + 1]
        return found[0] if _WORD.search(around) else by(found)

    return re.sub(pattern, replacement, text, flags=re.IGNORECASE)
