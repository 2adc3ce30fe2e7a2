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
from cg_cli.engine.inputs import video_content
from cg_cli.engine.session import Session
from cg_cli.engine.setup import open_session
from cg_cli.errors import CgError, UsageError
from cg_cli.media.clip import SAMPLE_RATE, Clip
from cg_cli.pruning import budget as budgets
from cg_cli.pruning import registry
from cg_cli.pruning.stream import TEXT
from cg_cli.settings.resolve import resolve_settings
from cg_cli.viz import page
from cg_cli.viz import scene as scenes
from cg_cli.viz.scene import AudioTokens, PrunerResult, Scene, VideoTokens

pytestmark = pytest.mark.slow

QUESTION = 'What do you hear? </script><b>"it\'s"</b> \u2028 😀'
RUNS = (("contextguard", 0.45), ("random", 0.45), ("fastv", 0.25))


@pytest.fixture(scope="module")
def nano() -> Session:
    return open_session(resolve_settings({"model": "nano", "offline": True, "max_new_tokens": 8}))


def scene(session: Session, video: Path, runs=RUNS, questions=()) -> Scene:
    """``video`` under the pruners ``runs``. For a decoder pruner, the layers that attend to each token are made up."""
    clip = media.decode(str(video), session.decode_options)
    stream = session.backbone.encode(clip)
    done = []
    for name, keep in runs:
        pruner, budget = registry.make(name).with_predictor(session.pruner.predictor), budgets.plan(stream, keep)
        selection = pruner.select(stream, budget)
        read = torch.rand(len(selection.indices), generator=torch.Generator().manual_seed(0)) < keep
        depth = (
            torch.where(read | (stream.modality[selection.indices] == TEXT), 1.0, 0.25)
            if pruner.stage == "decoder"
            else None
        )
        own = replace(session, keep=keep, pruner=pruner)
        records = tuple(own.answer(str(video), questions)) if questions else ()
        done.append(scenes.make_result(name, keep, pruner, stream, budget, selection, depth, records))
    base = scenes.make_scene(str(video), video_content(video), clip, stream, session.backbone.frame_multiple)
    return replace(base, results=tuple(done))


def fake_scene(grids: int, segment=None, **more) -> Scene:
    """A scene of 2 x 2 cells and no model; a grid a second."""
    rng = np.random.default_rng(0)
    grid, row, column = (values.ravel() for values in np.meshgrid(np.arange(grids), [0, 1], [0, 1], indexing="ij"))
    kept = rng.random(4 * grids) < 0.5
    kept[0] = True
    into = np.where(kept, -1, 0)
    score = np.where(kept, rng.random(4 * grids), np.inf)  # JSON has none
    cells = VideoTokens(grid, row, column, kept.astype(float), into, score, np.where(kept, 0, 1))
    run = PrunerResult("made", 0.5, cells, AudioTokens(*(np.zeros(0, int),) * 3), ("kept", "dropped"), None, segment)
    frames = rng.integers(0, 255, (grids, 56, 56, 3)).astype(np.uint8)
    clip = Clip("made.mp4", frames, np.arange(grids) + 0.5, 1.0, None, "absent", float(grids), 56, 56)
    fields = {
        "video": "made.mp4",
        "identity": "1:1:1",
        "clip": clip,
        "grid_frames": 1,
        "grid_start_s": np.arange(float(grids)),
        "rows": 2,
        "columns": 2,
        "results": (run,),
    }
    return Scene(**fields | more)


def check(content: dict, scene: Scene) -> None:
    """Every token of ``scene`` is in a page's data."""
    for run, entry in zip(scene.results, content["runs"], strict=True):
        cells, size = run.video_tokens, scene.rows * scene.columns
        place = (cells.grid * scene.rows + cells.row) * scene.columns + cells.column
        at = np.array([content["shown"].index(grid) for grid in cells.grid], int) * size + place % size
        assert np.array(entry["kept"])[at] == pytest.approx(cells.kept, abs=1e-4)
        assert np.array_equal(np.array(entry["into"])[at], np.where(cells.into >= 0, place[cells.into], -1))
        assert np.array(entry["takes"])[at].tolist() == [(cells.into == n).sum() for n in range(len(place))]
        assert np.array(entry["score"], float)[at] == pytest.approx(cells.score, abs=1e-4, nan_ok=True)
        assert [entry["reasons"][n] for n in np.array(entry["reason"])[at]] == [run.reasons[n] for n in cells.reason]
        assert (
            entry["sound_kept"] == pytest.approx(run.audio_tokens.kept, abs=1e-4)
            and entry["sound_into"] == run.audio_tokens.into.tolist()
        )
        assert entry["video_kept"] == pytest.approx(cells.kept.sum(), abs=0.1)
        assert entry["share"] == pytest.approx([level.mean() for level in scene.kept_map(run) if level.size], abs=1e-4)
        assert (entry["segment"] is None) == (run.segment is None) and (
            run.segment is None or entry["segment"] == run.segment.tolist()
        )


@pytest.mark.parametrize("clip", ["dog", "clocks", "off-screen"])
def test_a_page_holds_the_cells_of_every_run(nano, clip):
    runs = [*RUNS, *((name, keep) for name in ("evs", "visionzip", "uniform") for keep in (0.15, 0.6)), ("none", 1.0)]
    clip_scene = scene(nano, SAMPLES / f"{clip}.mp4", runs)
    content = page.read(page.text(clip_scene))
    check(content, clip_scene)
    assert len(content["frames"]) == len(content["start_s"]) == clip_scene.grids and content["frames"][0].startswith(
        "data:image/jpeg;base64,"
    )
    for grid, uri in enumerate(content["frames"]):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), float)
        assert np.abs(shown - clip_scene.clip.frames[grid * clip_scene.grid_frames]).mean() < 8  # a JPEG of that frame
    assert content["sound"].startswith("data:audio/mp4;base64,") and len(content["wave"][0]) == 1000


def test_of_a_long_clip_segments_begin_on_the_page(tmp_path):
    segment = np.repeat(np.arange(7), [3, 100, 1, 99, 50, 147, 200])
    long = fake_scene(600, segment)
    content = page.data(long)
    assert len(content["shown"]) <= page.MAX_GRIDS and {0, 3, 103, 104, 203, 253, 400, 599} <= set(content["shown"])
    assert np.diff(content["shown"]).max() <= 5 and len(content["runs"][0]["share"]) == 600
    assert content["runs"][0]["kept"] == [
        int(kept) for grid in content["shown"] for kept in long.results[0].video_tokens.kept[4 * grid : 4 * grid + 4]
    ]
    many = page.data(fake_scene(600, np.arange(600)))
    assert len(many["shown"]) == page.MAX_GRIDS
    page.write(tmp_path / "a.html", long)
    page.write(tmp_path / "a.html", replace(long, results=(replace(long.results[0], pruner="other", segment=None),)))
    both = page.read((tmp_path / "a.html").read_text())
    assert both["shown"] == content["shown"] and len(both["runs"]) == 2  # the first run's choice stays


def test_runs_are_added_to_the_page_of_a_clip(tmp_path):
    file, first = tmp_path / "a.html", fake_scene(4)
    read = lambda: page.read(file.read_text(encoding="utf-8"))
    run = first.results[0]
    page.write(file, first)
    page.write(file, replace(first, results=(replace(run, keep=0.25),)))
    again = replace(run, video_tokens=replace(run.video_tokens, kept=np.ones(16)))
    page.write(file, replace(first, results=(again, replace(run, pruner="new"))))
    assert [entry["name"] for entry in read()["runs"]] == ["made 0.5", "made 0.25", "new 0.5"]
    assert read()["runs"][0]["kept"] == [1] * 16 and read()["runs"][1]["kept"] == run.video_tokens.kept.tolist()
    for other in (replace(first, identity="2:2:2"), fake_scene(5), replace(first, grid_start_s=first.grid_start_s * 2)):
        page.write(file, other)
        assert [entry["name"] for entry in read()["runs"]] == ["made 0.5"]  # another clip, or other frames of it
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_file_of_somebody_else_stays(tmp_path):
    file = tmp_path / "a.html"
    block = b'<script type="application/json" id="data">%s</script>'
    for foreign in (b"<p>my notes</p>", b"\xff\xfe", block % b"{", block % b"[1]", block % b'{"schema":"other/1"}'):
        file.write_bytes(foreign)
        with pytest.raises(UsageError, match="is no page of cg: name another file"):
            page.write(file, fake_scene(2))
        assert file.read_bytes() == foreign
    with pytest.raises(CgError, match="cannot write .*No such file"):
        page.write(tmp_path / "nowhere" / "a.html", fake_scene(2))
    with pytest.raises(CgError, match="cannot read .*Is a directory"):
        page.write(tmp_path, fake_scene(2))


def test_no_text_ends_the_data():
    name = "</script><!--\udcff\u2028'\".mp4"  # as Python has an undecodable byte of a file name
    text = page.text(fake_scene(2, video=name))
    assert text.count("</script>") == 2 and text.encode("utf-8")
    assert page.read(text)["video"] == name


def test_sound_without_pictures_and_too_much_of_it():
    quiet = np.zeros(SAMPLE_RATE * 61, np.float32)
    clip = Clip("a.mp3", None, None, 0.0, quiet, "used", 61.0, 0, 0)
    none, sounds = np.zeros(0, int), AudioTokens(np.arange(3) / 25, np.array([1.0, 0, 0]), np.array([-1, 0, -1]))
    run = PrunerResult(
        "made",
        0.5,
        VideoTokens(none, none, none, none.astype(float), none, none.astype(float), none),
        sounds,
        ("kept", "dropped"),
        None,
        None,
    )
    audio_scene = Scene("a.mp3", "1:1:1", clip, 2, np.zeros(0), 0, 0, (run,))
    content = page.read(page.text(audio_scene))
    check(content, audio_scene)
    assert not content["frames"] and content["sound"] is None and content["wave"][0] == [0] * 1000
    assert page.data(replace(audio_scene, clip=replace(clip, audio=quiet[:100], duration_s=0.01)))["sound"]


# In a browser

# The colours at the middle of each cell, row by row; read off a copy, as reading the canvas itself would slow it down,
# and be complained of.
PIXELS = """const source = document.getElementById("picture"), [rows, columns] = arguments;
const canvas = Object.assign(document.createElement("canvas"), {width: source.width, height: source.height});
const copy = canvas.getContext("2d", {willReadFrequently: true});
copy.drawImage(source, 0, 0);
return Array.from({length: rows * columns}, (_, n) => {
  const x = source.width * (n % columns + 0.5) / columns, y = source.height * (Math.floor(n / columns) + 0.5) / rows;
  return [...copy.getImageData(x, y, 1, 1).data].slice(0, 3);
})"""
DARK, FIRST_SEGMENT = (16, 19, 26), (0, 114, 178)  # what is laid over cells
BOX = (
    "const at = document.getElementById(arguments[0]).getBoundingClientRect();"
    "return [at.left, at.top, at.width, at.height]"
)
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
    clip_scene, file = (
        scene(nano, SAMPLES / "dog.mp4", questions=[QUESTION]),
        tmp_path_factory.mktemp("page") / "dog.html",
    )
    page.write(file, clip_scene)
    return clip_scene, file


@pytest.fixture
def opened(window, dog):
    """The page in the window; at the end, the console has no error, and nothing was fetched."""
    window.open(dog[1])
    window.until('document.getElementById("picture").width > 300')
    yield window
    assert window.errors() == []
    fetched = window.js(
        'return performance.getEntriesByType("resource").map((entry) => entry.name)'
        '.filter((name) => !name.startsWith("data:"))'
    )
    assert fetched == []


def over(window, row: int, column: int) -> None:
    """The mouse over a cell."""
    left, top, width, height = window.js(BOX, "picture")
    window.move(left + width * (column + 0.5) / 8, top + height * (row + 0.5) / 8)


def cell(scene: Scene, run: int, grid: int, want) -> int:
    """The first cell of a run in a grid for which ``want(cells)`` is true."""
    cells = scene.results[run].video_tokens
    return int(np.flatnonzero((cells.grid == grid) & want(cells))[0])


def test_pointing_at_a_cell_tells_why(opened, dog):
    scene = dog[0]
    run = scene.results[0]
    cells = run.video_tokens
    for want, fate in ((lambda c: c.kept == 1, "kept"), (lambda c: c.into >= 0, "merged")):
        one = cell(scene, 0, 0, want)
        over(opened, cells.row[one], cells.column[one])
        lines = opened.js(TIP).split("\n")
        assert [line for line in lines if line][:3] == [
            f"{fate}: {run.reasons[cells.reason[one]]}",
            f"row {cells.row[one] + 1}, column {cells.column[one] + 1}, 0.00 s",
            f"score {cells.score[one]:.4f}".rstrip("0"),
        ]
        into = cells.into[one]
        where = "" if into < 0 else f"merged into row {cells.row[into] + 1}, column {cells.column[into] + 1}"
        assert where in opened.js(TIP)
    opened.move(5, 5)
    assert opened.js(TIP) == ""


def test_overlay_pixels_are_the_selection(opened, dog):
    """Kept cells are the frame as it is; the others are dark, in proportion to the layers that do not read them, or of
    their segment's colour."""
    scene, overlays = dog[0], []
    for run in range(3):
        opened.press(str(run + 1))
        overlays.append(opened.js(PIXELS, scene.rows, scene.columns))
    opened.press("o")
    bare = opened.js(PIXELS, scene.rows, scene.columns)
    over = lambda plain, colour, alpha: [old + (new - old) * alpha for old, new in zip(plain, colour)]
    for run, pixels in zip(scene.results, overlays, strict=True):
        for level, merged, pixel, plain in zip(
            scene.kept_map(run)[0].ravel(), scene.merged_map(run)[0].ravel(), pixels, bare, strict=True
        ):
            if level == 1:
                assert pixel == plain
            elif merged:
                assert pixel == pytest.approx(over(over(plain, DARK, 0.52), FIRST_SEGMENT, 0.4), abs=2)
            else:
                assert pixel == pytest.approx(over(plain, DARK, 0.72 * (1 - level)), abs=2)
    assert [scene.merged_map(run)[0].any() for run in scene.results] == [True, False, False]


def test_keys_move_in_time_and_switch_pruners(opened, dog):
    for keys, modifier, seconds in (
        (["right", "right"], None, 2),
        (["right"], "shift", 5),
        (["left"], None, 4),
        (["home"], None, 0),
        (["end"], None, 5),
    ):
        opened.press(*keys, modifier=modifier)
        assert opened.js(TEXT_OF, "now").startswith(f"{seconds:.2f} s · grid {seconds + 1} of 6")
        assert opened.js('return document.getElementById("scrub").value') == str(seconds)
    pressed = (
        'return [...document.querySelectorAll("#runs button")]'
        '.findIndex((one) => one.getAttribute("aria-pressed") === "true")'
    )
    for key, run in (("]", 1), ("3", 2), ("]", 2), ("[", 1), ("9", 1)):
        opened.press(key)
        assert opened.js(pressed) == run
    opened.js('document.querySelector("#runs button").focus()')
    opened.press("enter")
    assert opened.js(pressed) == 0 and opened.js(
        'return document.activeElement === document.querySelector("#runs button")'
    )
    left, top, width, _ = opened.js(BOX, "line")
    opened.move(84 + left + (width - 90) * 3.5 / 6.02, top + 20, "pointerDown", "pointerUp")
    assert opened.js(TEXT_OF, "now").startswith("3.00 s")
    assert "picture: " in opened.js(TIP) and "sound: kept" in opened.js(TIP)


def test_cells_by_keyboard_to_where_one_was_merged(opened, dog):
    scene = dog[0]
    cells = scene.results[0].video_tokens
    one = cell(scene, 0, 1, lambda c: (c.into >= 0) & (c.grid[c.into] != 1))
    opened.press("right")
    opened.js('document.getElementById("picture").focus({focusVisible: true})')
    opened.press(*"s" * cells.row[one], *"d" * cells.column[one])
    into = cells.into[one]
    assert f"column {cells.column[into] + 1} at {scene.grid_start_s[cells.grid[into]]:.2f} s" in opened.js(
        TEXT_OF, "status"
    )
    opened.press("enter")
    assert opened.js(TEXT_OF, "now").startswith(f"{scene.grid_start_s[cells.grid[into]]:.2f} s")
    assert "stands for" in opened.js(TEXT_OF, "status") and "kept" in opened.js(TEXT_OF, "status")


def test_two_pruners_side_by_side(opened, dog):
    scene = dog[0]
    apart = (scene.kept_map(scene.results[0]) != scene.kept_map(scene.results[1])).sum((1, 2))
    opened.js(
        'const other = document.getElementById("other"); other.value = 1; other.dispatchEvent(new Event("change"))'
    )
    assert opened.js(TEXT_OF, "apart") == f"in {apart[0]} of 64 cells here, {apart.sum()} of 384 on the page"


def test_questions_answers_and_figures(opened, dog):
    from cg_cli.engine.figures import figures

    scene = dog[0]
    text = opened.js('return document.getElementById("answers").textContent')
    assert QUESTION in text and all(record.answer in text for run in scene.results for record in run.records)
    rows = opened.js(
        'return [...document.querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent))'
    )
    tables = [[list(row) for section in figures(run.records) for row in section] for run in scene.results]
    assert rows == [
        [*first[:2], *(text for table in tables for text in table[n][2:])] for n, first in enumerate(tables[0])
    ]
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
    none, sounds = np.zeros(0, int), AudioTokens(np.arange(75) / 25, (np.arange(75) % 2).astype(float), np.full(75, -1))
    run = PrunerResult(
        "made",
        0.5,
        VideoTokens(none, none, none, none.astype(float), none, none.astype(float), none),
        sounds,
        ("kept", "dropped"),
        None,
        None,
    )
    page.write(tmp_path / "a.html", Scene("a.mp3", "1:1:1", clip, 2, np.zeros(0), 0, 0, (run,)))
    window.open(tmp_path / "a.html")
    window.press("right")
    assert window.js(TEXT_OF, "now") == "1.00 s" and window.js(BOX, "picture")[2] == 0
    left, top, width, _ = window.js(BOX, "line")
    window.move(84 + left + (width - 90) * 2.02 / 3, top + 20)
    assert "sound: dropped" in window.js(TIP)
    assert window.errors() == []
