"""The bounds of a calibration hold where the risk is known: as often as they say, however losses depend on each other
within a clip, and they are not so wide that nothing passes."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cg_cli.errors import UsageError
from cg_cli.evals.calibration import bounds
from cg_cli.evals.calibration.bounds import BINOMIAL, HOEFFDING_BENTKUS
from cg_cli.evals.calibration.ladder import Rung, default_keeps, ladders, passed

RISK, CONFIDENCE = 0.05, 0.9
LEVEL = 0.1
REPETITIONS = 2000
SLACK = 3 * math.sqrt(LEVEL * (1 - LEVEL) / REPETITIONS)  # of a share that is simulated so often
BOTH = [BINOMIAL, HOEFFDING_BENTKUS]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    "clips, risk, allowed",
    [(44, 0.05, None), (45, 0.05, 0), (50, 0.05, 0), (100, 0.05, 1), (200, 0.05, 5), (500, 0.05, 18), (1000, 0.05, 40),
     (100, 0.1, 5), (200, 0.1, 14), (500, 0.1, 40), (200, 0.02, 1), (500, 0.02, 5), (1000, 0.02, 13)],
)  # fmt: skip
def test_how_many_answers_may_change(clips, risk, allowed):
    assert bounds.allowed_loss(clips, risk, CONFIDENCE, BINOMIAL) == allowed
    assert (allowed is None) == (clips < bounds.clips_needed(risk, CONFIDENCE))


@given(st.integers(0, 60), st.integers(1, 60), st.fractions(Fraction(1, 500), Fraction(499, 500), max_denominator=500))
def test_the_tail_is_the_sum_of_its_terms(count, trials, chance):
    exact = sum(math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(min(count, trials) + 1))
    assert bounds.binomial_tail(count, trials, float(chance)) == pytest.approx(float(exact), rel=1e-9)


def test_the_tail_of_many_trials_does_not_underflow():
    assert bounds.binomial_tail(5000, 100_000, 0.05) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("bound", BOTH)
@given(clips=st.integers(1, 300), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.9, 0.99]))
def test_an_upper_bound_is_where_the_test_begins_to_pass(bound, clips, share, confidence):
    loss = round(share * clips) if bound == BINOMIAL else share * clips
    upper = bounds.upper_bound(loss, clips, confidence, bound)
    assert loss / clips <= upper <= 1
    if upper < 1 - 1e-6:
        assert bounds.p_value(loss, clips, upper + 1e-6, bound) <= 1 - confidence + 1e-12
        assert bounds.p_value(loss, clips, upper - 1e-6, bound) > 1 - confidence - 1e-6
    low, high = bounds.interval(loss, clips, bound)
    assert 0 <= low <= loss / clips + 1e-9 and high >= loss / clips - 1e-9


@pytest.mark.parametrize("bound", BOTH)
def test_none_and_all(bound):
    assert bounds.upper_bound(0, 45, 0.9, bound) == pytest.approx(1 - 0.1 ** (1 / 45))
    assert bounds.upper_bound(0, 1, 0.9, bound) == pytest.approx(0.9)
    assert bounds.upper_bound(1, 1, 0.9, bound) == bounds.upper_bound(45, 45, 0.9, bound) == 1
    assert bounds.p_value(45, 45, 0.99, bound) == 1
    assert bounds.clips_needed(0.9, 0.9) == 1


@given(st.floats(0, 0.2), st.sampled_from([0.02, 0.05, 0.2]), st.sampled_from(BOTH))
def test_so_many_clips_would_do(mean, risk, bound):
    clips = bounds.clips_for(mean, risk, CONFIDENCE, bound)
    if clips is not None:
        assert mean < risk and bounds.p_value(mean * clips, clips, risk, bound) <= 0.1 + 1e-9
    else:
        assert mean > 0.9 * risk


@pytest.mark.parametrize("clips", [45, 60, 150])
def test_the_exact_bound_misses_no_more_often_than_it_says(clips):
    """Over all outcomes, each with its probability, for risks on both sides of every step."""
    uppers = np.array([bounds.upper_bound(k, clips, CONFIDENCE, BINOMIAL) for k in range(clips + 1)])
    k = np.arange(clips + 1)
    logs = np.array([math.lgamma(clips + 1) - math.lgamma(i + 1) - math.lgamma(clips - i + 1) for i in k])
    worst = 0.0
    for risk in np.concatenate([uppers[:30] * (1 + 1e-9), np.linspace(0.003, 0.6, 100)]):
        chances = np.exp(logs + k * np.log(risk) + (clips - k) * np.log1p(-risk))
        worst = max(worst, chances[uppers < risk].sum())
    assert 0.99 * LEVEL < worst <= LEVEL + 1e-9


def certified_rungs(losses: np.ndarray, bound: str, level: float = LEVEL) -> np.ndarray:
    """How many rungs pass in each repetition; ``losses`` [repetitions, clips, rungs]."""
    clips = losses.shape[1]
    most = bounds.allowed_loss(clips, RISK, 1 - level, bound)
    fits = losses.sum(1) <= most + 1e-6
    number = np.cumprod(fits, axis=1).sum(1)
    for row in range(0, len(losses), len(losses) // 5):  # the shortcut is the rule
        assert number[row] == passed(list(losses[row].sum(0)), clips, RISK, level, bound)
    return number


def too_high(number: np.ndarray, risks: np.ndarray) -> float:
    """The share of repetitions in which a certified rung has a risk above RISK."""
    return float(np.mean([count > 0 and risks[:count].max() > RISK for count in number]))


@pytest.mark.parametrize(
    "risks",
    [(0.0505, 0.1, 0.2, 0.3), (0.01, 0.02, 0.0505, 0.2), (0.0, 0.03, 0.0505, 0.0505), (0.02, 0.0505, 0.01, 0.3)],
    ids=["at the first", "in the middle", "ties", "not in order"],
)
@pytest.mark.parametrize("clips", [60, 300])
def test_a_ladder_certifies_too_much_no_more_often_than_it_says(rng, risks, clips):
    luck = rng.random((REPETITIONS, clips, 1))  # a hard clip is hard at every rung
    number = certified_rungs((luck < np.array(risks)).astype(float), BINOMIAL)
    wrong = too_high(number, np.array(risks))
    assert wrong <= LEVEL + SLACK
    assert risks[0] > RISK or wrong > 0  # or it would never have been tried


def test_it_is_not_certified_only_where_there_is_no_need_to(rng):
    """The power: at a risk well under the one asked for, most calibrations pass."""
    risks = np.array([0.005, 0.02, 0.03, 0.1])
    number = certified_rungs((rng.random((REPETITIONS, 300, 1)) < risks).astype(float), BINOMIAL)
    shares = [(number >= rung).mean() for rung in (1, 2, 3, 4)]
    assert shares[0] > 0.99 and shares[1] > 0.85 and shares[2] > 0.4 and shares[3] < 0.001


def test_questions_on_one_clip_may_depend_on_each_other(rng):
    """The answers of a clip change all together, or each by itself: what counts is the clip."""
    clips, questions, risk = 200, 5, 0.051
    together = (rng.random((REPETITIONS, clips, 1)) < risk).astype(float)
    apart = rng.binomial(questions, risk, (REPETITIONS, clips, 1)) / questions
    for losses in (together, apart):
        assert (certified_rungs(losses, HOEFFDING_BENTKUS) > 0).mean() <= LEVEL + SLACK
    # Who counts questions instead is wrong far too often.
    most = bounds.allowed_loss(clips * questions, RISK, CONFIDENCE, BINOMIAL)
    assert (together.sum(1) * questions <= most).mean() > 2 * LEVEL
    easy = rng.binomial(questions, 0.015, (REPETITIONS, clips, 1)) / questions
    assert (certified_rungs(easy, HOEFFDING_BENTKUS) > 0).mean() > 0.8


def test_several_pruners_share_what_may_go_wrong(rng):
    losses = (rng.random((REPETITIONS, 300, 4)) < 0.0505).astype(float)
    any_of = lambda level: np.mean(
        np.any([certified_rungs(losses[:, :, [p]], BINOMIAL, level) > 0 for p in range(4)], 0)
    )
    assert any_of(LEVEL / 4) <= LEVEL + SLACK < any_of(LEVEL)


def test_the_ladder():
    assert default_keeps() == [0.65, 0.45, 0.25, 0.1]
    assert ladders("random, evs", ".1,0.5,.1") == [
        [Rung("random", 0.5), Rung("random", 0.1)],
        [Rung("evs", 0.5), Rung("evs", 0.1)],
    ]


@pytest.mark.parametrize(
    "pruners, keeps, reason",
    [("contextgard", None, "contextguard"), ("none", None, "keeps everything"), ("random", "1,.5", "not 1"),
     ("random", "half", "no number"), ("random", "0", "above 0"), ("random", "nan", "above 0")],
)  # fmt: skip
def test_no_ladder(pruners, keeps, reason):
    with pytest.raises(UsageError, match=reason):
        ladders(pruners, keeps)
