"""What a text says of the options that it mentions: which it rules out, which it gives as its answer.

Works on a text in which every mention of an option is one character, its mark (``mark``), whether the mention was a
letter or the option's words.
"""

from __future__ import annotations

import re

COUNT = 26  # options that can have a mark
_PLAIN, _FIRM, _RULED_OUT = 0xE000, 0xE100, "\uf8ff"  # of the private use area, which no text needs
_MARKS = r"\ue000-\uf8ff"  # the area
PRIVATE = re.compile(f"[{_MARKS}]")
# Ranges are matched with case: without, they take long to compile.
_SCRIPTS = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
UNSPACED = rf"(?-i:[{_SCRIPTS}])"  # of a script that puts no space around a letter
WORD = rf"(?-i:[^\W{_SCRIPTS}])"  # of a word that ends at a space
MARK = r"(?-i:[\ue000-\ue019\ue100-\ue119])"


def _any(words: str) -> str:
    """A pattern of any of ``words``, parted by spaces; an underscore in one stands for white space."""
    return "(?:" + "|".join(word.replace("_", r"\s+") for word in words.split()) + ")"


# What may follow an option's letter, and never the article "a".
FOLLOWS = (
    _any(
        r"""and or nor but is was are were be seems? looks? appears? sounds? remains because since as for from to with
    of in on at by than over the this that which it he she they there if when while where does did has \w+n't
    cannot could would should (?:must|can|may|might|will)_be both instead rather matches fits fails
    contradicts describes states says mentions shows"""
    )
    + r"(?![-\w])"
)
_END = rf"(?=\s*(?:\Z|[^\w\s]|\n)|\s+{FOLLOWS}|{UNSPACED})"  # an option's letter ends a clause, or is its subject
_NOUN = r"\b(?:answer|option|choice|selection|pick|guess|conclusion|response|solution|verdict)\b"
_HEDGES = _any(
    r"""therefore thus hence then clearly definitely most more very likely probably certainly obviously indeed
    simply just surely again still actually now also only really quite"""
)
_TO = _any(  # between what announces an answer and the answer
    rf"""{_HEDGES} the an? my be option choice letter answer one in_fact i_think i_believe i'd_say i_would_say
    it_is it's that_is that's labell?ed marked number"""
)
_STEPS = rf"(?:[\s,:\"'(]{{0,4}}\b{_TO}\b){{0,8}}[\s,:\"'(]{{0,4}}"  # bounded, as all here: no text takes long

# Lists of options. "and" begins another clause where a predicate follows: "it is B and A is wrong".
_PREDICATE = r"(?:is|was|isn't|wasn't|seems?|looks?|appears?|does|doesn't|fits|matches)\b"
_OR = (
    r"\s*(?:,?\s*\b(?:and|or|nor)\b|[/&、和或及与])\s*"
    r"(?:\b(?:maybe|perhaps|possibly|probably|even|option|choice)\s+)?"
)
_COMMAS = rf"(?:\s*[,、]\s*{MARK}){{0,{COUNT}}}"
_LIST = rf"{MARK}(?:{_COMMAS}{_OR}{MARK}(?!\s+{_PREDICATE})){{0,3}}"
_MANY = rf"{MARK}{_COMMAS}(?:{_OR}{MARK}){{0,3}}"

# Negation in front: "not B", "isn't option B", "I don't think it is B", "rather than B", "neither A, B nor C".
_NOT = (
    r"(?:\b(?:not|never|cannot|neither|nor|rather\s+than|instead\s+of|other\s+than|unlike|except|excluding|than"
    r"|rul(?:e|es|ed|ing)\s+out|eliminat(?:e|es|ed|ing)|exclud(?:e|es|ed)|discard(?:s|ed|ing)?|reject(?:s|ed|ing)?"
    r"|(?:wrong|incorrect|false)(?:\s+(?:answer|option|choice|one)s?\b|(?=:)))\b|n't\b"
    r"|不是|并非|並非|不选|不選|不应选|不能选|而非|排除)"
)
_NOT_TO = _any(
    r"""the an? be being been is are was were it it's this that that's to as options? choices? answers? letters?
    necessarily likely really actually quite just simply possibly probably think believe say feel choose pick
    select go with for would could should correct right best either both"""
)
_NEGATED = re.compile(rf"{_NOT}(?:\s*\b{_NOT_TO}\b){{0,8}}[ \t:(]*(?:选项|選項|选择|選擇)?({_LIST})", re.IGNORECASE)
_NEITHER = re.compile(rf"\bneither\s+(?:option\s+|choice\s+)?({_MANY})", re.IGNORECASE)

# Negation behind: "B is wrong", "B does not fit", "A and C can be ruled out".
_BETWEEN = _any(
    rf"""{_HEDGES} is was are were seems? looks? appears? sounds? would can could must should will may might has
    have be been to both all does do did option choice an? the"""
)
_BAD = (
    r"\b(?:wrong|incorrect|false|inaccurate|unlikely|impossible|implausible|invalid|irrelevant|unsupported|ruled\s+out|out"
    r"|eliminated|excluded|discarded|rejected|contradict(?:s|ed)?|fails?)\b"
)
_DENIED = r"(?:\b(?:not|never|cannot|\w+n't)\b)"  # after a verb: "B, not A" and "B not A" deny A alone
_CHINESE_BAD = (
    r"\s*(?:选项|選項|项|項)?\s*(?:是|也|都|均|就)*(?:不对|不對|不正确|不正確|不是|不符|不可能|错|錯|有误|有誤)"
)
_BEHIND = rf"[)\]]*(?:\s*[-\u2013\u2014:(]\s*|\s*)(?:\b{_BETWEEN}\s+){{0,6}}"
_VERB_BEHIND = rf"[)\]]*\s+(?:(?:\b{_BETWEEN}\s+){{1,6}}|(?=cannot\b|\w+n't\b))"
_PLURAL = r"(?=[)\]]*\s+(?:are|were|aren't|weren't|do|don't|have|both|all|can|can't|cannot|could|must|should|would)\b)"


def _behind(said: str) -> tuple[re.Pattern[str], ...]:
    # A list goes as a whole with a plural; after "is", its first one belongs to what stands before it.
    return (
        re.compile(rf"(?<!\bis )(?<!: )({_MANY}){_PLURAL}(?:{said})", re.IGNORECASE),
        re.compile(rf"({MARK})(?:{said})", re.IGNORECASE),
        re.compile(rf"({_MANY}){_CHINESE_BAD}"),
    )


_LETTER_BEHIND = _behind(rf"{_BEHIND}{_BAD}|{_VERB_BEHIND}{_DENIED}")
# Of words only what is said of a choice: "the dog is not barking" says that there is a dog.
_WORDS_BEHIND = _behind(rf"{_BEHIND}{_BAD}|{_VERB_BEHIND}{_DENIED}\s+(?:the\s+)?(?:correct|right|best|answer)\b")

# Verdicts. The first kind names an answer, and holds for words as well.
_IS = r"(?:\b(?:is|was|be|equals)\b|'s\b|=>|->|[:=→⇒]|\n)"
_ANSWER_IS = re.compile(
    rf"{_NOUN}(?-i:[^.!?\n{_MARKS}]{{0,60}}?){_IS}{_STEPS}({_LIST})"
    rf"|答案(?-i:[^。!?\n{_MARKS}]{{0,20}}?)(?:是|为|為|选|選|:|\s)*(?:选项|選項)?\s*({_LIST})",
    re.IGNORECASE,
)
_VERDICTS = (
    _ANSWER_IS,
    re.compile(  # "I choose B"
        r"\b(?:choos(?:e|ing)|chose|pick(?:ed|ing)?|select(?:ed|ing)?|go(?:ing)?\s+(?:with|for)|opt(?:ing)?\s+for"
        r"|vote\s+for|settle\s+(?:on|for)|conclude|answer\s+with|answering|say|guess)\b(?:\s+that\b)?"
        rf"{_STEPS}({_LIST}){_END}|[选選](?![项項])(?:择|擇)?\s*:?\s*({_LIST})",
        re.IGNORECASE,
    ),
    re.compile(  # "it's B", "so B."
        r"(?:\b(?:it|this|that)(?:'s|\s+(?:is|was|(?:must|should|would|will|has\s+to|can\s+only|could\s+only)\s+be))\b"
        rf"|\b(?:therefore|thus|hence|so|i\s+think|i\s+believe)\b){_STEPS}({_LIST}){_END}",
        re.IGNORECASE,
    ),
    re.compile(  # "B is correct"
        rf"({_LIST}){_BEHIND}(?:\b(?:my|only)\s+|\b(?:best|final)\s+)*"
        r"\b(?:correct|right|best|true|accurate|answer|likely|plausible)\b"
        rf"|({_LIST})\s*(?:选项|選項|项|項)?\s*(?:是|为|為)?(?:正确|正確|对|對)",
        re.IGNORECASE,
    ),
)
_LINE = re.compile(rf"^[^\w\n{_MARKS}]*({MARK})[^\w\n{_MARKS}]*$", re.MULTILINE)

# Letters that answer where nothing says so: in brackets, at the beginning, or as a clause of their own.
_LEADS = _any(
    rf"""{_HEDGES} option choice answer letter is was be maybe perhaps possibly so yes no and or either both but
    with for say like leaves leaving guess think believe while whereas since because that than if as choose
    pick select conclude"""
)
_ANSWERING = re.compile(
    rf"(?-i:[\ue100-\ue119])|\A(?-i:[^\w{_MARKS}]*)(?:(?:the\s+)?(?:final\s+|correct\s+|best\s+)*{_NOUN}\s*)?{MARK}"
    rf"|\b(?:option|choice)\s+{MARK}|[选選][项項]\s*{MARK}"
    rf"|(?:\n|[^\w\s]|{UNSPACED}|\b{_LEADS}\b|'s\b)\s*{MARK}{_END}",
    re.IGNORECASE,
)


def mark(number: int, firm: bool = False) -> str:
    """The mark of option ``number``; a ``firm`` one stands for a letter in brackets, which is one in any sentence."""
    return chr((_FIRM if firm else _PLAIN) + number)


def options(text: str) -> set[int]:
    """Those with a mark in ``text``."""
    return {ord(found) & 0xFF for found in re.findall(MARK, text)}


def without_ruled_out(text: str, letters: bool) -> str:
    """``text`` without the marks of options that it rules out.

    Args:
        letters: whether marks stand for letters, and not for words.
    """
    for pattern in (_NEITHER, _NEGATED, *(_LETTER_BEHIND if letters else _WORDS_BEHIND)):
        text = pattern.sub(lambda found: found[0].replace(found[1], re.sub(MARK, _RULED_OUT, found[1]), 1), text)
    return text


def verdict(text: str, letters: bool) -> set[int]:
    """The options that the last verdict in ``text`` gives; none if there is no verdict. Other arguments as above."""
    found = [match for pattern in (_VERDICTS if letters else (_ANSWER_IS,)) for match in pattern.finditer(text)]
    ends = [(match.end(match.lastindex or 0), options(match[match.lastindex or 0])) for match in found]
    lines = list(_LINE.finditer(text)) if letters else []
    if len({options(line[1]).pop() for line in lines}) == 1:  # several are a list of what there is to choose from
        ends += [(line.end(1), options(line[1])) for line in lines]
    return max(ends, key=lambda pair: pair[0], default=(0, set()))[1]


def answers(text: str) -> bool:
    """Whether a letter in ``text`` stands where one answers, without a verdict."""
    return _ANSWERING.search(text) is not None
