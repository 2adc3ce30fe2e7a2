"""Questions about a nano clip, their answers, and whether an answer is right. All of it follows from the script.

A question is asked only where the clip has exactly one right answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

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
    "count_heard": (
        "How many {a}s are there?",
        "How many {a}s do you see?",
        "How many things are there of the kind that {v}?",
    ),
    "colour_silent": ("What colour is the {a}?", "What is the colour of the {a}?", "Which colour has the {a}?"),
    "place_silent": ("Where is the {a}?", "In which corner is the {a}?"),
    "brief_kind": (
        "What appears only for a moment?",
        "Which thing is seen only briefly?",
        "What shows up for just a second?",
    ),
    "brief_colour": (
        "What colour is the thing that appears only for a moment?",
        "What colour is the thing that is seen only briefly?",
    ),
    "number": (
        "Which number is written?",
        "What number do you see?",
        "Which number is shown?",
        "What does the writing say?",
    ),
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
    "sentence": (
        "What is happening?",
        "What happens?",
        "Describe the video.",
        "What is going on?",
        "What happens in this video?",
    ),
}  # fmt: skip


MIN_LASTING_S = 2.0  # what shows for less may pass for "only a moment"


@dataclass(frozen=True)
class Moment:
    """An interval of the audio, seconds of the clip."""

    start: float
    end: float


Item = Thing | Number | Sound | Scene | Moment
Parts = tuple[tuple[str, tuple[Any, ...]], ...]  # the parts of an answer, each with the items of the script behind it


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    Attributes:
        category: one of CATEGORIES.
        phrase: key of ``phrases``.
        fills: (name, text) of each of the phrase's placeholders.
        parts: joined, their texts are the answer.
        pool: answers that the wrong choices are drawn from.
    """

    category: str
    phrase: str
    fills: tuple[tuple[str, str], ...]
    parts: Parts
    pool: tuple[str, ...]
    phrases: ClassVar[Mapping[str, tuple[str, ...]]] = PHRASES

    @property
    def answer(self) -> str:
        """The right answer."""
        return "".join(part for part, _ in self.parts)

    def text(self, rng: np.random.Generator) -> str:
        """The question in one of its phrasings."""
        return str(rng.choice(self.phrases[self.phrase])).format(**dict(self.fills))

    def choices(self, rng: np.random.Generator) -> list[str]:
        """Up to four answers in random order, the right one among them."""
        wrong = rng.permutation([w for w in dict.fromkeys(self.pool) if w != self.answer]).tolist()
        return rng.permutation([self.answer, *wrong[:3]]).tolist()


def _event(scene: Scene) -> Parts:
    """The scene's event as a clause; "nothing is heard" when nothing is heard and nothing large is seen."""
    sound = scene.sound
    if scene.event == "off_screen" and sound:
        return ((f"a {sound.kind} is heard off screen", (sound,)),)
    if not scene.large:
        return (("nothing is heard", (scene,)),)
    thing, count = scene.large[0], len(scene.large)
    if scene.event == "dubbed" and sound:
        return (f"a {thing.colour} {thing.kind} moves", (thing,)), (f" while a {sound.kind} is heard", (sound,))
    if count == 1:
        return ((f"a {thing.colour} {thing.kind} {VERBS[thing.kind]}", (thing,)),)
    return ((f"{COUNTS[count - 1]} {thing.colour} {thing.kind}s sound", (*scene.large, *_some(sound))),)


def _some(sound: Sound | None) -> tuple[Sound, ...]:
    return (sound,) if sound else ()


def sentence(script: Script) -> Parts:
    """What is happening: one clause a scene, in order."""
    out: list[tuple[str, tuple[Item, ...]]] = []
    for scene in script.scenes:
        (text, items), *rest = _event(scene)
        out += [(f", then {text}" if out else text[0].upper() + text[1:], items), *rest]
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


def _alone_at_their_place(script: Script) -> list[Thing]:
    """Things that stay for their scene, at a place where nothing else is ever seen, not even for a moment."""
    things = [thing for scene in script.scenes for thing in scene.things]
    places = [t.place for t in things] + [scene.number.place for scene in script.scenes if scene.number]
    return [t for t in things if not t.brief and places.count(t.place) == 1]


def questions(script: Script) -> list[Question]:
    """Every question that this clip answers."""
    out: list[Question] = []

    def ask(category: str, phrase: str, answer: str, pool: Iterable[str], *items: Item, **fills: str) -> None:
        out.append(Question(category, phrase, tuple(fills.items()), ((answer, items),), tuple(pool)))

    scenes = script.scenes
    brief_number = any(s.number and s.number.end - s.number.start < MIN_LASTING_S for s in scenes)
    sounds = [s.sound for s in scenes if s.sound]
    sound_kinds = [s.kind for s in sounds]
    large = [s.large[0] for s in scenes if s.large]
    if len(sound_kinds) == 1:
        ask("heard_kind", "what_sound", sound_kinds[0], AUDIBLE, *sounds)
    if 0 < len(sound_kinds) <= len(COUNTS):
        ask("heard_kind", "sounds", COUNTS[len(sound_kinds) - 1], COUNTS, *sounds)
    for scene in scenes:
        if scene.sound:
            for thing in scene.small:
                ask("heard_kind", "sound_with", scene.sound.kind, AUDIBLE, scene.sound, a=thing.kind)
    if len(large) == 1:
        ask("seen_kind", "what_large", large[0].kind, AUDIBLE, large[0])
    for thing in _alone_at_their_place(script):
        ask("seen_kind", "what_at", thing.kind, AUDIBLE if thing.kind in AUDIBLE else SILENT, thing, a=thing.place)
    for scene in scenes:
        if scene.event == "sounding":
            thing, verb = scene.large[0], VERBS[scene.large[0].kind]
            ask("audible_colour", "colour_heard", thing.colour, COLOURS, *scene.large, a=thing.kind, v=verb)
            items: tuple[Item, ...] = (*scene.large, *_some(scene.sound))
            ask("audible_count", "count_heard", COUNTS[len(scene.large) - 1], COUNTS, *items, a=thing.kind, v=verb)
            if len(scene.large) == 1:
                ask("audible_place", "place_heard", thing.place, PLACES, thing, a=thing.kind, v=verb)
        for thing in scene.small:
            ask("silent", "colour_silent", thing.colour, COLOURS, thing, a=thing.kind)
            ask("silent", "place_silent", thing.place, PLACES, thing, a=thing.kind)
        if scene.brief and not brief_number:
            ask("brief", "brief_kind", scene.brief.kind, SILENT, scene.brief)
            ask("brief", "brief_colour", scene.brief.colour, COLOURS, scene.brief)
        if scene.number:
            near = [
                str(n)
                for n in range(10, 100)
                if (str(n)[0] == scene.number.text[0]) != (str(n)[1] == scene.number.text[1])
            ]
            ask("digits", "number", scene.number.text, near, scene.number)
        if scene.event == "off_screen" and scene.sound:
            ask("off_screen", "off_screen", scene.sound.kind, AUDIBLE, scene.sound)
        if scene.event == "dubbed" and scene.sound:
            ask("dubbed", "dubbed_sound", scene.sound.kind, AUDIBLE, scene.sound, a=scene.large[0].kind)
            ask("dubbed", "dubbed_seen", scene.large[0].kind, AUDIBLE, scene.large[0], a=scene.sound.kind)
    if len(sound_kinds) > 1:
        ask("order", "first", sound_kinds[0], sound_kinds, sounds[0])
        ask("order", "last", sound_kinds[-1], sound_kinds, sounds[-1])
        for early, late in zip(sounds, sounds[1:]):
            both = early.kind, late.kind
            for a, b in (both, both[::-1]):
                ask("order", "first_of", early.kind, both, early, a=a, b=b)
                ask("order", "last_of", late.kind, both, late, a=a, b=b)
    small = [t for s in scenes for t in s.small[:1]]
    for first, second in zip(small, small[1:]):
        both = first.kind, second.kind
        for a, b in (both, both[::-1]):
            ask("order", "seen_first_of", first.kind, both, first, Moment(first.start, first.end), a=a, b=b)
    parts = sentence(script)
    wrong = _wrong_sentences(script, "".join(text for text, _ in parts))
    out.append(Question("sentence", "sentence", (), parts, tuple(wrong)))
    return out


def _wrong_sentences(script: Script, sentence: str) -> list[str]:
    """Sentences that are wrong in one word: another colour or another kind."""
    words = sentence.split(" ")
    out = []
    for i, word in enumerate(words):
        for pool in (list(COLOURS), list(AUDIBLE)):
            if word in pool:
                other = pool[(pool.index(word) + 1 + script.index % (len(pool) - 1)) % len(pool)]
                out.append(" ".join([*words[:i], other, *words[i + 1 :]]))
    return out
