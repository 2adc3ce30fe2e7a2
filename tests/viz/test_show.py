"""Pictures show the cells that were kept: the scene against the selection, pixels against the scene, a film against its
source."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers import SAMPLES
from helpers.pruner_matrix import PRUNING_CASES
from helpers.scenes import scene_of
from helpers.synthetic_stream import make_stream
from PIL import Image

from cg_cli.doctor import write_clip
from cg_cli.errors import CgError, UsageError
from cg_cli.pruning.budget import plan
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO
from cg_cli.viz import check, overlay, sheet
from cg_cli.viz.blending import DIM, GridOverlay, segment_colour
from cg_cli.viz.scene import make_result

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", PRUNING_CASES, ids=str)
@pytest.mark.parametrize("keep", [0.6, 0.2])
def test_a_result_has_every_token_as_the_selection_has_it(case, keep):
    pruner, stream = case.make(), make_stream(grids=6)
    budget = plan(stream, keep)
    selection = pruner.select(stream, budget)
    result = make_result(case.name, keep, pruner, stream, budget, selection, None, ())
    kept = set(selection.indices.tolist())
    merged = {}
    if selection.merge is not None:
        merged = {
            d: i
            for d, i, w in zip(
                *(x.tolist() for x in (selection.merge.dropped, selection.merge.into, selection.merge.weight))
            )
            if w > 0
        }
    for kind, values in ((VIDEO, result.video_tokens), (AUDIO, result.audio_tokens)):
        rows = (stream.modality == kind).nonzero()[:, 0].tolist()
        assert values.kept.tolist() == [float(row in kept) for row in rows]
        assert values.into.tolist() == [rows.index(merged[row]) if row in merged else -1 for row in rows]
    assert set(result.video_tokens.reason) <= set(range(len(result.reasons)))
    reasons = {
        kept: {result.reasons[r] for r, k in zip(result.video_tokens.reason, result.video_tokens.kept) if k == kept}
        for kept in (0.0, 1.0)
    }
    assert not reasons[0.0] & reasons[1.0]  # no reason both to keep and to drop
    if not np.isnan(result.video_tokens.score).any() and case.name == "contextguard":
        ranked = [
            s
            for s, k, r in zip(result.video_tokens.score, result.video_tokens.kept, result.video_tokens.reason)
            if k and result.reasons[r] == "detail"
        ]
        assert min(ranked) >= max(result.video_tokens.score[result.video_tokens.kept == 0]) - 1e-6


def test_why_contextguard_dropped_a_token(session):
    scene = scene_of(session, SAMPLES / "dog.mp4", ("contextguard", 0.45))
    result = scene.results[0]
    assert {"detail", "ordinary", "repeated"} <= {result.reasons[r] for r in result.video_tokens.reason}
    assert result.segment.tolist() == sorted(result.segment.tolist()) and len(result.segment) == scene.grids == 6
    assert result.recoverable.shape == (6,) and (result.recoverable >= 0).all() and (result.recoverable <= 1).all()
    assert np.isfinite(result.video_tokens.score).all()


def test_a_pruner_between_layers_keeps_in_part(session):
    stream = make_stream(grids=2)
    from cg_cli.pruning import registry

    pruner, budget = registry.make("fastv"), plan(stream, 0.5)
    selection = pruner.select(stream, budget)
    depth = torch.linspace(0, 1, len(stream))
    result = make_result("fastv", 0.5, pruner, stream, budget, selection, depth, ())
    assert np.allclose(result.video_tokens.kept, depth[stream.modality == VIDEO]) and np.allclose(
        result.audio_tokens.kept, depth[stream.modality == AUDIO]
    )
    assert (stream.modality == TEXT).sum() + len(result.video_tokens.kept) + len(result.audio_tokens.kept) == len(
        stream
    )


def test_kept_cells_are_the_frames_to_the_bit_and_the_others_are_not():
    rng = np.random.default_rng(0)
    frame = rng.integers(1, 255, (41, 64, 3), dtype=np.uint8)  # cells of unequal height
    level, merged = np.array([[1.0, 0.0, 0.0, 0.5]] * 3), np.array([[False, False, True, False]] * 3)
    painted = GridOverlay(level, merged, segment_colour(1), 41, 64).blend(frame)
    grey = frame @ np.array((0.299, 0.587, 0.114))
    assert (painted[:, :16] == frame[:, :16]).all()
    assert np.abs(painted[:, 16:32] - DIM * grey[:, 16:32, None]).max() <= 0.51
    blue = painted[:, 32:48].astype(int)
    assert (blue[..., 0] >= blue[..., 2]).all() and (painted[:, 32:48] != painted[:, 16:32]).any()  # tinted orange
    assert np.abs(painted[:, 48:] - (0.5 * frame[:, 48:] + 0.5 * DIM * grey[:, 48:, None])).max() <= 1


@pytest.mark.parametrize(("pruner", "keep"), [("contextguard", 0.45), ("random", 0.25), ("uniform", 0.6)])
def test_the_pixels_of_a_sheet_are_the_selection(session, pruner, keep):
    scene = scene_of(session, SAMPLES / "drum.mp4", (pruner, keep))
    image, result = np.asarray(sheet.draw(scene)).astype(int), scene.results[0]
    size = sheet._frame_size(scene, scene.grids)
    across = (sheet.WIDTH - 2 * sheet.MARGIN + sheet.GAP) // (size[0] + sheet.GAP)
    top = sheet.MARGIN + 44 + sheet.LINE * len(sheet._text_lines(scene, result)) + sheet.GAP
    level, wrong = scene.kept_map(result), 0
    for grid in range(scene.grids):
        x0, y0 = (
            sheet.MARGIN + grid % across * (size[0] + sheet.GAP),
            top + grid // across * (size[1] + sheet.LINE + sheet.GAP),
        )
        frame = Image.fromarray(scene.clip.frames[grid * scene.grid_frames]).resize(size, Image.Resampling.BICUBIC)
        same = (np.abs(image[y0 : y0 + size[1], x0 : x0 + size[0]] - np.asarray(frame)) <= 1).all(-1)
        for row in range(scene.rows):
            for column in range(scene.columns):
                y, x = (
                    slice(int((n + 0.2) * side / of), int((n + 0.8) * side / of))
                    for n, side, of in ((row, size[1], scene.rows), (column, size[0], scene.columns))
                )
                wrong += (same[y, x].mean() > 0.99) != (level[grid, row, column] == 1)
    assert wrong == 0


def test_grids_of_a_long_clip_are_chosen_by_segment():
    class Long:
        grids = 300

    class Result:
        segment = np.repeat(np.arange(5), [10, 100, 3, 150, 37])

    chosen = sheet.choose(Long, Result)
    assert len(chosen) == sheet.FRAMES and chosen == sorted(set(chosen)) and {0, 10, 110, 113, 263} <= set(chosen)
    assert max(np.diff([*chosen, 300])) <= 25
    Result.segment = np.arange(300) // 3  # a hundred segments
    assert len(sheet.choose(Long, Result)) == sheet.FRAMES
    Long.grids, Result.segment = 7, None
    assert sheet.choose(Long, Result) == list(range(7))


def frames_of(path: Path) -> tuple[list[Fraction], list[np.ndarray], float]:
    with av.open(str(path)) as container:
        film = container.streams.video[0]
        pairs = [(frame.pts * film.time_base, frame.to_ndarray(format="rgb24")) for frame in container.decode(film)]
    with av.open(str(path)) as container:
        sound = (
            sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
            if container.streams.audio
            else 0.0
        )
    return [time for time, _ in pairs], [pixels for _, pixels in pairs], sound


def test_an_overlay_is_the_clip_with_the_selection_on_it(session, tmp_path):
    source = SAMPLES / "dog.mp4"
    scene = scene_of(session, source, ("contextguard", 0.45))
    overlay.write(tmp_path / "kept.mp4", scene)
    times, frames, sound = frames_of(tmp_path / "kept.mp4")
    own_times, own, own_sound = frames_of(source)
    assert times == own_times and abs(sound - own_sound) < 0.05  # same length, with its sound
    level, paint = scene.kept_map(scene.results[0]), overlay.frame_overlay(scene)
    for number in range(0, len(frames), 12):
        expected = paint(own[number], float(times[number])).astype(int)
        assert np.abs(frames[number] - expected).mean() < 6  # what the encoder changes
        grid = scene.grid_at(float(times[number]))
        clear = np.kron(level[grid], np.ones((28, 28))) == 1
        assert (expected[clear] == own[number][clear]).all() and clear.sum() == 28 * 28 * level[grid].sum()
        assert np.abs(frames[number] - own[number].astype(int)).mean() > 20 * (
            1 - level[grid].mean()
        )  # the rest is under the overlay
    assert not list(tmp_path.glob(".*"))  # nothing half-written is left


def test_an_overlay_of_a_rotated_film_whose_sound_comes_first(session, tmp_path):
    write_clip(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as source, av.open(str(tmp_path / "turned.mkv"), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        film = streams[source.streams.video[0].index]
        film.set_display_rotation(90)
        packets = [packet for packet in source.demux() if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: packet.stream.type):  # sound, then film
            packet.stream = streams[packet.stream_index]
            out.mux(packet)
    scene = scene_of(session, tmp_path / "turned.mkv", ("random", 0.5))
    overlay.write(tmp_path / "kept.mp4", scene)
    times, frames, sound = frames_of(tmp_path / "kept.mp4")
    upright = [np.rot90(pixels) for pixels in frames_of(tmp_path / "clip.mp4")[1]]
    assert len(times) == 16 and abs(sound - 2) < 0.2
    paint = overlay.frame_overlay(scene)
    for time, pixels, own in zip(times, frames, upright, strict=True):
        assert np.abs(pixels - paint(np.ascontiguousarray(own), float(time)).astype(int)).mean() < 8


def test_an_overlay_of_sound_alone_is_one_line(session, tmp_path):
    write_clip(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as source, av.open(str(tmp_path / "sound.wav"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for frame in source.decode(audio=0):
            frame.pts = None
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    scene = scene_of(session, tmp_path / "sound.wav", ("contextguard", 0.45))
    with pytest.raises(CgError, match="has no picture; .png draws sound alone"):
        overlay.write(tmp_path / "x.mp4", scene)
    sheet.write(tmp_path / "x.png", scene)
    assert Image.open(tmp_path / "x.png").size[0] == sheet.WIDTH


def test_a_file_that_vanished_is_one_line(session, tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes((SAMPLES / "dog.mp4").read_bytes())
    scene = scene_of(session, clip, ("random", 0.5))
    clip.unlink()
    with pytest.raises(CgError, match="does not exist"):
        overlay.write(tmp_path / "x.mp4", scene)
    assert not list(tmp_path.iterdir())


def test_ask_shows(cg, tmp_path):
    sheet_file, film = tmp_path / "kept.png", tmp_path / "kept.mp4"
    code, out, err = cg(
        "ask",
        str(SAMPLES / "drum.mp4"),
        "What is seen?",
        "--model",
        "nano",
        "--show",
        str(sheet_file),
        "--show",
        str(film),
    )
    assert code == 0 and out == "drum\n" and "kept.png" in err
    assert Image.open(sheet_file).size[0] == sheet.WIDTH and len(frames_of(film)[0]) == len(
        frames_of(SAMPLES / "drum.mp4")[0]
    )
    for name, message in (("kept.gif", "told by the suffix: .png, .mp4, .html"), ("no/kept.png", "no such folder")):
        code, _, err = cg("ask", str(SAMPLES / "drum.mp4"), "--model", "nano", "--show", str(tmp_path / name))
        assert code == 2 and message in err and len(err.strip().splitlines()) == 1
    with pytest.raises(UsageError):
        check([Path("x.txt")])
    (tmp_path / "mine.html").write_text("<p>my notes</p>")
    code, out, err = cg("ask", str(SAMPLES / "drum.mp4"), "--model", "nano", "--show", str(tmp_path / "mine.html"))
    assert code == 2 and not out and "is no page of cg" in err  # before anything slow, and the file is as it was
    assert (tmp_path / "mine.html").read_text() == "<p>my notes</p>"


def test_batch_draws_a_sheet_a_video_and_a_sheet_that_fails_loses_no_answer(cg, tmp_path):
    out, folder = tmp_path / "out.jsonl", tmp_path / "sheets"
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    code, _, _ = cg(
        "batch",
        str(SAMPLES / "dog.mp4"),
        str(broken),
        "-q",
        "What is seen?",
        "--model",
        "nano",
        "-o",
        str(out),
        "--show-dir",
        str(folder),
    )
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert code == 3 and len(records) == 2
    good = next(record for record in records if record["ok"])
    assert Path(good["shown"]).parent == folder and Image.open(good["shown"]).size[0] == sheet.WIDTH
    assert len(list(folder.iterdir())) == 1
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, _, _ = cg(
        "batch",
        str(SAMPLES / "dog.mp4"),
        "-q",
        "What is seen?",
        "--model",
        "nano",
        "-o",
        str(tmp_path / "again.jsonl"),
        "--show-dir",
        str(blocked),
    )
    (record,) = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert (
        code == 0
        and record["ok"]
        and any("no sheet" in warning for warning in record["warnings"])
        and "shown" not in record
    )
