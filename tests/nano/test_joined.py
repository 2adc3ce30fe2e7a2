"""Films of joined clips: the scenes of each, later; and questions with one answer over the whole film."""

from __future__ import annotations

import numpy as np
import pytest

from cg_cli.nano import frames
from cg_cli.nano.joined import film_questions, join
from cg_cli.nano.render import picture, soundtrack
from cg_cli.nano.script import write_script
from cg_cli.nano.sounds import RATE
from cg_cli.nano.tables import Hits

PARTS = [[write_script(503, 4 * index + part, longest=8) for part in range(4)] for index in range(40)]
FILMS = [join(parts, index) for index, parts in enumerate(PARTS)]


@pytest.mark.parametrize("index", range(3))
def test_a_film_is_its_clips_one_after_another(index):
    film, start = FILMS[index], 0
    sound = soundtrack(film)
    assert film.duration == sum(part.duration for part in PARTS[index])
    for part in PARTS[index]:
        for time in (0.0, part.duration / 2, part.duration - 0.04):
            assert (picture(film, start + time) == picture(part, time)).all()
        tracks = sound[start * RATE :][: part.duration * RATE], soundtrack(part)
        assert len({np.abs(track).max() > 0.1 for track in tracks}) == 1
        start += part.duration


def test_a_question_is_asked_only_if_the_whole_film_has_one_answer():
    asked = [(film, question) for film in FILMS for question in film_questions(film)]
    assert {question.category for _, question in asked} >= {"heard_kind", "audible_colour", "digits", "order", "dubbed"}
    for film, question in asked:
        assert question.phrase not in ("sounds", "sentence")
        scenes = [{thing.kind for thing in scene.things} | {scene.sound and scene.sound.kind} for scene in film.scenes]
        for name, kind in question.fills:
            if name != "v" and question.phrase != "what_at":
                assert sum(kind in kinds for kinds in scenes) == 1
        if question.category == "digits":
            assert sum(scene.number is not None for scene in film.scenes) == 1
        if question.category == "brief":
            assert sum(scene.brief is not None for scene in film.scenes) == 1
        if question.category == "off_screen":
            assert sum(question.answer in kinds for kinds in scenes) == 1


def test_the_table_compares_with_evenly_spaced_frames():
    columns = frames.conditions((8, 16))
    names = [f"{choice} {count}" for count in (8, 16) for choice in ("uniform", "pairs", "change")]
    assert [column.name for column in columns] == ["full", *names]
    lines = [
        {"seed": 1, "video": f"{film}.mp4", "condition": column.name, "kept": 1.0, "category": ["digits", "order"],
         "right": [column.name != "uniform 8", True]}
        for film in range(5) for column in columns
    ]  # fmt: skip
    table = frames.table(Hits(lines), (8, 16))
    rows = list(zip(*(list(column.cells) for column in table.columns)))
    assert rows[0][:5] == ("digits", "5", "100.0", "0.0", "100.0") and rows[2][3:6] == ("50.0", "100.0", "100.0")
    assert rows[4] == ("against uniform", "", "", "", "+50.0", "+50.0", "", "+0.0", "+0.0")
