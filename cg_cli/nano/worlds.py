"""The worlds that nano knows, each by its name: what writes a clip's script, shows it, sounds it, and asks about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cg_cli.nano import questions, render, script, still
from cg_cli.nano.ambience import questions as ambience_questions
from cg_cli.nano.ambience import render as ambience_render
from cg_cli.nano.ambience import script as ambience_script
from cg_cli.nano.questions import Question

Script = script.Script | ambience_script.Script


@dataclass(frozen=True)
class World:
    """A generator of clips. Its functions take its own scripts, which have a seed, an index, a duration and scenes.

    Attributes:
        seconds: of its shortest and longest clip.
        write_script: (seed, index, longest) to the script of a clip.
        picture: (script, seconds) to a frame, [FRAME, FRAME, 3] uint8.
        soundtrack: script to the audio, float32 mono.
        questions: script to every question that the clip answers.
        categories: of the questions.
    """

    name: str
    seconds: tuple[int, int]
    write_script: Callable[[int, int, int], Any]
    picture: Callable[[Any, float], np.ndarray]
    soundtrack: Callable[[Any], np.ndarray]
    questions: Callable[[Any], Sequence[Question]]
    categories: tuple[str, ...]


THINGS = World(
    "things", script.SECONDS, script.write_script, render.picture, render.soundtrack,
    questions.questions, questions.CATEGORIES,
)  # fmt: skip
SLIDES = replace(THINGS, name="slides", picture=still.slides)
FROZEN = replace(THINGS, name="frozen", picture=still.frozen)
AMBIENCE = World(
    "ambience", ambience_script.SECONDS, ambience_script.write_script, ambience_render.picture,
    ambience_render.soundtrack, ambience_questions.questions, ambience_questions.CATEGORIES,
)  # fmt: skip
WORLDS = {world.name: world for world in (THINGS, SLIDES, FROZEN, AMBIENCE)}
CATEGORIES = tuple(dict.fromkeys(category for world in WORLDS.values() for category in world.categories))
