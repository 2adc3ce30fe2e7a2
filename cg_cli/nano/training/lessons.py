"""How each world is taught: its labels, its evidence, and what a clip is asked in a step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from cg_cli.nano.questions import Question
from cg_cli.nano.training import ambience, auxiliary
from cg_cli.nano.training import evidence as things_evidence
from cg_cli.nano.worlds import AMBIENCE, THINGS, World

Heads = auxiliary.AuxiliaryHeads | ambience.AmbienceHeads


@dataclass(frozen=True)
class Lessons:
    """What the decoder learns from a clip of one world.

    Attributes:
        evidence: (script, question) to the parts of its answer, each with the tokens that show it.
        token_labels: script to the labels of each token, which ``heads`` learn.
        heads: of the width of a token; their ``loss`` takes (audio, video, late video, labels).
        per_category: questions of one category that a clip is asked in one step, 2 if not named here.
        video_alone: categories that a clip without audio still answers.
        audio_alone: phrases that audio alone answers.
    """

    world: World
    evidence: Callable[[Any, Question], list[tuple[str, Tensor]]]
    token_labels: Callable[[Any], dict[str, Tensor]]
    heads: Callable[[int], Heads]
    per_category: Mapping[str, int]
    video_alone: tuple[str, ...]
    audio_alone: tuple[str, ...]

    def choose(self, script: Any, parts: str, rng: np.random.Generator) -> list[Question]:
        """The questions of one clip for one step: at most ``per_category`` of each, and only what ``parts`` of the
        clip ("av", "v" or "a") can answer."""
        pool = list(self.world.questions(script))
        if parts == "v":
            pool = [q for q in pool if q.category in self.video_alone]
        if parts == "a":
            pool = [q for q in pool if q.phrase in self.audio_alone]
        count: dict[str, int] = defaultdict(int)
        out = []
        for i in rng.permutation(len(pool)):
            count[pool[i].category] += 1
            if count[pool[i].category] <= self.per_category.get(pool[i].category, 2):
                out.append(pool[i])
        return out


OF_THINGS = Lessons(
    THINGS, things_evidence.evidence, auxiliary.token_labels, auxiliary.AuxiliaryHeads,
    per_category={"order": 4},
    video_alone=("seen_kind", "silent", "brief", "digits"),
    audio_alone=("what_sound", "sounds", "first", "last", "first_of", "last_of"),
)  # fmt: skip
OF_AMBIENCE = Lessons(
    AMBIENCE, ambience.evidence, ambience.token_labels, ambience.AmbienceHeads,
    per_category={"silent_surface": 3, "object": 3, "on_heard": 3},
    video_alone=("silent_surface", "object", "digits", "count", "brief", "on_heard"),
    audio_alone=("what_sound", "beside"),
)  # fmt: skip
