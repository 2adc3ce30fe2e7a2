"""The ambience world: surfaces that only their family tells apart, and questions that follow from the script."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from cg_cli import media
from cg_cli.nano import world
from cg_cli.nano.ambience import checks
from cg_cli.nano.ambience.questions import CATEGORIES, CONTROLS, questions
from cg_cli.nano.ambience.render import picture, soundtrack, surface_cells
from cg_cli.nano.ambience.script import LASTING, SCENE_SECONDS, SECONDS, SLOT, THINGS, write_script
from cg_cli.nano.ambience.sounds import VOICES, voice
from cg_cli.nano.ambience.surfaces import HEARD, LOOKS, SILENT_SURFACES, SURFACES
from cg_cli.nano.render import frame_clock
from cg_cli.nano.sounds import RATE
from cg_cli.nano.things import COUNTS, FRAME
from cg_cli.nano.worlds import AMBIENCE
from cg_cli.nano.worlds import THINGS as THINGS_WORLD

SCRIPTS = [write_script(600, index) for index in range(120)]


@pytest.mark.parametrize("script", SCRIPTS[:40], ids=lambda s: str(s.index))
def test_a_script_keeps_the_rules_of_the_world(script):
    assert SECONDS[0] <= script.duration <= SECONDS[1]
    assert script.scenes[0].start == 0 and script.scenes[-1].end == script.duration
    surfaces = [surface for scene in script.scenes for surface in {band.surface for band in scene.bands}]
    kinds = [kind for scene in script.scenes for kind in {thing.kind for thing in scene.things}]
    assert len(set(surfaces)) == len(surfaces) and len(set(kinds)) == len(kinds)
    assert sum(scene.event in ("mute", "dubbed") for scene in script.scenes) <= 1
    for scene in script.scenes:
        assert SCENE_SECONDS[0] <= scene.end - scene.start <= SCENE_SECONDS[1] and 2 <= len(scene.bands) <= 4
        heard = sum(b.last - b.first for b in scene.bands if b.surface in HEARD)
        assert 2 <= heard <= 3 and scene.silent_surfaces
        assert all(one.surface != other.surface for one, other in itertools.pairwise(scene.bands))
        sources = {sound.kind for sound in scene.sounds}
        shown = set(scene.heard_surfaces)
        assert {
            "heard": sources == shown and len(shown) == 1,
            "two": sources == shown and len(shown) == 2,
            "late": sources == shown and scene.sounds and scene.sounds[0].start > scene.start + 1,
            "mute": not sources and len(shown) == 1,
            "dubbed": len(sources) == 1 and not sources & set(surfaces),
        }[scene.event]
        assert THINGS[0] <= len(scene.things) + (scene.number is not None) <= THINGS[1]
        slots = [(int(x // SLOT), int(y // SLOT)) for x, y in (thing.centre for thing in scene.things)]
        if scene.number:
            x, y = scene.number.centre
            slots += [(round(x / SLOT) + side, int(y // SLOT)) for side in (-1, 0)]
        assert len(set(slots)) == len(slots)
        for thing in scene.things:
            assert scene.start <= thing.start < thing.end <= scene.end
            assert thing.brief == (thing.end - thing.start < 2) and (thing.brief or thing.end - thing.start >= LASTING)
            assert (
                SURFACES[surface_cells(scene)[int(thing.centre[1] // 28), int(thing.centre[0] // 28)] - 1]
                == thing.place
            )


def test_a_clip_is_a_function_of_its_seed_and_index():
    assert write_script(3, 5) == write_script(3, 5)
    assert write_script(3, 5) != write_script(3, 6) and write_script(3, 5) != write_script(4, 5)
    script = write_script(3, 5)
    forward = [picture(script, time) for time in (0.1, 0.7, 5.9)]
    backward = [picture(script, time) for time in (5.9, 0.7, 0.1)][::-1]
    assert np.array_equal(forward, backward) and np.array_equal(soundtrack(script), soundtrack(script))
    assert picture(script, 0).shape == (FRAME, FRAME, 3) and len(soundtrack(script)) == script.duration * RATE
    # Drawn anew every half second, and only then.
    assert np.array_equal(picture(script, 0.02), picture(script, 0.06)) and not np.array_equal(*forward[:2])


class Watcher:
    """Sees and hears a clip every tenth of a second, and knows nothing else of it."""

    def __init__(self, script):
        self.spans = defaultdict(list)  # (kind, colour, surface) of a thing, by its place: when it is seen
        self.numbers, self.ground, self.sounds, self.together = set(), defaultdict(set), defaultdict(set), Counter()
        for time in np.arange(0.05, script.duration, 0.1):
            scene = next(s for s in script.scenes if s.start <= time < s.end)
            here = Counter()
            for thing in scene.things:
                if thing.start <= time < thing.end:
                    row, column = (int(x // SLOT) for x in thing.centre[::-1])
                    self.spans[thing.kind, thing.colour, scene.surface_at(row, column), row, column].append(time)
                    here[thing.kind] += 1
            self.together |= here
            if scene.number and scene.number.start <= time < scene.number.end:
                self.numbers.add((scene.number.text, scene.number.colour))
            for band in scene.bands:
                self.ground[band.surface].add(round(time, 2))
            for sound in scene.sounds:
                if sound.start <= time < sound.end:
                    self.sounds[sound.kind].add(round(time, 2))

    def answers(self, phrase: str, a: str = "", b: str = "", c: str = "") -> set[str]:
        """Every answer that what was seen and heard allows."""
        things = {key[:3]: len(times) / 10 for key, times in self.spans.items()}
        brief = {key for key, seconds in things.items() if seconds < 1.6}
        with_ = lambda where, names: {name for name in names if where[name] & self.ground.get(a, set())}
        match phrase:
            case "surface_with":
                return with_(self.ground, [s for s in list(self.ground) if s in SILENT_SURFACES])
            case "surface_under":
                return {where for kind, colour, where in things if (kind, colour) == (a, b)}
            case "colour_on":
                return {colour for kind, colour, where in things if (kind, where) == (a, b)}
            case "kind_on":
                return {kind for kind, colour, where in things if (colour, where) == (c, b)}
            case "number":
                return {text for text, _ in self.numbers}
            case "number_in":
                return {text for text, colour in self.numbers if colour == c}
            case "count":
                return {COUNTS[self.together[a] - 1]}
            case "brief_kind":
                return {kind for kind, _, _ in brief}
            case "brief_colour":
                return {colour for _, colour, _ in brief}
            case "brief_on":
                return {kind for kind, _, where in brief if where == b}
            case "what_sound":
                return set(self.sounds)
            case "sound_with":
                return with_(self.sounds, list(self.sounds))
            case "without_sound":
                return {s for s in self.ground if s in HEARD and not self.sounds.get(s)}
            case "beside":
                return {s for s in self.sounds if s != a and self.sounds[s] & self.sounds[a]}
            case "starts":
                return {s for s in self.sounds if min(self.ground.get(s, {99})) < min(self.sounds[s]) - 0.5}
        raise AssertionError(phrase)


def test_every_answer_is_the_only_one_that_a_watcher_can_give():
    asked = Counter()
    for script in SCRIPTS:
        watcher = Watcher(script)
        for question in questions(script):
            assert watcher.answers(question.phrase, **dict(question.fills)) == {question.answer}, question
            assert question.answer in question.pool or question.category == "digits"
            asked[question.category] += 1
    assert set(asked) == set(CATEGORIES) and set(CONTROLS) <= set(CATEGORIES)


def test_lines_are_those_of_the_other_world():
    rows = [row for script in SCRIPTS for row in world.labels(script, "x.mp4", AMBIENCE.questions)]
    keys = set(world.labels(THINGS_WORLD.write_script(1, 0, 6), "x.mp4")[0])
    assert all(set(row) == keys and row["choices"].count(row["answer"]) == 1 for row in rows)
    assert len({row["id"] for row in rows}) == len(rows) and {row["category"] for row in rows} == set(CATEGORIES)


def test_heard_and_silent_surfaces_have_the_same_brightness_contrast_and_spectrum():
    rng = np.random.default_rng(0)
    heard, silent = (
        np.concatenate([checks.statistics(surface, 60, rng) for surface in surfaces])
        for surfaces in (HEARD, SILENT_SURFACES)
    )
    error = np.sqrt(heard.var(0) / len(heard) + silent.var(0) / len(silent))
    assert (np.abs(heard.mean(0) - silent.mean(0)) < 4 * error).all()
    assert checks.told_apart(60, rng) < 0.58
    assert len(set(LOOKS.values())) == len(SURFACES) == 24 and set(LOOKS) == set(SURFACES)
    fields = Counter((look.field, surface in HEARD) for surface, look in LOOKS.items())
    assert set(fields.values()) == {2}


def test_neighbours_and_successors_of_one_surface_are_unlike():
    found = [checks.pixel_cosines(script, np.random.default_rng(0)) for script in SCRIPTS[:2]]
    assert all(max(c.neighbours, c.successors, c.same) < 0.5 for c in found)


def test_silent_things_alone_are_more_than_the_budget_and_things_less():
    asked = [checks.demand(script, scene, 0.15) for script in SCRIPTS[:20] for scene in script.scenes]
    mean = np.mean([(d.budget, d.things, d.silent, d.heard) for d in asked], axis=0)
    budget, things, silent, heard = mean
    assert things < budget < things + silent and heard > 1.3 * silent
    assert heard + silent + things > 4 * budget


def test_recordings_of_a_surface_differ_and_its_voice_is_its_own():
    assert set(VOICES) == set(HEARD)
    spectra = defaultdict(list)
    for surface in HEARD:
        first, second = (voice(surface, 3, np.random.default_rng(seed)) for seed in (0, 1))
        assert len(first) == 3 * RATE and np.isclose(np.abs(first).max(), 1) and not np.array_equal(first, second)
        for seed in range(6):
            wave = voice(surface, 3, np.random.default_rng(seed)).reshape(-1, 400)
            power = np.abs(np.fft.rfft(wave * np.hanning(400))) ** 2
            bands = np.log(np.add.reduceat(power, [1, 4, 8, 14, 22, 35, 55, 85, 130], axis=1) + 1e-4)
            spectra[surface].append(np.concatenate([bands.mean(0), bands.std(0)]))
    nearest = lambda x: min(HEARD, key=lambda surface: ((np.mean(spectra[surface], 0) - x) ** 2).sum())
    assert all(nearest(x) == surface for surface in HEARD for x in spectra[surface])


def test_a_clip_file_reads_back_as_the_script(tmp_path):
    (tmp_path / "again").mkdir()
    index = next(script.index for script in SCRIPTS if script.duration == 6 and script.scenes[0].sounds)
    rows, again = (world._make("ambience", 600, folder, 6, 1, index) for folder in (tmp_path, tmp_path / "again"))
    file = tmp_path / rows[0]["video"]
    assert rows == again and file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    assert file.stat().st_size < 500_000
    script, clip = SCRIPTS[index], media.decode(str(file), media.DecodeOptions())
    expected = np.stack([picture(script, t) for t in frame_clock(script.duration)]).astype(float)
    assert clip.complete and clip.frames.shape == expected.shape
    for seen, drawn in zip(clip.frames, expected):  # the textures survive H.264
        assert np.corrcoef(seen.mean(-1).ravel(), drawn.mean(-1).ravel())[0, 1] > 0.97
    sound = soundtrack(script)
    assert np.corrcoef(clip.audio[: len(sound)], sound[: len(clip.audio)])[0, 1] > 0.95


def test_films_are_of_the_world_of_things(tmp_path):
    with pytest.raises(ValueError, match="films are of the world things, not ambience"):
        world.write_world(600, 1, tmp_path, joined=2, world=AMBIENCE)


def test_the_world_of_things_is_what_it_was():
    scripts = [THINGS_WORLD.write_script(*at) for at in ((1, 3, 16), (500, 11, 16), (2000, 5, 8))]
    text = "".join(repr(script) + json.dumps(world.labels(script, "x.mp4")) for script in scripts)
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "d39a7d0cba51fe86ca839938e8a5e7ab2234a46404759b1a87b7990f3f63dd01"
    )
    means = [float(THINGS_WORLD.picture(script, time).mean()) for script in scripts for time in (0.5, 3.25)]
    assert means == pytest.approx([93.8048, 93.9122, 112.2881, 83.537, 65.1554, 65.0387], abs=0.01)
    loud = [float(np.abs(THINGS_WORLD.soundtrack(script)).mean()) for script in scripts]
    assert loud == pytest.approx([0.01624, 0.035286, 0.047823], abs=1e-5)
