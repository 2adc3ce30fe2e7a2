"""Clips that stand still, and what it costs to encode their pictures once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cg_cli.nano import looks, render, still
from cg_cli.nano.script import write_script
from cg_cli.nano.world import write_clip
from cg_cli.nano.worlds import SLIDES

SCRIPTS = [write_script(1729, index) for index in range(12)]
DEFAULTS = settings(max_examples=60, deadline=None)


def shown(script, time: float) -> list[tuple[str, str]]:
    scene = render.scene_at(script, time)
    return [(kind, colour) for kind, colour, *_ in render.visible(scene.things, scene.number, time)]


@DEFAULTS
@given(st.sampled_from(SCRIPTS), st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.5]))
def test_what_shows_is_what_shows_in_the_moving_clip(script, part: float, moving: float):
    time = part * script.duration
    held = still.held(script, time, moving)
    assert held <= time and shown(script, held) == shown(script, time)
    assert still.held(script, time, 1.0) == time
    assert still.held(script, held, 0.0) == still.held(script, time, 0.0)


def test_slides_stand_still_until_something_appears_or_goes():
    script = SCRIPTS[0]
    times = np.arange(0, script.duration, 0.1)
    pictures = [still.slides(script, time) for time in times]
    changed = [not np.array_equal(one, next_) for one, next_ in zip(pictures, pictures[1:])]
    expected = [shown(script, one) != shown(script, next_) for one, next_ in zip(times, times[1:])]
    assert changed == expected and any(changed)


def test_conditions_have_names_of_their_own():
    columns = looks.conditions(looks.VALUES, looks.KEEPS)
    assert len({column.name for column in columns}) == len(columns)
    assert {column.name for column in columns if column.folded} == {
        looks.name_of(value + looks.MERGED, keep) for value in ("exact", "4", "8") for keep in (0.25, 0.1)
    }
    assert {column.pruner for column in columns if column.keep == 1} == {"none"}


def test_slides_are_encoded_in_part(tmp_path):
    write_clip(write_script(1729, 0, 6), tmp_path / "slides.mp4", SLIDES)
    shares = looks.encoded_shares(tmp_path, ["slides.mp4"], looks.VALUES)
    assert shares["off"] == 1.0
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert 0 < shares["8"] < 1
