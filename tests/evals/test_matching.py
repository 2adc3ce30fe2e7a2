"""What counts as right, and which choice a text gives."""

# ruff: noqa: RUF001

from __future__ import annotations

import time

import pytest

from cg_cli.evals.matching import chosen, readable, right

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


BY_LETTER = {
    "B": [
        *("B", "b", "b.", "(b)", "[B]", "<B>", "<b>", '"B"', "B:", "B!", "- B", "> B", "# B", "_B_", "`B`", "B</s>"),
        *(
            "Ｂ",
            "（Ｂ）",
            "Ⓑ",
            "答案是B",
            "答案：（B）",
            "正确答案：Ｂ",
            "选B",
            "应该选B",
            "我选择B，而不是C",
            "B是正确的",
            "B选项",
        ),
        *("答案不是A，而是B", "不是A，是B", "选项A错误，选项B正确", "选A还是选C？答案是B。"),
        *(
            "B) red",
            "B. dark blue",
            "B - dark blue",
            "B (dark blue)",
            "b) dark blue",
            "Option B",
            "choice b",
            "The letter B",
        ),
        *("Answer: B", "**Answer:** B", "Answer - B", "### Final Answer: B ###", "Final Answer\n\nB", "Answer:\n- B"),
        *("ANSWER IS (B)", "<answer>B</answer>", "\\boxed{B}", "$\\boxed{\\text{(B)}}$", "\\boxed{B. dark blue}"),
        *('{"answer": "B"}', "the answer is b", "Answer: b. dark blue", "The answer is: B", "The answer is option B"),
        *(
            "I think the answer is B",
            "It's B",
            "It must be B",
            "So B.",
            "Therefore, B.",
            "Probably B.",
            "Looks like B to me",
        ),
        *("I would go with B", "I'd say B", "My choice would be B", "B is correct", "B seems right", "B is the answer"),
        "So, the answer to the question about what is red is B",
        "Reasoning about it.\n\nSo the answer is B.",
        "<think>maybe A or C</think>B",
        "Among the options, B is the most accurate description.",
    ],
    "A": [
        "A",
        "A.",
        "A, because",
        "A - red",
        "A (red)",
        "A because it fits",
        "the answer is a",
        "It's A",
        "A is correct",
    ],
}


@pytest.mark.parametrize("letter, answer", [(letter, text) for letter, texts in BY_LETTER.items() for text in texts])
def test_the_letter_of_a_choice(letter, answer):
    assert chosen(answer, COLOURS) == "ABCD".index(letter)


@pytest.mark.parametrize(
    "answer",
    [
        *("Not A, it is B", "not A, B", "B, not A", "B (not A)", "B not A", "B but not A", "B rather than A"),
        *(
            "instead of A, B",
            "I choose B over A",
            "B is more likely than A",
            "neither A nor C, but B",
            "Not A or C. B.",
        ),
        *(
            "A is wrong. B is correct.",
            "A isn't right and B is the answer",
            "A doesn't fit. B",
            "It can't be A. It's B.",
        ),
        *("A and C can be ruled out, so B", "A, C and D are wrong, so it's B", "Eliminating A and C leaves B"),
        *("A fails, C contradicts the video, hence B", "Wrong answers: A and C. B.", "B, since A, C and D do not fit."),
        *("The answer is B, A is wrong.", "The answer is B and A is wrong.", "The answer is not A but B"),
        *("I don't think it is A. B is right", "The answer isn't A; it's B.", "B, as neither A, C nor D fits"),
        "A: wrong\nB: right\nC: wrong",
        "A. red - incorrect\nB. dark blue - correct\nC. green - incorrect",
    ],
)
def test_what_is_ruled_out_is_no_answer(answer):
    assert chosen(answer, COLOURS) == 1


@pytest.mark.parametrize(
    "answer",
    [
        *("The answer is A. Wait, no, the answer is B.", "I initially thought A, but the answer is B"),
        *(
            "Is it A? No, the answer is B",
            "If A were right the dog would bark. Hence B.",
            "A. red. No: the answer is B.",
        ),
        "Let me see. A shows red. C is green.\n\nB",
        "B\n\nA shows red while C shows green.",
        "B. dark blue\nA is the car",
        "A. red\nB. dark blue\nC. green\nAnswer: B",
        "The answer is dark blue, and neither red nor green.",
        "It could be red, but the answer is dark blue",
    ],
)
def test_the_last_verdict_counts(answer):
    assert chosen(answer, COLOURS) == 1


@pytest.mark.parametrize(
    "answer",
    [
        *("a dog is barking", "A dog is barking", "I hear a dog", "A DOG IS BARKING", "It is A dog", "A can of beans"),
        *("The man takes vitamin C", "An X-ray", "a B-flat", "D'Artagnan", "Bär", "É vermelho", "A U.S. flag"),
        *("Washington D.C.", "He walks from A to B", "A so-called expert", "Before", "...", "", "I", "Not sure"),
        *("E", "The answer is E", "Option F"),  # of four choices
        *("A or B", "A, C", "The answer is A or maybe B", "A, B and C are correct", "Answer with A, B, C or D."),
        *("A. red B. dark blue C. green", "A\nB\nC", "Of A and B, B is better", "Not sure if it is B or C"),
        *(
            "not B",
            "isn't B",
            "B is wrong",
            "The wrong answer is B",
            "I don't think the answer is B",
            "neither A nor B",
        ),
        *("red or green", "It's not red", "red is wrong", "不是B", "B不对"),
    ],
)
def test_what_gives_no_choice(answer):
    assert chosen(answer, COLOURS) is None and not readable(answer, COLOURS) and readable(answer)


VITAMINS = ["vitamin C", "vitamin D", "both A and B", "none of the above"]


@pytest.mark.parametrize(
    "choices, answer, number",
    [
        (VITAMINS, "vitamin C", 0),  # no letter of another choice
        (VITAMINS, "The answer is vitamin C.", 0),
        (VITAMINS, "A. vitamin C", 0),
        (VITAMINS, "C", 2),
        (VITAMINS, "The answer is both A and B", 2),
        (VITAMINS, "C. both A and B", 2),
        (["yes", "no"], "No, it isn't", 1),
        (["yes", "no"], "Yes, it does not move", 0),
        (["left", "right"], "the right answer is A", 0),
        (["left", "right"], "A is right", 0),
        (["left", "right"], "It goes right", 1),
        (["blue", "dark blue"], "it's dark blue", 1),
        (COLOURS, "not red, green", 2),
        (COLOURS, "a car that is not moving", 3),
        (COLOURS, "B. red", 1),  # its letter before the words of another
        (["5", "-5"], "-5", 1),
        (["C++", "C#", "Java"], "C#", 1),
        (["red", "red"], "red", None),
        (["B", "A"], "A", 1),  # letters as texts
        (["a.m.", "p.m."], "a.m.", 0),
        (["A. once", "B. twice", "C. "], "", None),  # a blank choice is not chosen by silence
        (["A. once", "B. twice", "C. "], "C", 2),
        (["Café", "Bar"], "It is a cafe", 0),
        (["红色", "蓝色"], "答案是蓝色", 1),
        (["Ａ．红色", "Ｂ．蓝色"], "B、蓝色", 1),
        (["빨강", "파랑"], "답은 파랑입니다", 1),
    ],
)
def test_the_words_of_a_choice(choices, answer, number):
    assert chosen(answer, choices) == number


@pytest.mark.parametrize("answer", ["I", "i", "(I)", "The answer is I.", "option I", "I. word"])
def test_the_ninth_choice_and_the_pronoun(answer):
    choices = [f"word{number}" for number in range(12)]
    assert chosen(answer, choices) == 8
    assert chosen("I think it is a cat", choices) is None and chosen("I think the answer is J", choices) == 9


@pytest.mark.parametrize(
    "part",
    ["A, ", "A and ", "answer ", "not the ", "answer is the ", "A is ", "<answer>", "<b>", "n't ", "\n", " ", "*_"],
)
def test_no_text_takes_long(part):
    started = time.perf_counter()
    chosen("x" + part * (20_000 // len(part)) + "x", COLOURS)
    assert time.perf_counter() - started < 5
