"""From answers to a verdict: the loss of every clip at every rung, how far down the ladders the tests go, and what
would help where they do not go far enough."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cg_cli.evals import matching, stats
from cg_cli.evals.calibration import bounds
from cg_cli.evals.calibration.bounds import Bound
from cg_cli.evals.calibration.clips import Sample
from cg_cli.evals.calibration.ladder import Rung, passed


@dataclass(frozen=True)
class Asked:
    """A clip with its answers.

    Attributes:
        whole, again: of the whole clip, and of the whole clip in another batch.
        pruned: by rung; None where that failed, which counts as if every answer had changed.
        seconds: from the file to the answers, by rung, and of the whole under None; only of what was measured.
    """

    sample: Sample
    whole: Sequence[str]
    again: Sequence[str]
    pruned: Mapping[Rung, Sequence[str] | None]
    seconds: Mapping[Rung | None, float]


@dataclass(frozen=True)
class Figures:
    """Of one rung: how many answers ``changed``, the summed ``loss`` of clips, the ``bound`` on its mean that holds
    with the stated confidence, and whether it is certified."""

    rung: Rung
    changed: int
    loss: float
    bound: float
    certified: bool
    latency: float | None
    accuracy: dict[str, Any] | None


def losses(whole: Sequence[Sequence[str]], other: Sequence[Sequence[str] | None], clips: Sequence[Sample]) -> list[int]:
    """How many answers of each clip changed."""
    return [
        len(sample.questions)
        if answers is None
        else sum(not matching.agree(a, b, q.choices) for a, b, q in zip(before, answers, sample.questions, strict=True))
        for before, answers, sample in zip(whole, other, clips, strict=True)
    ]


def total(changed: Sequence[int], clips: Sequence[Sample]) -> float:
    """The sum of losses: of each clip, the share of its questions whose answer changed."""
    return float(sum(count / len(sample.questions) for count, sample in zip(changed, clips, strict=True)))


def figures(
    clips: Sequence[Asked], ladders: Sequence[Sequence[Rung]], risk: float, level: float, bound: Bound
) -> list[Figures]:
    """Every rung of every ladder, tested at ``level`` from the largest keep down."""
    samples = [asked.sample for asked in clips]
    whole = [asked.whole for asked in clips]
    out = []
    for ladder in ladders:
        changed = [losses(whole, [asked.pruned[rung] for asked in clips], samples) for rung in ladder]
        sums = [total(each, samples) for each in changed]
        certified = passed(sums, len(clips), risk, level, bound)
        out += [
            Figures(
                rung=rung,
                changed=sum(changed[number]),
                loss=sums[number],
                bound=bounds.upper_bound(sums[number], len(clips), 1 - level, bound),
                certified=number < certified,
                latency=_latency(clips, rung),
                accuracy=_accuracy(clips, rung),
            )
            for number, rung in enumerate(ladder)
        ]
    return out


def best(rungs: Sequence[Figures]) -> Figures | None:
    """The certified rung with the smallest keep, the first of several; None if none is."""
    return min((each for each in rungs if each.certified), key=lambda each: each.rung.keep, default=None)


def remedy(first: Figures, clips: int, risk: float, level: float, bound: Bound) -> str:
    """What would certify the first rung of a ladder that failed, in words.

    Args:
        first: its figures; the mean loss of other clips is taken to be that of these.
    """
    mean = first.loss / clips
    more = bounds.clips_for(mean, risk, 1 - level, bound)
    allowed = f"{first.bound + 0.0005:.3f}"  # not below the bound
    ways = [
        f"about {more:,} clips, if the same share changes" if more else "",
        f"--risk {allowed}" if float(allowed) < 1 else "",
        f"ratios above {first.rung.keep:g}",
    ]
    return f"{', or '.join(filter(None, ways))}; on clips that are all new"


def _latency(clips: Sequence[Asked], rung: Rung) -> float | None:
    """The median clip's time from its file to the answers, against that of the whole clip."""
    ratios = [
        asked.seconds[rung] / asked.seconds[None]
        for asked in clips
        if asked.seconds.get(None) and asked.seconds.get(rung) is not None
    ]
    return statistics.median(ratios) if ratios else None


def _accuracy(clips: Sequence[Asked], rung: Rung) -> dict[str, Any] | None:
    """The share of right answers to labelled questions, of the whole clip and at ``rung``, and their difference with
    its 95 % interval; None without labels."""
    rows = []
    for number, asked in enumerate(clips):
        pruned = asked.pruned[rung] or [""] * len(asked.whole)
        for question, before, after in zip(asked.sample.questions, asked.whole, pruned, strict=True):
            if question.expected is not None:
                hits = [matching.right(text, question.expected, question.choices) for text in (before, after)]
                rows.append((number, *hits))
    if not rows:
        return None
    clip, before, after = np.array(rows, float).T
    _, clip = np.unique(clip, return_inverse=True)
    low, high = stats.interval(after - before, clip)
    gap = {"gap": float((before - after).mean()), "interval": [0.0 - high, 0.0 - low]}
    return {"questions": len(rows), "whole": float(before.mean()), "pruned": float(after.mean()), **gap}
