"""Questions about an ambience clip and their answers. All of it follows from the script.

A question is asked only where the clip has exactly one right answer. What stands on a surface whose scene is a control
is asked about in the category of that control.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from cg_cli.nano import questions as things_questions
from cg_cli.nano.ambience.script import Band, Scene, Script
from cg_cli.nano.ambience.surfaces import HEARD, SILENT_SURFACES
from cg_cli.nano.questions import Moment
from cg_cli.nano.script import Number, Sound, Thing
from cg_cli.nano.things import COLOURS, COUNTS, SILENT

CONTROLS = ("mute", "dubbed", "two_heard", "late")
CATEGORIES = ("silent_surface", "object", "digits", "count", "brief", "on_heard", "heard", *CONTROLS)
# The control that a scene's event is; the others are none.
CONTROL_OF = {"mute": "mute", "dubbed": "dubbed", "late": "late"}
MIN_TOGETHER_S = 1.0  # things are counted that show at one time for so long

PHRASES = {
    "surface_with": (
        "Which silent surface is seen beside the {a}?",
        "What is the silent surface beside the {a}?",
        "Which silent surface do you see with the {a}?",
    ),
    "surface_under": (
        "Which surface is the {b} {a} on?",
        "What is the {b} {a} on?",
        "On which surface do you see the {b} {a}?",
    ),
    "colour_on": (
        "What colour is the {a} on the {b}?",
        "What is the colour of the {a} on the {b}?",
        "Which colour has the {a} on the {b}?",
    ),
    "kind_on": (
        "Which thing on the {b} is {c}?",
        "What do you see on the {b} that is {c}?",
        "Which {c} thing is on the {b}?",
    ),
    "number": things_questions.PHRASES["number"],
    "number_in": ("Which number is written in {c}?", "Which {c} number do you see?", "What does the {c} writing say?"),
    "count": ("How many {a}s are there?", "How many {a}s do you see?"),
    "brief_kind": things_questions.PHRASES["brief_kind"],
    "brief_colour": things_questions.PHRASES["brief_colour"],
    "brief_on": (
        "What appears only for a moment on the {b}?",
        "Which thing on the {b} is seen only briefly?",
        "What shows up on the {b} for just a second?",
    ),
    "what_sound": ("What do you hear?", "What can be heard?", "Which sound is heard?"),
    "sound_with": (
        "What do you hear while you see the {a}?",
        "Which sound is heard with the {a} in the picture?",
        "You see the {a}. What do you hear?",
    ),
    "without_sound": (
        "Which surface has lost its sound?",
        "Which surface should be heard but is not?",
        "Which surface is seen without its sound?",
    ),
    "beside": (
        "What do you hear beside the {a}?",
        "Which sound is heard with the {a}?",
        "What else is heard with the {a}?",
    ),
    "starts": (
        "Which surface is seen before it is heard?",
        "Which surface is quiet before it is heard?",
        "Which surface starts to sound late?",
    ),
}  # fmt: skip


Item = Thing | Number | Sound | Moment | Band


@dataclass(frozen=True)
class Question(things_questions.Question):
    """A question about an ambience clip; ``category`` is one of CATEGORIES, ``phrase`` a key of PHRASES."""

    phrases: ClassVar[Mapping[str, tuple[str, ...]]] = PHRASES


def questions(script: Script) -> list[Question]:
    """Every question that this clip answers."""
    out: list[Question] = []

    def ask(category: str, phrase: str, answer: str, pool: Iterable[str], *items: Item, **fills: str) -> None:
        out.append(Question(category, phrase, tuple(fills.items()), ((answer, items),), tuple(pool)))

    scenes = script.scenes
    sounds = [sound for scene in scenes for sound in scene.sounds]
    numbers = [scene.number for scene in scenes if scene.number]
    briefs = [scene.brief for scene in scenes if scene.brief]
    late = [scene.sounds[0] for scene in scenes if scene.event == "late"]
    lost = [scene for scene in scenes if scene.event in ("mute", "dubbed")]
    if len(sounds) == 1:
        ask(CONTROL_OF.get(_event_of(scenes, sounds[0]), "heard"), "what_sound", sounds[0].kind, HEARD, *sounds)
    for number in numbers:
        if len(numbers) == 1:
            ask("digits", "number", number.text, _near(number.text), number)
        if len({each.colour for each in numbers}) == len(numbers):
            ask("digits", "number_in", number.text, _near(number.text), number, c=number.colour)
    if len(briefs) == 1:
        ask("brief", "brief_kind", briefs[0].kind, SILENT, briefs[0])
        ask("brief", "brief_colour", briefs[0].colour, COLOURS, briefs[0])
    if len(late) == 1:
        ask("late", "starts", late[0].kind, HEARD, late[0])
    if len(lost) == 1:
        (surface,) = lost[0].heard_surfaces
        ask(lost[0].event, "without_sound", surface, HEARD, *_bands(lost[0], surface))
    for scene in scenes:
        _ask_of_scene(scene, ask)
    return out


def _ask_of_scene(scene: Scene, ask) -> None:
    """The questions that name a surface or a kind of ``scene``, and so mean no other."""
    control = CONTROL_OF.get(scene.event)
    if len(scene.silent_surfaces) == 1:
        (surface,) = scene.silent_surfaces
        for heard in scene.heard_surfaces:
            ask("silent_surface", "surface_with", surface, SILENT_SURFACES, *_bands(scene, surface), a=heard)
    for thing in scene.lasting:
        if thing.place in SILENT_SURFACES:
            items = (thing, *_bands(scene, thing.place))
            ask("silent_surface", "surface_under", thing.place, SILENT_SURFACES, *items, a=thing.kind, b=thing.colour)
        category = "object" if thing.place in SILENT_SURFACES else control or "on_heard"
        there = [t for t in scene.things if t.place == thing.place]
        colours = [t.colour for t in there]
        if scene.number and scene.number.place in ("", thing.place):
            colours.append(scene.number.colour)
        if sum(t.kind == thing.kind for t in there) == 1:
            ask(category, "colour_on", thing.colour, COLOURS, thing, a=thing.kind, b=thing.place)
        if colours.count(thing.colour) == 1:
            ask(category, "kind_on", thing.kind, SILENT, thing, b=thing.place, c=thing.colour)
    for kind in dict.fromkeys(thing.kind for thing in scene.lasting):
        same = [thing for thing in scene.lasting if thing.kind == kind]
        if max(t.start for t in same) + MIN_TOGETHER_S < min(t.end for t in same):
            ask("count", "count", COUNTS[len(same) - 1], COUNTS, *same, a=kind)
    if scene.brief:
        ask("brief", "brief_on", scene.brief.kind, SILENT, scene.brief, b=scene.brief.place)
    if len(scene.sounds) == 1:
        (sound,) = scene.sounds
        for surface in scene.silent_surfaces:
            ask(control or "heard", "sound_with", sound.kind, HEARD, sound, a=surface)
        if scene.event == "dubbed":
            ask("dubbed", "sound_with", sound.kind, HEARD, sound, a=scene.heard_surfaces[0])
    if len(scene.sounds) == 2:
        for one, other in (scene.sounds, scene.sounds[::-1]):
            ask("two_heard", "beside", other.kind, HEARD, other, a=one.kind)


def _bands(scene: Scene, surface: str) -> list[Band]:
    return [band for band in scene.bands if band.surface == surface]


def _event_of(scenes: Iterable[Scene], sound: Sound) -> str:
    return next(scene.event for scene in scenes if sound in scene.sounds)


def _near(text: str) -> list[str]:
    """The numbers that differ from ``text`` in one digit."""
    return [str(n) for n in range(10, 100) if (str(n)[0] == text[0]) != (str(n)[1] == text[1])]
