"""Questions about a nano clip, their answers, and the judge. Everything follows from the script; nothing is drawn
twice.

A question is asked only where the clip has exactly one right answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from cg_cli.nano.script import Number, Scene, Script, Sound, Thing
from cg_cli.nano.things import AUDIBLE, COLOURS, COUNTS, PLACES, SILENT, VERBS

CATEGORIES = (
    "heard_kind", "seen_kind", "audible_colour", "audible_place", "audible_count", "silent", "brief",
    "digits", "order", "off_screen", "dubbed", "sentence",
)  # fmt: skip

# The ways to ask each thing; "{a}" and "{b}" are filled in. A list index never means anything.
PHRASES = {
    "what_sound": ("What do you hear?", "What can be heard?", "Which thing makes a sound?", "Which sound is heard?"),
    "sound_with": (
        "What do you hear while the {a} is seen?",
        "Which sound is heard while the {a} is shown?",
        "The {a} is in the picture. What do you hear?",
    ),
    "sounds": ("How many different sounds are heard?", "How many kinds of sound do you hear?"),
    "what_at": ("What is at the {a}?", "Which thing is at the {a}?", "What do you see at the {a}?"),
    "what_large": ("Which large thing is seen?", "What is the large thing?", "Which thing moves?"),
    "colour_heard": (
        "What colour is the {a}?",
        "What is the colour of the {a}?",
        "What colour is the thing that {v}?",
        "Which colour has the {a}?",
    ),
    "place_heard": ("Where is the {a}?", "Where is the thing that {v}?", "In which corner is the {a}?"),
    "count_heard": ("How many {a}s are there?", "How many {a}s do you see?", "How many things are there of the kind that {v}?"),
    "colour_silent": ("What colour is the {a}?", "What is the colour of the {a}?", "Which colour has the {a}?"),
    "place_silent": ("Where is the {a}?", "In which corner is the {a}?"),
    "brief_kind": (
        "What appears only for a moment?",
        "Which thing is seen only briefly?",
        "What shows up for just a second?",
    ),
    "brief_colour": ("What colour is the thing that appears only for a moment?", "What colour is the thing that is seen only briefly?"),
    "number": ("Which number is written?", "What number do you see?", "Which number is shown?", "What does the writing say?"),
    "first": ("What do you hear first?", "Which sound comes first?", "Which thing is heard first?"),
    "last": ("What do you hear last?", "Which sound comes last?", "Which thing is heard last?"),
    "first_of": ("What do you hear first, the {a} or the {b}?", "Which is heard first, the {a} or the {b}?"),
    "last_of": ("What do you hear last, the {a} or the {b}?", "Which is heard last, the {a} or the {b}?"),
    "seen_first_of": ("What do you see first, the {a} or the {b}?", "Which is seen first, the {a} or the {b}?"),
    "off_screen": (
        "What is heard but not seen?",
        "Which thing do you hear but never see?",
        "Which sound has no picture?",
        "What sounds off screen?",
    ),
    "dubbed_sound": (
        "What do you hear while the {a} moves?",
        "Which sound is dubbed over the {a}?",
        "The {a} moves. Which sound is heard?",
    ),
    "dubbed_seen": (
        "What moves while the {a} is heard?",
        "Which thing is seen while the {a} is heard?",
        "The {a} is heard. What do you see moving?",
    ),
    "sentence": ("What is happening?", "What happens?", "Describe the video.", "What is going on?", "What happens in this video?"),
}  # fmt: skip


LASTING = 2.0  # seconds; what shows for less may pass for "only a moment"


@dataclass(frozen=True)
class Moment:
    """A stretch of the clip, seconds, as its sound has it."""

    start: float
    end: float


Shown = tuple[
    tuple[str, tuple[Thing | Number | Sound | Scene | Moment, ...]], ...
]  # parts of an answer, with what tells each


@dataclass(frozen=True)
class Question:
    category: str
    phrase: str  # key of PHRASES
    fills: tuple[tuple[str, str], ...]
    shown: Shown  # joined, the parts are the answer
    pool: tuple[str, ...]  # wrong answers come from here

    @property
    def answer(self) -> str:
        return "".join(part for part, _ in self.shown)

    def text(self, rng: np.random.Generator) -> str:
        """One of the ways to ask it."""
        return str(rng.choice(PHRASES[self.phrase])).format(**dict(self.fills))

    def choices(self, rng: np.random.Generator) -> list[str]:
        """Up to four answers in random order, the right one among them."""
        wrong = rng.permutation([w for w in dict.fromkeys(self.pool) if w != self.answer]).tolist()
        return rng.permutation([self.answer, *wrong[:3]]).tolist()


def _event(scene: Scene) -> Shown:
    """The scene's event as a clause; "nothing is heard" when nothing is heard and nothing large is seen."""
    if scene.event == "off_screen":
        return ((f"a {scene.sound.kind} is heard off screen", (scene.sound,)),)
    if not scene.large:
        return (("nothing is heard", (scene,)),)
    thing, count = scene.large[0], len(scene.large)
    if scene.event == "dubbed":
        return (f"a {thing.colour} {thing.kind} moves", (thing,)), (
            f" while a {scene.sound.kind} is heard",
            (scene.sound,),
        )
    if count == 1:
        return ((f"a {thing.colour} {thing.kind} {VERBS[thing.kind]}", (thing,)),)
    return ((f"{COUNTS[count - 1]} {thing.colour} {thing.kind}s sound", (*scene.large, scene.sound)),)


def sentence(script: Script) -> Shown:
    """What is happening: one clause a scene, in order."""
    out: list = []
    for scene in script.scenes:
        (text, told), *rest = _event(scene)
        out += [(f", then {text}" if out else text[0].upper() + text[1:], told), *rest]
    return (*out, (".", ()))


def facts(text: str) -> list[str]:
    """A sentence as its clauses, in order, without case, articles and punctuation."""
    clauses = re.split(r"[,;.]?\s*\bthen\b\s*", text.strip().lower().rstrip("."))
    return [" ".join(w for w in re.findall(r"[a-z0-9]+", c) if w not in ("a", "an", "the")) for c in clauses]


def normalise(text: str) -> str:
    """A short answer without case, articles, punctuation and doubled spaces."""
    return " ".join(w for w in re.findall(r"[a-z0-9]+", text.lower()) if w not in ("a", "an", "the"))


def right(category: str, answer: str, reference: str) -> bool:
    """Whether ``answer`` is right: a sentence must have every fact in order and no other; the rest must match."""
    if category == "sentence":
        return facts(answer) == facts(reference)
    return normalise(answer) == normalise(reference)


def _alone(script: Script) -> list[Thing]:
    """Things that stay for their scene, at a place where nothing else is ever seen, not even for a moment."""
    shown = [thing for scene in script.scenes for thing in scene.things]
    taken = [t.place for t in shown] + [scene.number.place for scene in script.scenes if scene.number]
    return [t for t in shown if not t.brief and taken.count(t.place) == 1]


def questions(script: Script) -> list[Question]:
    """Every question that this clip answers."""
    out: list[Question] = []

    def ask(
        category: str, phrase: str, answer: str, pool, *told: Thing | Number | Sound | Moment, **fills: str
    ) -> None:
        out.append(Question(category, phrase, tuple(fills.items()), ((answer, told),), tuple(pool)))

    scenes = script.scenes
    fleeting = any(s.number and s.number.end - s.number.start < LASTING for s in scenes)  # then a number is brief, too
    sounds = [s.sound for s in scenes if s.sound]
    heard = [s.kind for s in sounds]
    large = [s.large[0] for s in scenes if s.large]
    if len(heard) == 1:
        ask("heard_kind", "what_sound", heard[0], AUDIBLE, *sounds)
    if heard:
        ask("heard_kind", "sounds", COUNTS[len(heard) - 1], COUNTS, *sounds)
    for scene in scenes:
        for thing in scene.small if scene.sound else ():
            ask("heard_kind", "sound_with", scene.sound.kind, AUDIBLE, scene.sound, a=thing.kind)
    if len(large) == 1:
        ask("seen_kind", "what_large", large[0].kind, AUDIBLE, large[0])
    for thing in _alone(script):
        ask("seen_kind", "what_at", thing.kind, AUDIBLE if thing.kind in AUDIBLE else SILENT, thing, a=thing.place)
    for scene in scenes:
        if scene.event == "sounding":
            thing, verb = scene.large[0], VERBS[scene.large[0].kind]
            ask("audible_colour", "colour_heard", thing.colour, COLOURS, *scene.large, a=thing.kind, v=verb)
            ask(
                "audible_count",
                "count_heard",
                COUNTS[len(scene.large) - 1],
                COUNTS,
                *scene.large,
                scene.sound,
                a=thing.kind,
                v=verb,
            )
            if len(scene.large) == 1:
                ask("audible_place", "place_heard", thing.place, PLACES, thing, a=thing.kind, v=verb)
        for thing in scene.small:
            ask("silent", "colour_silent", thing.colour, COLOURS, thing, a=thing.kind)
            ask("silent", "place_silent", thing.place, PLACES, thing, a=thing.kind)
        if scene.brief and not fleeting:
            ask("brief", "brief_kind", scene.brief.kind, SILENT, scene.brief)
            ask("brief", "brief_colour", scene.brief.colour, COLOURS, scene.brief)
        if scene.number:
            near = [
                str(n)
                for n in range(10, 100)
                if (str(n)[0] == scene.number.text[0]) != (str(n)[1] == scene.number.text[1])
            ]
            ask("digits", "number", scene.number.text, near, scene.number)
        if scene.event == "off_screen":
            ask("off_screen", "off_screen", scene.sound.kind, AUDIBLE, scene.sound)
        if scene.event == "dubbed":
            ask("dubbed", "dubbed_sound", scene.sound.kind, AUDIBLE, scene.sound, a=scene.large[0].kind)
            ask("dubbed", "dubbed_seen", scene.large[0].kind, AUDIBLE, scene.large[0], a=scene.sound.kind)
    if len(heard) > 1:
        ask("order", "first", heard[0], heard, sounds[0])
        ask("order", "last", heard[-1], heard, sounds[-1])
        for early, late in zip(sounds, sounds[1:]):
            both = early.kind, late.kind
            for a, b in (both, both[::-1]):
                ask("order", "first_of", early.kind, both, early, a=a, b=b)
                ask("order", "last_of", late.kind, both, late, a=a, b=b)
    small = [t for s in scenes for t in s.small[:1]]
    for early, late in zip(small, small[1:]):
        both = early.kind, late.kind
        for a, b in (both, both[::-1]):
            ask("order", "seen_first_of", early.kind, both, early, Moment(early.start, early.end), a=a, b=b)
    told = sentence(script)
    out.append(
        Question("sentence", "sentence", (), told, tuple(_other_sentences(script, "".join(part for part, _ in told))))
    )
    return out


def _other_sentences(script: Script, told: str) -> list[str]:
    """Sentences that are wrong in one word: another colour or another kind."""
    words = told.split(" ")
    out = []
    for i, word in enumerate(words):
        for pool in (list(COLOURS), list(AUDIBLE)):
            if word in pool:
                other = pool[(pool.index(word) + 1 + script.index % (len(pool) - 1)) % len(pool)]
                out.append(" ".join([*words[:i], other, *words[i + 1 :]]))
    return out
