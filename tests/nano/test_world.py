"""The nano world: scripts that make sense, labels that follow from them, files that hold what the script says."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from cg_cli import media
from cg_cli.nano.questions import CATEGORIES, facts, questions, right, sentence
from cg_cli.nano.render import cells, frame_clock, picture, soundtrack
from cg_cli.nano.script import SCENE_SECONDS, SECONDS, write_script
from cg_cli.nano.sounds import RATE, voice
from cg_cli.nano.things import AUDIBLE, CELLS, FRAME, KINDS, SILENT, silhouette
from cg_cli.nano.world import labels, write_clip, write_world

pytestmark = pytest.mark.slow

SCRIPTS = [write_script(500, index) for index in range(200)]


@pytest.mark.parametrize("script", SCRIPTS[:60], ids=lambda s: str(s.index))
def test_a_script_keeps_the_rules_of_the_world(script):
    assert SECONDS[0] <= script.duration <= SECONDS[1]
    assert script.scenes[0].start == 0 and script.scenes[-1].end == script.duration
    kinds = []
    for before, after in zip(script.scenes, script.scenes[1:]):
        assert before.end == after.start
    for scene in script.scenes:
        assert scene.end - scene.start >= SCENE_SECONDS
        shown = len(scene.things) + (scene.number is not None)
        assert len({t.place for t in scene.things}) == len(scene.things) and shown <= 4  # a quarter each
        kinds += {t.kind for t in scene.things}
        if scene.event == "sounding":
            assert scene.sound.kind == scene.large[0].kind and scene.large[0].active
        if scene.event == "dubbed":
            assert scene.sound.kind != scene.large[0].kind
        if scene.event == "off_screen":
            assert not scene.large
        if scene.event in ("off_screen", "dubbed"):
            kinds.append(scene.sound.kind)
        for thing in scene.things:
            assert scene.start <= thing.start < thing.end <= scene.end
    assert len(kinds) == len(set(kinds))  # no kind occurs in two scenes


def test_scripts_depend_on_seed_and_index_only():
    assert write_script(3, 5) == write_script(3, 5)
    assert write_script(3, 5) != write_script(3, 6) and write_script(3, 5) != write_script(4, 5)


def test_large_things_differ_in_size_and_stay_in_their_quarter():
    sizes = {tuple(sorted(t.size for t in s.large)) for script in SCRIPTS for s in script.scenes if len(s.large) == 2}
    assert max(large / small for small, large in sizes) > 1.3
    one, two = (
        [sum(t.size**2 for t in s.large) for script in SCRIPTS for s in script.scenes if len(s.large) == n]
        for n in (1, 2)
    )
    assert max(one) > min(two)  # their number cannot always be read off their area
    for script in SCRIPTS:
        for thing in (t for scene in script.scenes for t in scene.large):
            reach = thing.size / 2 + max(thing.swing[:2])  # it stays in its quarter even while it swings
            for centre, low in zip(
                thing.centre, (FRAME / 2 * ("right" in thing.place), FRAME / 2 * ("bottom" in thing.place))
            ):
                assert low - 1e-6 <= centre - reach and centre + reach <= low + FRAME / 2 + 1e-6


def test_every_category_occurs_and_every_answer_is_among_its_choices():
    rows = [row for script in SCRIPTS for row in labels(script, "x.mp4")]
    assert set(CATEGORIES) == {row["category"] for row in rows}
    for row in rows:
        assert (row["choices"].count(row["answer"]) == 1 and 2 <= len(row["choices"]) <= 4) or row[
            "category"
        ] == "sentence"
        assert len(set(row["choices"])) == len(row["choices"])
    assert len({row["id"] for row in rows}) == len(rows)


def test_questions_of_a_clip_do_not_contradict_each_other():
    for script in SCRIPTS:
        answers = {}
        for question in questions(script):
            asked = (question.phrase, question.fills)
            assert answers.setdefault(asked, question.answer) == question.answer


def test_at_a_place_that_is_asked_about_nothing_else_is_ever_seen():
    for script in SCRIPTS[:40]:
        places = {dict(q.fills)["a"]: q.answer for q in questions(script) if q.phrase == "what_at"}
        for time in np.arange(0, script.duration, 0.2) if places else ():
            kinds, _, share = cells(script, time)
            for place, answer in places.items():
                rows = slice(0, 4) if "top" in place else slice(4, 8)
                columns = slice(0, 4) if "left" in place else slice(4, 8)
                seen = kinds[rows, columns][share[rows, columns] > 0.15]
                assert {KINDS[k - 1] for k in np.unique(seen)} <= {answer}


def test_only_one_thing_shows_for_a_moment_where_that_is_asked():
    for script in SCRIPTS:
        spans = [t.end - t.start for scene in script.scenes for t in scene.things]
        spans += [scene.number.end - scene.number.start for scene in script.scenes if scene.number]
        if any(q.category == "brief" for q in questions(script)):
            assert sum(span < 2 for span in spans) == 1


@pytest.mark.parametrize(
    "category", ["audible_colour", "audible_place", "silent", "digits", "off_screen", "heard_kind"]
)
def test_no_answer_is_likely_before_the_clip_is_seen(category):
    answers = Counter(q.answer for script in SCRIPTS for q in questions(script) if q.category == category)
    assert answers.most_common(1)[0][1] < 0.45 * sum(answers.values())


def test_a_picture_shows_its_things_where_the_labels_say():
    for script in SCRIPTS[:10]:
        for time in frame_clock(script.duration)[::5]:
            kinds, colours, share = cells(script, time)
            assert (
                kinds.shape == (CELLS, CELLS)
                and ((kinds > 0) == (colours > 0)).all()
                and ((kinds > 0) <= (share > 0)).all()
            )
            scene = next(s for s in script.scenes if time < s.end)
            expected = {t.kind for t in scene.things if t.start <= time < t.end}
            if scene.number and scene.number.start <= time < scene.number.end:
                expected |= set(scene.number.text)
            assert {KINDS[k - 1] for k in np.unique(kinds[kinds > 0])} <= expected
            large = [t for t in scene.large if t.start <= time < t.end]
            assert {t.kind for t in large} <= {KINDS[k - 1] for k in np.unique(kinds[kinds > 0])}


def test_pictures_and_sounds_are_pure():
    script = SCRIPTS[3]
    assert np.array_equal(picture(script, 1.5), picture(script, 1.5))
    assert np.array_equal(soundtrack(script), soundtrack(script))
    assert picture(script, 0).shape == (FRAME, FRAME, 3)
    assert len(soundtrack(script)) == script.duration * RATE


def test_every_kind_looks_and_sounds_different():
    shapes = [silhouette(kind, 48)[0] - 0.5 * silhouette(kind, 48)[1] for kind in (*AUDIBLE, *SILENT)]
    for i, a in enumerate(shapes):
        for b in shapes[:i]:
            assert np.abs(a - b).mean() > 0.03
    spectra = []
    for kind in AUDIBLE:
        wave = voice(kind, 2.0, np.random.default_rng(0))
        assert len(wave) == 2 * RATE and np.isclose(np.abs(wave).max(), 1)
        power = np.abs(np.fft.rfft(wave)) ** 2
        bands = np.add.reduceat(power, [0, 300, 800, 1600, 3000, 5000, 8000])
        spectra.append(bands / bands.sum())
    assert len({tuple(np.round(s, 2)) for s in spectra}) == len(AUDIBLE)


def test_sound_is_heard_when_the_script_says():
    script = next(s for s in SCRIPTS if s.scenes[0].sound and s.scenes[0].sound.start > 1)
    track, start = soundtrack(script), script.scenes[0].sound.start
    loud = lambda a, b: float(np.sqrt((track[int(a * RATE) : int(b * RATE)] ** 2).mean()))
    assert loud(start, script.scenes[0].sound.end) > 3 * loud(0, start - 0.1)


@pytest.mark.parametrize(
    ("said", "meant", "verdict"),
    [
        ("A red bell rings, then two blue drums sound.", "A red bell rings, then two blue drums sound.", True),
        ("a red bell rings then two blue drums sound", "A red bell rings, then two blue drums sound.", True),
        ("Two blue drums sound, then a red bell rings.", "A red bell rings, then two blue drums sound.", False),
        ("A red bell rings.", "A red bell rings, then two blue drums sound.", False),
        ("A green bell rings, then two blue drums sound.", "A red bell rings, then two blue drums sound.", False),
    ],
)
def test_a_sentence_is_judged_by_its_facts(said, meant, verdict):
    assert right("sentence", said, meant) is verdict


def test_short_answers_match_without_case_articles_and_marks():
    assert right("silent", "The red.", "red") and not right("silent", "redd", "red") and not right("digits", "4", "47")
    assert len(facts("".join(part for part, _ in sentence(SCRIPTS[0])))) == len(SCRIPTS[0].scenes)


def test_a_clip_file_reads_back_as_the_script(tmp_path):
    script = write_script(501, 0, longest=6)
    write_clip(script, tmp_path / "clip.mp4")
    clip = media.decode(str(tmp_path / "clip.mp4"), media.DecodeOptions())
    assert clip.complete and clip.audio_status == "used" and clip.warnings == ()
    assert abs(clip.duration_s - script.duration) < 0.1
    expected = np.stack([picture(script, t) for t in frame_clock(script.duration)])
    assert clip.frames.shape == expected.shape
    assert np.abs(clip.frames.astype(float) - expected).mean() < 6  # what H.264 costs
    sound, reference = clip.audio[: len(soundtrack(script))], soundtrack(script)
    assert np.corrcoef(sound, reference[: len(sound)])[0, 1] > 0.95  # in step: AAC's delay is compensated


def test_a_world_is_the_same_bytes_every_time(tmp_path):
    first, second = (write_world(502, 2, tmp_path / name, longest=6) for name in "ab")
    for file in sorted(first.parent.iterdir()):
        assert file.read_bytes() == (second.parent / file.name).read_bytes()
    rows = [json.loads(line) for line in first.read_text().splitlines()]
    assert {row["video"] for row in rows} == {"clip-0000.mp4", "clip-0001.mp4"}
    assert all(set(row) == {"video", "question", "answer", "choices", "category", "type", "id"} for row in rows)
