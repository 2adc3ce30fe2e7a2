"""The page: it holds the scene's cells, takes further runs in, and works in a browser."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SAMPLES
from helpers.browser import BROWSER, DRIVER, browser
from PIL import Image

from cg_cli import media
from cg_cli.engine.inputs import make_pruner
from cg_cli.engine.session import Session
from cg_cli.errors import CgError, UsageError
from cg_cli.media.clip import SAMPLE_RATE, Clip
from cg_cli.pruning import budget as budgets
from cg_cli.pruning.stream import TEXT
from cg_cli.records import video_identity
from cg_cli.settings.resolve import resolve
from cg_cli.viz import page
from cg_cli.viz import scene as scenes
from cg_cli.viz.scene import Cells, Run, Scene, Sounds

QUESTION = 'What do you hear? </script><b>"it\'s"</b> \u2028 😀'
RUNS = (("contextguard", 0.45), ("random", 0.45), ("fastv", 0.25))


@pytest.fixture(scope="module")
def nano() -> Session:
    return Session.open(resolve({"model": "nano", "offline": True, "max_new_tokens": 8}))


def scene(session: Session, video: Path, runs=RUNS, questions=(), **settings) -> Scene:
    """``video`` as the pruners ``runs`` saw it. Of one between layers, the layers that read each token are made up."""
    session = replace(session, settings=replace(session.settings, **settings))
    clip = media.decode(str(video), session.decode_options)
    stream = session.backbone.encode(clip)
    done = []
    for name, keep in runs:
        own = replace(session.settings, pruner=name, keep=keep)
        pruner, budget = make_pruner(own).with_predictor(session.pruner.predictor), budgets.plan(stream, keep)
        selection = pruner.select(stream, budget)
        read = torch.rand(len(selection.indices), generator=torch.Generator().manual_seed(0)) < keep
        depth = (
            torch.where(read | (stream.modality[selection.indices] == TEXT), 1.0, 0.25)
            if pruner.stage == "decoder"
            else None
        )
        records = tuple(replace(session, settings=own, pruner=pruner).ask(str(video), questions)) if questions else ()
        done.append(scenes.run(name, keep, pruner, stream, budget, selection, depth, records))
    made = scenes.scene(str(video), video_identity(video), clip, stream, session.backbone.frame_multiple)
    return replace(made, runs=tuple(done))


def made(grids: int, segment=None, **more) -> Scene:
    """A scene of 2 x 2 cells and no model; a grid a second."""
    rng = np.random.default_rng(0)
    grid, row, column = (values.ravel() for values in np.meshgrid(np.arange(grids), [0, 1], [0, 1], indexing="ij"))
    kept = rng.random(4 * grids) < 0.5
    kept[0] = True
    into = np.where(kept, -1, 0)
    score = np.where(kept, rng.random(4 * grids), np.inf)  # JSON has none
    cells = Cells(grid, row, column, kept.astype(float), into, score, np.where(kept, 0, 1))
    run = Run("made", 0.5, cells, Sounds(*(np.zeros(0, int),) * 3), ("kept", "dropped"), None, segment)
    frames = rng.integers(0, 255, (grids, 56, 56, 3)).astype(np.uint8)
    clip = Clip("made.mp4", frames, np.arange(grids) + 0.5, 1.0, None, "absent", float(grids), 56, 56)
    return Scene(**{"video": "made.mp4", "identity": "1:1:1", "clip": clip, "grid_frames": 1, "grid_start_s": np.arange(float(grids)),
                    "rows": 2, "columns": 2, "runs": (run,)} | more)  # fmt: skip


def check(held: dict, scene: Scene) -> None:
    """Every cell and sound of ``scene`` is told by a page's data."""
    for run, told in zip(scene.runs, held["runs"], strict=True):
        cells, size = run.cells, scene.rows * scene.columns
        place = (cells.grid * scene.rows + cells.row) * scene.columns + cells.column
        at = np.array([held["shown"].index(grid) for grid in cells.grid], int) * size + place % size
        assert np.array(told["kept"])[at] == pytest.approx(cells.kept, abs=1e-4)
        assert np.array_equal(np.array(told["into"])[at], np.where(cells.into >= 0, place[cells.into], -1))
        assert np.array(told["takes"])[at].tolist() == [(cells.into == n).sum() for n in range(len(place))]
        assert np.array(told["score"], float)[at] == pytest.approx(cells.score, abs=1e-4, nan_ok=True)
        assert [told["reasons"][n] for n in np.array(told["reason"])[at]] == [run.reasons[n] for n in cells.reason]
        assert (
            told["sound_kept"] == pytest.approx(run.sounds.kept, abs=1e-4)
            and told["sound_into"] == run.sounds.into.tolist()
        )
        assert told["video_kept"] == pytest.approx(cells.kept.sum(), abs=0.1)
        assert told["share"] == pytest.approx([level.mean() for level in scene.level(run) if level.size], abs=1e-4)
        assert (told["segment"] is None) == (run.segment is None) and (
            run.segment is None or told["segment"] == run.segment.tolist()
        )


@pytest.mark.parametrize("clip", ["dog", "clocks", "off-screen"])
def test_a_page_holds_the_cells_of_every_run(nano, clip):
    runs = [*RUNS, *((name, keep) for name in ("evs", "visionzip", "uniform") for keep in (0.15, 0.6)), ("none", 1.0)]
    drawn = scene(nano, SAMPLES / f"{clip}.mp4", runs)
    held = page.read(page.text(drawn))
    check(held, drawn)
    assert len(held["frames"]) == len(held["start_s"]) == drawn.grids and held["frames"][0].startswith(
        "data:image/jpeg;base64,"
    )
    for grid, uri in enumerate(held["frames"]):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), float)
        assert np.abs(shown - drawn.clip.frames[grid * drawn.grid_frames]).mean() < 8  # a JPEG of that frame
    assert held["sound"].startswith("data:audio/mp4;base64,") and len(held["wave"][0]) == 1000


def test_of_a_long_clip_segments_begin_on_the_page(tmp_path):
    segment = np.repeat(np.arange(7), [3, 100, 1, 99, 50, 147, 200])
    long = made(600, segment)
    held = page.data(long)
    assert len(held["shown"]) <= page.SHOWN and {0, 3, 103, 104, 203, 253, 400, 599} <= set(held["shown"])
    assert np.diff(held["shown"]).max() <= 5 and len(held["runs"][0]["share"]) == 600
    assert held["runs"][0]["kept"] == [
        int(kept) for grid in held["shown"] for kept in long.runs[0].cells.kept[4 * grid : 4 * grid + 4]
    ]
    many = page.data(made(600, np.arange(600)))
    assert len(many["shown"]) == page.SHOWN
    page.write(tmp_path / "a.html", long)
    page.write(tmp_path / "a.html", replace(long, runs=(replace(long.runs[0], pruner="other", segment=None),)))
    both = page.read((tmp_path / "a.html").read_text())
    assert both["shown"] == held["shown"] and len(both["runs"]) == 2  # the first run's choice stays


def test_runs_are_added_to_the_page_of_a_clip(tmp_path):
    file, first = tmp_path / "a.html", made(4)
    read = lambda: page.read(file.read_text(encoding="utf-8"))
    run = first.runs[0]
    page.write(file, first)
    page.write(file, replace(first, runs=(replace(run, keep=0.25),)))
    again = replace(run, cells=replace(run.cells, kept=np.ones(16)))
    page.write(file, replace(first, runs=(again, replace(run, pruner="new"))))
    assert [told["name"] for told in read()["runs"]] == ["made 0.5", "made 0.25", "new 0.5"]
    assert read()["runs"][0]["kept"] == [1] * 16 and read()["runs"][1]["kept"] == run.cells.kept.tolist()
    for other in (replace(first, identity="2:2:2"), made(5), replace(first, grid_start_s=first.grid_start_s * 2)):
        page.write(file, other)
        assert [told["name"] for told in read()["runs"]] == ["made 0.5"]  # another clip, or other frames of it
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_file_of_somebody_else_stays(tmp_path):
    file = tmp_path / "a.html"
    block = b'<script type="application/json" id="data">%s</script>'
    for foreign in (b"<p>my notes</p>", b"\xff\xfe", block % b"{", block % b"[1]", block % b'{"schema":"other/1"}'):
        file.write_bytes(foreign)
        with pytest.raises(UsageError, match="is no page of cg: name another file"):
            page.write(file, made(2))
        assert file.read_bytes() == foreign
    with pytest.raises(CgError, match="cannot write .*No such file"):
        page.write(tmp_path / "nowhere" / "a.html", made(2))
    with pytest.raises(CgError, match="cannot read .*Is a directory"):
        page.write(tmp_path, made(2))


def test_nothing_that_is_said_ends_the_data():
    name = "</script><!--\udcff\u2028'\".mp4"  # as Python has an undecodable byte of a file name
    text = page.text(made(2, video=name))
    assert text.count("</script>") == 2 and text.encode("utf-8")
    assert page.read(text)["video"] == name


def test_sound_without_pictures_and_too_much_of_it():
    quiet = np.zeros(SAMPLE_RATE * 61, np.float32)
    clip = Clip("a.mp3", None, None, 0.0, quiet, "used", 61.0, 0, 0)
    none, sounds = np.zeros(0, int), Sounds(np.arange(3) / 25, np.array([1.0, 0, 0]), np.array([-1, 0, -1]))
    run = Run(
        "made",
        0.5,
        Cells(none, none, none, none.astype(float), none, none.astype(float), none),
        sounds,
        ("kept", "dropped"),
        None,
        None,
    )
    heard = Scene("a.mp3", "1:1:1", clip, 2, np.zeros(0), 0, 0, (run,))
    held = page.read(page.text(heard))
    check(held, heard)
    assert not held["frames"] and held["sound"] is None and held["wave"][0] == [0] * 1000
    assert page.data(replace(heard, clip=replace(clip, audio=quiet[:100], duration_s=0.01)))["sound"]


# In a browser

# The colours at the middle of each cell, row by row; read off a copy, as reading the canvas itself would slow it down,
# and be complained of.
PIXELS = """const seen = document.getElementById("picture"), [rows, columns] = arguments;
const copy = Object.assign(document.createElement("canvas"), {width: seen.width, height: seen.height}).getContext("2d", {willReadFrequently: true});
copy.drawImage(seen, 0, 0);
return Array.from({length: rows * columns}, (_, n) => [...copy.getImageData(
  seen.width * (n % columns + 0.5) / columns, seen.height * (Math.floor(n / columns) + 0.5) / rows, 1, 1).data].slice(0, 3))"""
DARK, FIRST_SEGMENT = (16, 19, 26), (0, 114, 178)  # what is laid over cells
BOX = "const at = document.getElementById(arguments[0]).getBoundingClientRect(); return [at.left, at.top, at.width, at.height]"
TIP = 'return document.getElementById("tip").hidden ? "" : document.getElementById("tip").innerText'
TEXT_OF = "return document.getElementById(arguments[0]).innerText"


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    if not (BROWSER and DRIVER):
        pytest.skip("no chromium and chromedriver")
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        opened.size(1200, 1500)
        yield opened


@pytest.fixture(scope="module")
def dog(nano, tmp_path_factory):
    """The scene of a sample with a question, and its page."""
    drawn, file = scene(nano, SAMPLES / "dog.mp4", questions=[QUESTION]), tmp_path_factory.mktemp("page") / "dog.html"
    page.write(file, drawn)
    return drawn, file


@pytest.fixture
def opened(window, dog):
    """The page in the window, drawn; at the end, nothing was complained of, and nothing fetched."""
    window.open(dog[1])
    window.until('document.getElementById("picture").width > 300')
    yield window
    assert window.errors() == []
    fetched = window.js(
        'return performance.getEntriesByType("resource").map((entry) => entry.name).filter((name) => !name.startsWith("data:"))'
    )
    assert fetched == []


def over(window, row: int, column: int) -> None:
    """The mouse over a cell."""
    left, top, width, height = window.js(BOX, "picture")
    window.move(left + width * (column + 0.5) / 8, top + height * (row + 0.5) / 8)


def cell(scene: Scene, run: int, grid: int, want) -> int:
    """The first cell of a run in a grid for which ``want(cells)`` is true."""
    cells = scene.runs[run].cells
    return int(np.flatnonzero((cells.grid == grid) & want(cells))[0])


def test_pointing_at_a_cell_tells_why(opened, dog):
    scene = dog[0]
    run = scene.runs[0]
    cells = run.cells
    for want, fate in ((lambda c: c.kept == 1, "kept"), (lambda c: c.into >= 0, "merged")):
        one = cell(scene, 0, 0, want)
        over(opened, cells.row[one], cells.column[one])
        lines = opened.js(TIP).split("\n")
        assert [line for line in lines if line][:3] == [
            f"{fate}: {run.reasons[cells.reason[one]]}", f"row {cells.row[one] + 1}, column {cells.column[one] + 1}, 0.00 s", f"score {cells.score[one]:.4f}".rstrip("0"),
        ]  # fmt: skip
        into = cells.into[one]
        where = "" if into < 0 else f"merged into row {cells.row[into] + 1}, column {cells.column[into] + 1}"
        assert where in opened.js(TIP)
    opened.move(5, 5)
    assert opened.js(TIP) == ""


def test_overlay_pixels_are_the_selection(opened, dog):
    """Kept cells are the frame as it is; the others are dark, in proportion to the layers that do not read them, or of
    their segment's colour."""
    scene, seen = dog[0], []
    for run in range(3):
        opened.press(str(run + 1))
        seen.append(opened.js(PIXELS, scene.rows, scene.columns))
    opened.press("o")
    bare = opened.js(PIXELS, scene.rows, scene.columns)
    over = lambda plain, colour, alpha: [old + (new - old) * alpha for old, new in zip(plain, colour)]
    for run, pixels in zip(scene.runs, seen, strict=True):
        for level, merged, pixel, plain in zip(
            scene.level(run)[0].ravel(), scene.merged(run)[0].ravel(), pixels, bare, strict=True
        ):
            if level == 1:
                assert pixel == plain
            elif merged:
                assert pixel == pytest.approx(over(over(plain, DARK, 0.52), FIRST_SEGMENT, 0.4), abs=2)
            else:
                assert pixel == pytest.approx(over(plain, DARK, 0.72 * (1 - level)), abs=2)
    assert [scene.merged(run)[0].any() for run in scene.runs] == [True, False, False]


def test_keys_move_in_time_and_switch_pruners(opened, dog):
    for keys, held, seconds in (
        (["right", "right"], None, 2),
        (["right"], "shift", 5),
        (["left"], None, 4),
        (["home"], None, 0),
        (["end"], None, 5),
    ):
        opened.press(*keys, held=held)
        assert opened.js(TEXT_OF, "now").startswith(f"{seconds:.2f} s · grid {seconds + 1} of 6")
        assert opened.js('return document.getElementById("scrub").value') == str(seconds)
    pressed = 'return [...document.querySelectorAll("#runs button")].findIndex((one) => one.getAttribute("aria-pressed") === "true")'
    for key, run in (("]", 1), ("3", 2), ("]", 2), ("[", 1), ("9", 1)):
        opened.press(key)
        assert opened.js(pressed) == run
    opened.js('document.querySelector("#runs button").focus()')
    opened.press("enter")
    assert opened.js(pressed) == 0 and opened.js(
        'return document.activeElement === document.querySelector("#runs button")'
    )
    left, top, width, height = opened.js(BOX, "line")
    opened.move(84 + left + (width - 90) * 3.5 / 6.02, top + 20, "pointerDown", "pointerUp")
    assert opened.js(TEXT_OF, "now").startswith("3.00 s")
    assert "picture: " in opened.js(TIP) and "sound: kept" in opened.js(TIP)


def test_cells_by_keyboard_to_where_one_was_merged(opened, dog):
    scene = dog[0]
    cells = scene.runs[0].cells
    one = cell(scene, 0, 1, lambda c: (c.into >= 0) & (c.grid[c.into] != 1))
    opened.press("right")
    opened.js('document.getElementById("picture").focus({focusVisible: true})')
    opened.press(*"s" * cells.row[one], *"d" * cells.column[one])
    into = cells.into[one]
    assert f"column {cells.column[into] + 1} at {scene.grid_start_s[cells.grid[into]]:.2f} s" in opened.js(
        TEXT_OF, "said"
    )
    opened.press("enter")
    assert opened.js(TEXT_OF, "now").startswith(f"{scene.grid_start_s[cells.grid[into]]:.2f} s")
    assert "stands for" in opened.js(TEXT_OF, "said") and "kept" in opened.js(TEXT_OF, "said")


def test_two_pruners_side_by_side(opened, dog):
    scene = dog[0]
    apart = (scene.level(scene.runs[0]) != scene.level(scene.runs[1])).sum((1, 2))
    opened.js(
        'const other = document.getElementById("other"); other.value = 1; other.dispatchEvent(new Event("change"))'
    )
    assert opened.js(TEXT_OF, "apart") == f"in {apart[0]} of 64 cells here, {apart.sum()} of 384 on the page"


def test_what_was_asked_and_what_it_took(opened, dog):
    from cg_cli.console.output import figures

    scene = dog[0]
    asked = opened.js('return document.getElementById("asked").textContent')
    assert QUESTION in asked and all(record.answer in asked for run in scene.runs for record in run.records)
    rows = opened.js(
        'return [...document.querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent))'
    )
    told = [[list(row) for section in figures(run.records) for row in section] for run in scene.runs]
    assert rows == [[*first[:2], *(text for run in told for text in run[n][2:])] for n, first in enumerate(told[0])]
    assert opened.js("return document.title") == "cg: dog.mp4"


def test_a_narrow_window_needs_no_sideways_scrolling(opened):
    opened.size(420, 900)
    try:
        opened.until("document.documentElement.scrollWidth <= innerWidth")
        assert opened.js(BOX, "picture")[2] > 300
    finally:
        opened.size(1200, 1500)


def test_the_sound_plays_and_time_with_it(opened):
    left, top, width, height = opened.js(BOX, "play")
    opened.move(
        left + width / 2, top + height / 2, "pointerDown", "pointerUp"
    )  # a browser plays nothing that nobody clicked at
    opened.until('document.getElementById("scrub").value >= 1')
    opened.js('document.getElementById("play").click()')
    opened.until('document.getElementById("play").textContent === "play"')


def test_sound_alone_has_a_page(window, tmp_path):
    clip = Clip("a.mp3", None, None, 0.0, np.sin(np.arange(SAMPLE_RATE * 3) / 20).astype(np.float32), "used", 3.0, 0, 0)
    none, sounds = np.zeros(0, int), Sounds(np.arange(75) / 25, (np.arange(75) % 2).astype(float), np.full(75, -1))
    run = Run(
        "made",
        0.5,
        Cells(none, none, none, none.astype(float), none, none.astype(float), none),
        sounds,
        ("kept", "dropped"),
        None,
        None,
    )
    page.write(tmp_path / "a.html", Scene("a.mp3", "1:1:1", clip, 2, np.zeros(0), 0, 0, (run,)))
    window.open(tmp_path / "a.html")
    window.press("right")
    assert window.js(TEXT_OF, "now") == "1.00 s" and window.js(BOX, "picture")[2] == 0
    left, top, width, height = window.js(BOX, "line")
    window.move(84 + left + (width - 90) * 2.02 / 3, top + 20)
    assert "sound: dropped" in window.js(TIP)
    assert window.errors() == []
