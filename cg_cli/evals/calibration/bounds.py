"""Bounds on a risk, the mean loss of clips, that hold at a stated confidence for any distribution of losses.

A loss is in [0, 1], the clip is the unit, and clips are drawn independently; questions on one clip may depend on each
other in any way. Two bounds:

* ``BINOMIAL``, for losses of 0 or 1, as with one question a clip: exact (Clopper and Pearson 1934).
* ``HOEFFDING_BENTKUS``, for any: the smaller of two p-values (Bates et al. 2021, arXiv 2101.02703, section 3.1.2;
  Angelopoulos et al., Learn then Test, arXiv 2110.01052, section 2).

Which of them is chosen by the form of the questions, never by the losses that were seen.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Bound = Literal["binomial", "hoeffding-bentkus"]
BINOMIAL: Bound = "binomial"
HOEFFDING_BENTKUS: Bound = "hoeffding-bentkus"

STEPS = 60  # of a bisection: as exact as a float of this size
WHOLE = 1e-9  # sums of shares that miss a whole number by less are that number
MOST_CLIPS = 1 << 20  # more are not proposed to anybody


def p_value(loss: float, clips: int, risk: float, bound: Bound) -> float:
    """Of the hypothesis that the mean loss is above ``risk``: how likely so small a sum of losses is if that is true.

    Args:
        loss: the sum over ``clips``.
    """
    count = math.ceil(loss - WHOLE)
    tail = binomial_tail(count, clips, risk)
    if bound == BINOMIAL:
        return tail
    mean = min(loss / clips, risk)
    return min(1.0, math.exp(-clips * _divergence(mean, risk)), math.e * tail)


def upper_bound(loss: float, clips: int, confidence: float, bound: Bound) -> float:
    """The smallest risk that can be ruled out to be exceeded: the mean loss is at most this, with ``confidence``."""
    if loss >= clips - WHOLE:
        return 1.0
    low, high = loss / clips, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if p_value(loss, clips, middle, bound) <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high


def interval(loss: float, clips: int, bound: Bound, confidence: float = 0.95) -> tuple[float, float]:
    """A two-sided interval of the mean loss: an upper bound of it, and one of its complement."""
    one_sided = (1 + confidence) / 2
    return 1 - upper_bound(clips - loss, clips, one_sided, bound), upper_bound(loss, clips, one_sided, bound)


def allowed_loss(clips: int, risk: float, confidence: float, bound: Bound) -> float | None:
    """The largest sum of losses with which ``clips`` still certify ``risk``, a whole number for BINOMIAL; None where no
    loss at all would not do."""
    if p_value(0, clips, risk, bound) > 1 - confidence:
        return None
    passes = lambda loss: p_value(loss, clips, risk, bound) <= 1 - confidence
    low, high = 0.0, float(clips)
    while high - low > (1 if bound == BINOMIAL else 1e-6):
        middle = (low + high) // 2 if bound == BINOMIAL else (low + high) / 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def clips_needed(risk: float, confidence: float) -> int:
    """The fewest clips that can certify ``risk``, if not one answer changes; the same for both bounds."""
    return max(1, math.ceil(math.log(1 - confidence) / math.log(1 - risk) - WHOLE))


def clips_for(mean: float, risk: float, confidence: float, bound: Bound) -> int | None:
    """About how many clips certify ``risk`` if the mean loss among them is ``mean``; None if no number does."""
    passes = lambda clips: p_value(mean * clips, clips, risk, bound) <= 1 - confidence
    if mean >= risk:
        return None
    high = clips_needed(risk, confidence)
    while not passes(high):
        if (high := high * 2) > MOST_CLIPS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def binomial_tail(count: int, trials: int, chance: float) -> float:
    """The chance of at most ``count`` successes in ``trials``: the sum of its terms, each by its logarithm."""
    if count >= trials:
        return 1.0
    if not 0 < chance < 1:
        return float(chance <= 0)
    number = np.arange(count + 1)
    steps = np.log((trials - number[1:] + 1) / number[1:])  # from one binomial coefficient to the next
    terms = np.concatenate([[0.0], np.cumsum(steps)])
    terms += number * math.log(chance) + (trials - number) * math.log1p(-chance)
    return min(1.0, math.fsum(np.exp(terms)))


def _divergence(mean: float, risk: float) -> float:
    """Kullback-Leibler divergence between coins of chances ``mean`` and ``risk``."""
    if not 0 < risk < 1:
        return 0.0 if mean == risk else math.inf
    heads = mean * math.log(mean / risk) if mean else 0.0
    return heads + ((1 - mean) * math.log((1 - mean) / (1 - risk)) if mean < 1 else 0.0)
