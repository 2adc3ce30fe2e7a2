"""Films of several nano clips one after another, and the questions that have one right answer over the whole film.

In one clip a kind occurs in one scene only; in a film it may come again. So of the questions of ``questions`` those are
asked that name kinds of one scene of the film, or that need no kind and ask for what the film has once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from cg_cli.nano.questions import Question, questions
from cg_cli.nano.script import Number, Scene, Script, Sound, Thing

Item = TypeVar("Item", Thing, Number, Sound, Scene)

# What a question without a kind in it asks for. A count of sounds and a sentence of all scenes go beyond what nano was
# taught: three sounds and three scenes.
_UNTAUGHT = frozenset({"sounds", "sentence"})


def join(scripts: Sequence[Script], index: int) -> Script:
    """Film ``index``: the scenes of ``scripts``, at least one and of one seed, one after another, in the hiss of the
    first."""
    scenes, start = [], 0
    for script in scripts:
        scenes += [_later(scene, start) for scene in script.scenes]
        start += script.duration
    return Script(scripts[0].seed, index, start, scripts[0].noise, tuple(scenes))


def _later(scene: Scene, seconds: float) -> Scene:
    """``scene``, that many seconds later."""

    def later(item: Item) -> Item:
        return replace(item, start=item.start + seconds, end=item.end + seconds)

    moving = lambda thing: thing.active and (thing.active[0] + seconds, thing.active[1] + seconds)
    return replace(
        later(scene),
        things=tuple(replace(later(thing), active=moving(thing)) for thing in scene.things),
        sound=scene.sound and later(scene.sound),
        number=scene.number and later(scene.number),
    )


def film_questions(film: Script) -> list[Question]:
    """Every question that the film answers, with one right answer over all of its scenes."""
    scenes_of = Counter(kind for scene in film.scenes for kind in _kinds(scene))
    once = {
        "brief": sum(scene.brief is not None for scene in film.scenes) == 1,
        "digits": sum(scene.number is not None for scene in film.scenes) == 1,
        # A sound that is dubbed over something else is heard and not seen, too.
        "off_screen": sum(scene.event in ("off_screen", "dubbed") for scene in film.scenes) == 1,
    }

    def unique(question: Question) -> bool:
        named = [text for _, text in question.fills if text in scenes_of]
        answers = [question.answer] if question.category == "off_screen" else []
        return once.get(question.category, True) and all(scenes_of[kind] == 1 for kind in (*named, *answers))

    return [question for question in questions(film) if question.phrase not in _UNTAUGHT and unique(question)]


def _kinds(scene: Scene) -> set[str]:
    return {thing.kind for thing in scene.things} | ({scene.sound.kind} if scene.sound else set())
