"""The script of an ambience clip: which surfaces, what lies on them, when, and what sounds. A function of its seed.

A clip has one scene, or two with a cut between them. A scene's background is two to four bands, each one surface; a
surface is in one scene only. Each scene has one event:

* heard: a surface of a kind that is heard, and its sound;
* two: two of them, both sounding;
* late: the sound starts half way;
* mute: such a surface, and no sound at all;
* dubbed: such a surface, and the sound of another.

On the bands lie six to ten silent things, one of which may be a written number and one may show for about a second. A
kind of thing is in one scene only.

The budget binds. A second has 64 video and 25 audio tokens; at keep 0.15 stay 13.35 of them, 9.6 of the video
(``pruning.budget.split``): 29 in a scene of three seconds, 58 in one of six, 45 in the mean one. Its things show in 20
cells, each another look: nearly half of the budget. Its silent surfaces have 79 tokens more, drawn anew each half
second: what is silent is twice the budget already. The heard surfaces have another 122, as new and as unlike as the
rest. A rule that cannot tell what is heard spreads 45 tokens over 221, and four cells of things are left; one that can
spreads them over 99, and nine are left (``python -m cg_cli.nano.ambience.checks`` counts).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cg_cli.nano.ambience.surfaces import HEARD, SILENT_SURFACES
from cg_cli.nano.script import Number, Sound, Thing
from cg_cli.nano.things import CELL, CELLS, COLOURS, COUNTS, SILENT

SECONDS = (6, 12)  # shortest and longest clip
SCENE_SECONDS = (3.0, 6.0)  # shortest and longest scene
SLOT = 2 * CELL  # pixels, side of the square that each thing has to itself
SLOTS = CELLS // 2  # a side of the frame
THINGS = (6, 10)  # fewest and most of a scene, its number included
SIZE = (34, 47)  # pixels across a thing, the second not included
LASTING = 2.2  # seconds that what is not brief shows at least
BRIEF = (1.0, 1.3)  # seconds that what is brief shows
EVENTS = ("heard", "two", "late", "mute", "dubbed")
SPECIAL = EVENTS[1:]
_STREAM = 20  # beside (seed, index) in the seed of the script's random numbers; the world of things has none


@dataclass(frozen=True)
class Band:
    """A stripe of the picture: slots ``first`` to ``last`` across it, the second not included."""

    surface: str
    first: int
    last: int


@dataclass(frozen=True)
class Scene:
    """What shows and sounds from ``start`` to ``end`` (seconds of the clip); ``event`` as at the top. The ``place`` of
    a thing is the surface that it is on, that of a number ``""`` where it is on two."""

    start: float
    end: float
    event: str
    upright: bool  # the bands stand side by side; else they lie one above the other
    bands: tuple[Band, ...]
    looks: int  # seed of every cell's looks
    things: tuple[Thing, ...]
    sounds: tuple[Sound, ...]
    number: Number | None

    @property
    def heard_surfaces(self) -> tuple[str, ...]:
        """The surfaces shown of a kind that is heard, whether they sound or not."""
        return tuple(dict.fromkeys(b.surface for b in self.bands if b.surface in HEARD))

    @property
    def silent_surfaces(self) -> tuple[str, ...]:
        """The surfaces shown of a kind that makes no sound."""
        return tuple(dict.fromkeys(b.surface for b in self.bands if b.surface in SILENT_SURFACES))

    @property
    def brief(self) -> Thing | None:
        """The thing that shows for about a second."""
        return next((t for t in self.things if t.brief), None)

    @property
    def lasting(self) -> tuple[Thing, ...]:
        """The other things."""
        return tuple(t for t in self.things if not t.brief)

    def surface_at(self, row: int, column: int) -> str:
        """The surface of the slot at ``row`` and ``column``."""
        across = column if self.upright else row
        return next(band.surface for band in self.bands if band.first <= across < band.last)


@dataclass(frozen=True)
class Script:
    """Clip ``index`` of ambience world ``seed``."""

    seed: int
    index: int
    duration: int  # seconds
    noise: float  # level of the room's hiss
    scenes: tuple[Scene, ...]


@dataclass
class _Deck:
    """What no two scenes of a clip share, in random order."""

    heard: list[str]
    silent: list[str]
    kinds: list[str]


def _bands(heard: int, deck: _Deck, rng: np.random.Generator) -> tuple[Band, ...]:
    """Two to four bands; half of the picture or three quarters have ``heard`` surfaces of a kind that is heard."""
    count = int(rng.integers(1 + heard, 5))
    loud = [deck.heard.pop() for _ in range(heard)]
    if count == 2:
        layout = [(loud[0], 3), (deck.silent.pop(), 1)]
    elif count == 3 and heard == 1 and rng.random() < 0.5:  # one surface on both sides of another
        sides = rng.permutation([1, 2]).tolist()
        layout = [(loud[0], sides[0]), (deck.silent.pop(), 1), (loud[0], sides[1])]
    elif count == 3:
        quiet = [deck.silent.pop() for _ in range(count - heard)]
        layout = [(loud[0], 2), *((surface, 1) for surface in (*loud[1:], *quiet))]
    else:
        layout = [(surface, 1) for surface in (loud[0], deck.silent.pop(), loud[-1], deck.silent.pop())]
    if len({surface for surface, _ in layout}) == count:
        layout = [layout[i] for i in rng.permutation(count)]
    elif rng.random() < 0.5:
        layout.reverse()
    borders = np.cumsum([0, *(width for _, width in layout)]).tolist()
    return tuple(Band(surface, first, last) for (surface, _), first, last in zip(layout, borders, borders[1:]))


def _slots(bands: tuple[Band, ...], upright: bool, pair: bool, rng: np.random.Generator) -> list[tuple[int, int]]:
    """The (row, column) of the slots in random order, but for one of each band, which stays empty. With ``pair``, the
    first two lie side by side."""
    slots = {(row, column) for row in range(SLOTS) for column in range(SLOTS)}
    for band in bands:
        across, along = int(rng.integers(band.first, band.last)), int(rng.integers(SLOTS))
        slots.remove((along, across) if upright else (across, along))
    out: list[tuple[int, int]] = []
    if pair:
        firsts = sorted((row, column) for row, column in slots if (row, column + 1) in slots)
        row, column = firsts[int(rng.integers(len(firsts)))]
        out = [(row, column), (row, column + 1)]
    rest = sorted(slots - set(out))
    return out + [rest[i] for i in rng.permutation(len(rest))]


def _stay(start: float, end: float, rng: np.random.Generator) -> tuple[float, float]:
    """When a lasting thing shows: half of them for the whole scene, others come late or leave early."""
    spare = end - start - LASTING
    how = rng.choice(["all", "comes", "leaves"], p=[0.5, 0.25, 0.25])
    by = float(rng.uniform(0, spare))
    return (start + by, end) if how == "comes" else (start, end - by) if how == "leaves" else (start, end)


def _moment(start: float, end: float, length: float, rng: np.random.Generator) -> tuple[float, float]:
    begin = float(rng.uniform(start + 0.2, end - length - 0.2))
    return begin, begin + length


def _kinds(count: int, deck: _Deck, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Kind and colour of ``count`` lasting things: one to three of each of up to three kinds, of one kind each of
    another colour."""
    most = len(COUNTS)
    numbers: list[int] = []
    while sum(numbers) < count:
        kinds_left = most - len(numbers) - 1  # after this one, each can take ``most``
        low = max(1, count - sum(numbers) - most * kinds_left)
        numbers.append(int(rng.integers(low, min(most, count - sum(numbers)) + 1)))
    out = []
    for number in rng.permutation(numbers):
        kind, colours = deck.kinds.pop(), rng.permutation(list(COLOURS))
        out += [(kind, str(colour)) for colour in colours[:number]]
    return out


def _scene(event: str, start: float, end: float, deck: _Deck, rng: np.random.Generator) -> Scene:
    upright = bool(rng.random() < 0.5)
    bands = _bands(2 if event == "two" else 1, deck, rng)
    written, brief = bool(rng.random() < 0.6), bool(rng.random() < 0.5)
    count = int(rng.integers(THINGS[0], min(THINGS[1], 9 + written + brief) + 1))
    slots = _slots(bands, upright, written, rng)
    colour = lambda: str(rng.choice(list(COLOURS)))
    scene = Scene(start, end, event, upright, bands, int(rng.integers(2**31)), (), (), None)
    number = None
    if written:
        (row, column), (_, next_column) = slots[:2]
        places = {scene.surface_at(row, column), scene.surface_at(row, next_column)}
        shake = rng.uniform(-1, 1, 2) * (10, 3)
        centre = float((column + 1) * SLOT + shake[0]), float((row + 0.5) * SLOT + shake[1])
        length = float(rng.uniform(LASTING, end - start - 0.4))
        text = str(rng.integers(10, 100))
        number = Number(
            text, colour(), places.pop() if len(places) == 1 else "", centre, *_moment(start, end, length, rng)
        )
        slots = slots[2:]
    wanted = [(*each, False) for each in _kinds(count - written - brief, deck, rng)]
    wanted += [(deck.kinds.pop(), colour(), True)] * brief
    things = []
    for (kind, shade, is_brief), (row, column) in zip(wanted, slots):
        size = int(rng.integers(*SIZE))
        # Off the middle of its slot, which is a corner of four cells: so that one of them shows most of it.
        shift = rng.choice([-1, 1], 2) * rng.uniform(0.6, 1, 2) * (SLOT - size) / 2
        centre = float((column + 0.5) * SLOT + shift[0]), float((row + 0.5) * SLOT + shift[1])
        span = _moment(start, end, float(rng.uniform(*BRIEF)), rng) if is_brief else _stay(start, end, rng)
        things.append(Thing(kind, shade, scene.surface_at(row, column), size, centre, *span, brief=is_brief))
    sources = {"mute": (), "dubbed": (deck.heard.pop(),)}.get(event, scene.heard_surfaces)
    begin = start + (end - start) * float(rng.uniform(0.4, 0.6)) if event == "late" else start
    sounds = tuple(
        Sound(source, begin, end, float(rng.uniform(0.15, 0.35)), int(rng.integers(2**31))) for source in sources
    )
    return Scene(start, end, event, upright, bands, scene.looks, tuple(things), sounds, number)


def write_script(seed: int, index: int, longest: int = SECONDS[1]) -> Script:
    """The script of clip ``index`` of ambience world ``seed``, at most ``longest`` seconds long."""
    rng = np.random.default_rng([seed, index, _STREAM])
    shortest, most = SCENE_SECONDS
    scenes = int(rng.choice([1, 2], p=[0.25, 0.75]))
    duration = SECONDS[0] if scenes == 1 else int(rng.integers(SECONDS[0], longest + 1))
    cut = rng.integers(round(2 * max(shortest, duration - most)), round(2 * min(most, duration - shortest)) + 1) / 2
    borders = [0.0, float(duration)] if scenes == 1 else [0.0, float(cut), float(duration)]
    # One scene of most clips is a control; at most one lacks its sound, so that which one is never ambiguous.
    events = ["heard" if rng.random() < 0.7 else str(rng.choice(["two", "late"])) for _ in range(scenes)]
    if rng.random() < 0.8:
        events[int(rng.integers(scenes))] = str(rng.choice(SPECIAL))
    deck = _Deck(
        rng.permutation(HEARD).tolist(), rng.permutation(SILENT_SURFACES).tolist(), rng.permutation(SILENT).tolist()
    )
    built = tuple(_scene(event, *span, deck, rng) for event, span in zip(events, zip(borders, borders[1:])))
    return Script(seed, index, duration, float(10 ** rng.uniform(-3.3, -2.5)), built)
