"""The script of a nano clip: what is where, when, in which colour, and what sounds. A function of its seed.

A clip has one to three scenes with a cut between them. Each scene has one event:

* sounding: one to three large things of one kind and colour sound, and move while they do;
* off_screen: a kind is heard and not seen;
* dubbed: a large thing of one kind moves while another kind is heard;
* quiet: nothing is heard.

Beside it stand small silent things, perhaps one that shows for about a second, perhaps a written number. Every thing
has a quarter of the frame to itself. A kind occurs in one scene only, so that "the bell" is never ambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cg_cli.nano.things import AUDIBLE, COLOURS, FRAME, PLACES, SILENT

SECONDS = (6, 16)  # shortest and longest clip
SCENE_SECONDS = 3  # shortest scene
QUARTER = FRAME / 2  # pixels, side of the part of the frame that each thing has to itself
LARGE = (52, 81)  # pixels across a large thing, the second not included
SWING = 13  # pixels, farthest that a moving thing gets from its centre


@dataclass(frozen=True)
class Thing:
    """Something drawn. ``start``..``end`` is when it shows, ``active`` when it moves (both seconds of the clip)."""

    kind: str
    colour: str
    place: str
    size: int  # pixels
    centre: tuple[float, float]  # pixels, right and down
    start: float
    end: float
    active: tuple[float, float] | None = None
    swing: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # px right, px down, hertz, phase
    brief: bool = False


@dataclass(frozen=True)
class Number:
    """A written two-digit number."""

    text: str
    colour: str
    place: str
    centre: tuple[float, float]
    start: float
    end: float


@dataclass(frozen=True)
class Sound:
    """A sound from ``start`` to ``end`` (seconds of the clip), with its peak ``level`` (0..1)."""

    kind: str
    start: float
    end: float
    level: float
    seed: int


@dataclass(frozen=True)
class Backdrop:
    """A scene's background."""

    seed: int
    texture: str  # blobs, stripes or checks
    drift: tuple[float, float]  # pixels a second


@dataclass(frozen=True)
class Scene:
    """What shows and sounds from ``start`` to ``end`` (seconds of the clip); ``event`` as at the top."""

    start: float
    end: float
    event: str
    backdrop: Backdrop
    things: tuple[Thing, ...]
    sound: Sound | None
    number: Number | None

    @property
    def large(self) -> tuple[Thing, ...]:
        """The things of an audible kind: the ones that sound, or the dubbed one."""
        return tuple(t for t in self.things if t.kind in AUDIBLE)

    @property
    def small(self) -> tuple[Thing, ...]:
        """The silent things that stay for the whole scene."""
        return tuple(t for t in self.things if t.kind in SILENT and not t.brief)

    @property
    def brief(self) -> Thing | None:
        """The silent thing that shows for about a second."""
        return next((t for t in self.things if t.brief), None)


@dataclass(frozen=True)
class Script:
    """Clip ``index`` of world ``seed``."""

    seed: int
    index: int
    duration: int  # seconds
    noise: float  # level of the room's hiss
    scenes: tuple[Scene, ...]


def _centre(place: str, slack: float, rng: np.random.Generator) -> tuple[float, float]:
    """A point in the quarter of the frame called ``place``, at most ``slack`` pixels from its middle."""
    x, y = (56 if "left" in place else 168), (56 if "top" in place else 168)
    return float(x + rng.uniform(-slack, slack)), float(y + rng.uniform(-slack, slack))


def _cuts(duration: int, scenes: int, rng: np.random.Generator) -> list[float]:
    """Borders of ``scenes`` scenes, on half seconds, each scene at least SCENE_SECONDS long."""
    spare = 2 * (duration - scenes * SCENE_SECONDS)
    offsets = np.sort(rng.integers(0, spare + 1, scenes - 1))
    return [0.0, *(SCENE_SECONDS * (i + 1) + s / 2 for i, s in enumerate(offsets)), float(duration)]


def _interval(start: float, end: float, rng: np.random.Generator) -> tuple[float, float]:
    """When a scene's event goes on: all of it, or with a still stretch before or after."""
    spare = end - start - 2.0
    still = rng.choice(["none", "before", "after"], p=[0.5, 0.25, 0.25])
    wait = rng.uniform(0, spare) if still != "none" else 0.0
    return (start + wait, end) if still == "before" else (start, end - wait)


def _scene(
    event: str, start: float, end: float, counts: dict[str, int], kinds: dict[str, list[str]], rng: np.random.Generator
) -> Scene:
    places = rng.permutation(PLACES).tolist()
    colour = lambda: str(rng.choice(list(COLOURS)))
    active = _interval(start, end, rng)
    things: list[Thing] = []
    if event in ("sounding", "dubbed"):
        count = int(rng.integers(1, 4)) if event == "sounding" else 1
        count = min(count, len(PLACES) - counts["brief"] - counts["number"])
        # Small things take what is left, so that one, two and three large ones are about as frequent.
        counts = counts | {"small": min(counts["small"], len(PLACES) - count - counts["brief"] - counts["number"])}
        kind, shade = kinds["audible"].pop(), colour()
        for _ in range(count):
            # Like things differ in size, or their number could be read off how much of the picture they take.
            place, size = places.pop(), int(rng.integers(*LARGE))
            swing = (rng.uniform(6, SWING), rng.uniform(6, SWING), rng.uniform(0.6, 1.1), rng.uniform(0, 6.28))
            centre = _centre(place, QUARTER / 2 - SWING - size / 2, rng)
            things.append(Thing(kind, shade, place, size, centre, start, end, active, swing))
    for brief in [False] * counts["small"] + [True] * counts["brief"]:
        place, size = places.pop(), int(rng.integers(38, 51))
        interval = (start, end)
        if brief:
            length = rng.uniform(1.0, 1.3)
            begin = rng.uniform(start + 0.2, end - length - 0.2)
            interval = (begin, begin + length)
        things.append(
            Thing(kinds["silent"].pop(), colour(), place, size, _centre(place, 24, rng), *interval, brief=brief)
        )
    number = None
    if counts["number"]:
        length = rng.uniform(1.2, min(3.0, end - start - 0.4))
        begin = rng.uniform(start + 0.2, end - length - 0.2)
        text, shade, place = str(rng.integers(10, 100)), colour(), places.pop()
        number = Number(text, shade, place, _centre(place, 10, rng), begin, begin + length)
    sound = None
    if event != "quiet":
        kind = things[0].kind if event == "sounding" else kinds["audible"].pop()
        sound = Sound(kind, *active, float(rng.uniform(0.15, 0.5)), int(rng.integers(2**31)))
    drift = (0.0, 0.0)
    if rng.random() >= 0.4:
        right, down = rng.uniform(-12, 12, 2)
        drift = (float(right), float(down))
    backdrop = Backdrop(int(rng.integers(2**31)), str(rng.choice(["blobs", "stripes", "checks"])), drift)
    return Scene(start, end, event, backdrop, tuple(things), sound, number)


def write_script(seed: int, index: int, longest: int = SECONDS[1]) -> Script:
    """The script of clip ``index`` of world ``seed``, at most ``longest`` seconds long."""
    rng = np.random.default_rng([seed, index])
    duration = int(rng.integers(SECONDS[0], longest + 1))
    scenes = int(rng.integers(1, min(3, duration // SCENE_SECONDS) + 1))
    cuts = _cuts(duration, scenes, rng)
    events = ["sounding"] * scenes
    special = rng.choice(["none", "off_screen", "dubbed", "quiet"], p=[0.3, 0.3, 0.3, 0.1])
    if special in ("off_screen", "dubbed") or (scenes > 1 and special == "quiet"):
        events[int(rng.integers(scenes))] = str(special)
    number_in = int(rng.integers(scenes)) if rng.random() < 0.5 else -1
    brief_in = int(rng.integers(scenes)) if rng.random() < 0.5 else -1
    kinds = {"audible": rng.permutation(AUDIBLE).tolist(), "silent": rng.permutation(SILENT).tolist()}
    out = []
    for i, event in enumerate(events):
        counts = {"brief": int(i == brief_in), "number": int(i == number_in)}
        counts["small"] = int(rng.integers(0 if event == "sounding" else 1, 3 - counts["brief"] * counts["number"]))
        out.append(_scene(event, cuts[i], cuts[i + 1], counts, kinds, rng))
    return Script(seed, index, duration, float(10 ** rng.uniform(-3.3, -2.2)), tuple(out))
