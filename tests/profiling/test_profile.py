"""``cg profile``: figures that follow from the measurements, measurements that follow from the model, and runs that go
on."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from helpers import SAMPLES

from cg_cli.backbones import cost, qwen_shapes
from cg_cli.errors import UsageError
from cg_cli.evals import stats
from cg_cli.media.clip import DecodeOptions
from cg_cli.profiling import report, summary, synthetic
from cg_cli.profiling.cells import cells
from cg_cli.profiling.measure import BASELINE, Cell
from cg_cli.profiling.pages import choose, nearest_keep
from cg_cli.profiling.readings import OWN, readings
from cg_cli.profiling.sweep import QUESTION
from cg_cli.questions import Item
from cg_cli.settings import models
from cg_cli.settings.resolve import resolve_settings
from cg_cli.viz.page import read

pytestmark = pytest.mark.slow

HALF = Cell("random", 0.5)
CELLS = ("none 1", "random 0.4", "fastv 0.4")


def time(select: float, prefill: float, first: float = 1.0, decode: float = 1.0, steps: int = 10) -> dict:
    return {
        "select_s": select,
        "prefill_s": prefill,
        "first_token_s": first,
        "decode_s": decode,
        "decode_steps": steps,
        "kv_bytes": 8,
        "peak_bytes": None,
    }


def measured(times: dict[str, list[dict]], right: dict[str, list[bool]]) -> list[dict]:
    """The lines of one clip: 80 video and 20 audio tokens, of which HALF keeps 50."""
    tokens = {"video": 80, "audio": 20, "text": 5}
    counts = {BASELINE.name: (80, 20, 100), HALF.name: (30, 20, 40)}
    figures = {
        name: {
            "tokens": {
                **tokens,
                "video_kept": counts[name][0],
                "audio_kept": counts[name][1],
                "entered": sum(counts[name][:2]),
                "layer_mean": sum(counts[name][:2]),
                "last_layer": sum(counts[name][:2]),
            },
            "flops": {
                "vision": 1,
                "audio": 1,
                "predictor": 10 * (name != BASELINE.name),
                "prefill": counts[name][2],
                "prefill_full": 100,
                "prefill_baseline": 100,
            },
            "uncut_flops": None,
            "times": times[name],
            "reads_question": False,
            "right": right[name],
            "unreadable": [number == 1 and not hit for number, hit in enumerate(right[name])],
        }
        for name in counts
    }
    before = {"media_s": {OWN: 1.5}, "encode_s": {OWN: [1.0, 3.0, 2.0]}}
    return [{**before, "category": ["a", "a", "b"], "cells": figures}]


def test_figures_worked_out_by_hand():
    one = measured({BASELINE.name: [time(0, 10), time(0, 20)], HALF.name: [time(1, 4), time(2, 3)]},
                   {BASELINE.name: [True, True, False], HALF.name: [True, False, False]})  # fmt: skip
    two = measured({BASELINE.name: [time(0, 30), time(0, 10)], HALF.name: [time(1, 4), time(2, 3)]},
                   {BASELINE.name: [True, True, True], HALF.name: [True, True, False]})  # fmt: skip
    whole, half = summary.summarise([BASELINE, HALF], [one, two])["cells"]
    shares = {"input": 0.5, "layer_average": 0.5, "last_layer": 0.5, "prefill_flops": 0.4, "input_of_baseline": 0.5}
    assert half["kept"] == shares
    assert half["promised"] == 100 / (40 + 10) and half["promised_end_to_end"] == (2 + 100) / (2 + 40 + 10)
    assert half["prefill_speedup"] == {"median": 3.5, "min": 3.0, "max": 4.0}  # rounds: 40 s against 10, 30 against 10
    assert half["efficiency"] == 3.5 / 2
    assert half["selection_share"] == pytest.approx((2 / 40 + 4 / 30) / 2)
    assert half["ttft_speedup"]["max"] == 42 / 12 and half["decode_tokens_per_s"] == 10 and half["encode_s"] == 4.0
    # Two clips read and encoded take 7 s, questions and answers 4 s.
    assert half["media_s"] == 3.0 and half["end_to_end_speedup"]["max"] == (7 + 40 + 4) / (7 + 10 + 4)
    assert half["shares"] == {
        name: pytest.approx(part / 21) for name, part in zip(half["shares"], (3, 4, 3, 7, 4), strict=True)
    }
    assert half["questions_speedup"]["max"] == (40 + 5 * 2) / (2 + 8 + 5 * 2)
    for line in (*one, *two):
        line["cells"][HALF.name]["reads_question"] = True
    asking = summary.summarise([BASELINE, HALF], [one, two])["cells"][1]
    assert (
        asking["questions_speedup"]["max"] == (40 + 5 * 2) / (2 + 5 * 8 + 5 * 2)
        and asking["prefill_speedup"] == half["prefill_speedup"]
    )
    assert whole["prefill_speedup"]["median"] == 1 and whole["efficiency"] == 1
    assert half["accuracy"]["value"] == 3 / 6 and half["against_whole"]["value"] == pytest.approx(-2 / 6)
    assert half["accuracy"]["unreadable"] == 1 and whole["accuracy"]["unreadable"] == 0
    assert half["by_category"] == {
        "a": {"value": 0.75, "questions": 4, "unreadable": 1},
        "b": {"value": 0.0, "questions": 2, "unreadable": 0},
    }
    assert whole["against_whole"]["interval"] == (0, 0)  # paired with itself


def test_a_reading_is_set_against_the_whole_clip_as_the_settings_read_it():
    (line,) = measured({BASELINE.name: [time(0, 40)], HALF.name: [time(2, 8)]},
                       {BASELINE.name: [True] * 3, HALF.name: [True, True, False]})  # fmt: skip
    fewer = Cell("random", 0.5, reading="max-frames=8")  # 40 video and 20 audio tokens, of which it keeps 30
    cell = line["cells"][fewer.name] = line["cells"].pop(HALF.name)
    cell["tokens"] |= {"video": 40, "video_kept": 10, "entered": 30, "layer_mean": 30, "last_layer": 30}
    cell["flops"] |= {"vision": 0.5, "prefill": 24, "prefill_full": 60}
    line["media_s"][fewer.reading], line["encode_s"][fewer.reading] = 1.0, [1.0]
    _, half = summary.summarise([BASELINE, fewer], [[line]])["cells"]
    assert half["kept"]["input"] == 0.5 and half["kept"]["prefill_flops"] == 24 / 60  # of the clip as read
    assert half["kept"]["input_of_baseline"] == 0.3
    total = 1.5 + 10 + 24
    assert half["flops_share"] == {"towers": 0.75, "prefill": 0.24, "total": pytest.approx(total / 102)}
    assert half["promised"] == 100 / 34 and half["promised_end_to_end"] == pytest.approx(102 / total)
    assert half["prefill_speedup"]["median"] == 4 and half["media_s"] == half["encode_s"] == 1
    assert half["end_to_end_speedup"]["median"] == (1.5 + 2 + 40 + 2) / (1 + 1 + 10 + 2)
    assert half["against_whole"]["value"] == pytest.approx(-1 / 3)
    row = report.row(half)
    assert row["reading"] == "max-frames=8" and row["total_flops"] == total and row["towers_flops_share"] == 0.75
    assert row["uncut_total_flops"] is None


def test_a_cell_measured_later_is_set_against_the_whole_clip_of_its_own_round():
    first = measured(
        {BASELINE.name: [time(0, 10)], HALF.name: [time(0, 5)]}, {BASELINE.name: [True], HALF.name: [True]}
    )[0]
    del first["cells"][HALF.name]
    later = measured(
        {BASELINE.name: [time(0, 100)], HALF.name: [time(0, 50)]}, {BASELINE.name: [True], HALF.name: [True]}
    )[0]
    first["category"] = later["category"] = ["a"]
    _, half = summary.summarise([BASELINE, HALF], [[first, later]])["cells"]
    assert half["prefill_speedup"]["median"] == 2


def test_the_interval_knows_that_questions_on_one_clip_hang_together():
    rng = np.random.default_rng(1)
    clip = np.repeat(np.arange(40), 10)
    together = np.repeat(rng.random(40) < 0.7, 10).astype(float)
    apart = (rng.random(400) < 0.7).astype(float)
    wide, narrow = (np.diff(stats.interval(value, clip))[0] for value in (together, apart))
    assert 2 < wide / narrow < 5  # about the root of 10
    low, high = stats.interval(together, clip)
    assert low < together.mean() < high


def test_cells_from_words():
    assert cells(["random", "none", "evs"], "1,.5,0.5,.25") == [
        BASELINE, Cell("random", 0.5), Cell("random", 0.25), Cell("evs", 0.5), Cell("evs", 0.25)]  # fmt: skip
    for names, keeps, message in (
        (["magic"], "1", "magic"),
        (["random"], "1,x", "'x' is no number"),
        (["random"], "0", "ratios"),
    ):
        with pytest.raises(UsageError, match=message):
            cells(names, keeps)


def test_readings_from_words():
    settings = resolve_settings({"fps": 1.0}, config_files=False)
    ways = readings(
        ["max-frames=64", "frames=change+max-frames=32", "max-frames=32 + frames=change", "fps=1", "max-frames=128",
         "look-once=0", "look-once=8", "audio=false", "fps=.5"],
        settings,
    )  # fmt: skip
    # What reads a clip as another one does is left out: an order, the settings' own values, 0 levels for "exact".
    assert list(ways) == [OWN, "max-frames=64", "max-frames=32+frames=change", "look-once=8", "audio=false", "fps=0.5"]
    assert ways[OWN] == settings and ways["look-once=8"] == replace(settings, look_once="8")
    assert ways["max-frames=32+frames=change"] == replace(settings, max_frames=32, frames="change")
    with_reading = Cell("random", 0.5, reading="look-once=8")
    assert cells(["random"], ".5", "auto", [OWN, "look-once=8"]) == [
        BASELINE, HALF, replace(BASELINE, reading="look-once=8"), with_reading]  # fmt: skip
    assert len({cell.name for cell in (BASELINE, HALF, with_reading)}) == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("max-frames", "SETTING=VALUE"),
        ("", "SETTING=VALUE"),
        ("max-frame=8", "did you mean 'max-frames'"),
        ("keep=.5", "no setting 'keep'"),
        ("max-frames=8,fps=1", "a whole number, not '8,fps=1'"),
        ("max-frames=8+max-frames=9", "max-frames is there twice"),
        ("max-frames=1", "--max-frames must be at least 2, not 1"),
        ("frames=some", "--frames some: give uniform"),
        ("look-once=900", "grey levels from 0 to 64"),
        ("audio=maybe", "audio must be true or false"),
        ("min-frames=200", "between 0 and --max-frames 128, not 200"),
    ],
)
def test_a_wrong_reading_names_its_option(text, message):
    with pytest.raises(UsageError, match=f"^--reading {re.escape(text)}: .*{re.escape(message)}"):
        readings([text], resolve_settings({}, config_files=False))


def test_a_made_up_clip_is_as_long_as_it_says():
    assert (synthetic.seconds("60s"), synthetic.seconds("2m"), synthetic.seconds("1.5")) == (60, 120, 1.5)
    for text in ("", "x", "0s", "-3s"):
        with pytest.raises(UsageError, match="--synthetic"):
            synthetic.seconds(text)
    clip = synthetic.clip(10, DecodeOptions())
    assert len(clip.frames) == 20 and len(clip.audio) == 160_000 and clip.seconds_per_frame == 0.5
    assert clip.frames.shape[1] % 28 == clip.frames.shape[2] % 28 == 0 and clip.frames[0].size <= 3 * 128 * 28 * 28
    assert (synthetic.clip(10, DecodeOptions()).frames == clip.frames).all()
    assert synthetic.clip(10, DecodeOptions(audio=False)).audio is None


def test_the_clips_on_which_pruners_disagree_most():
    items = [Item(name, ()) for name in ("gone-a", "gone-b", "gone-c")]
    right = {"gone-a": [True, False], "gone-b": [False, False], "gone-c": [True, False]}
    lines = {
        f"unread:{name}": [{"cells": {BASELINE.name: {"right": [True, True]}, HALF.name: {"right": answers}}}]
        for name, answers in right.items()
    }
    assert [(item.video, turned) for item, turned in choose(items, lines, [HALF], 2)] == [("gone-b", 2), ("gone-a", 1)]
    sweep = cells(["random", "evs"], "1,.65,.5,.25")
    assert nearest_keep(sweep) == [Cell("random", 0.5), Cell("evs", 0.5)]


class Page(HTMLParser):
    """Checks that every tag is closed in order, and what the page would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_labelled_run_its_files_and_going_on(cg, tmp_path):
    shutil.copytree(SAMPLES, tmp_path / "clips")
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"junk")
    rows = [json.loads(line) for line in (SAMPLES / "labelled.jsonl").read_text().splitlines()]
    rows += [{"video": "broken.mp4", "question": "What?", "answer": "x"}]
    (tmp_path / "clips" / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    command = [
        "profile",
        str(tmp_path / "clips" / "all.jsonl"),
        "--model",
        "nano",
        "--keep",
        "1,.45",
        "--repeat",
        "2",
        "-o",
        str(out),
    ]
    code, stdout, err = cg(*command, "--pruner", "random")
    assert code == 3 and "broken.mp4" in err and "against whole" in err
    profile = json.loads(stdout.splitlines()[-1])
    assert profile["schema"] == "cg.profile/1" and (profile["clips"], profile["compared_clips"], profile["failed"]) == (
        5,
        5,
        1,
    )
    whole, random = profile["cells"]
    assert whole["accuracy"] == {
        "value": 1.0,
        "interval": [1.0, 1.0],
        "questions": len(rows) - 1,
        "unreadable": 0,
    }  # samples are picked so
    assert (
        random["kept"]["input"] == pytest.approx(0.45, abs=0.005)
        and random["tokens"]["video"] == whole["tokens"]["video"]
    )
    assert random["promised"] == pytest.approx(random["flops"]["prefill_full"] / random["flops"]["prefill"])
    assert random["prefill_speedup"]["min"] <= random["prefill_speedup"]["median"] <= random["prefill_speedup"]["max"]
    assert profile["roofline"]["flops_per_s"] > 1e9

    before = (out / "measurements.jsonl").read_bytes()
    assert before.count(b"\n") == 5
    code, stdout, _ = cg(*command, "--pruner", "random", "--quiet")
    assert (out / "measurements.jsonl").read_bytes() == before  # nothing is measured twice
    assert json.loads(stdout)["cells"][1]["prefill_speedup"] == random["prefill_speedup"]
    (out / "measurements.jsonl").write_bytes(before[:-100])  # a kill in the middle of a line
    code, stdout, _ = cg(*command, "--pruner", "random,contextguard,fastv", "--quiet", "--pages", "1")
    third = json.loads(stdout)
    lines = [list(json.loads(line)["cells"]) for line in (out / "measurements.jsonl").read_text().splitlines()]
    new = ["none 1", "contextguard 0.45", "fastv 0.45"]  # the others only where the kill took them
    assert sorted(lines[4:]) == sorted([new] * 4 + [["none 1", "random 0.45", *new[1:]]])
    assert [cell["pruner"] for cell in third["cells"]] == ["none", "random", "contextguard", "fastv"] and third[
        "compared_clips"
    ] == 5
    fastv = third["cells"][3]["kept"]
    assert fastv["input"] == 1 and fastv["last_layer"] == pytest.approx(0.45, abs=0.005)
    assert fastv["layer_average"] == pytest.approx((2 + 3 * 0.45) / 5, abs=0.005)  # nano has 5 layers
    assert third["predictors"]["contextguard"].startswith("predictor@")
    assert third["cells"][1]["accuracy"] == random["accuracy"]

    rows = list(csv.DictReader((out / "profile.csv").open()))
    assert [(r["pruner"], float(r["keep"])) for r in rows] == [
        ("none", 1.0),
        ("random", 0.45),
        ("contextguard", 0.45),
        ("fastv", 0.45),
    ]
    assert float(rows[1]["accuracy"]) == third["cells"][1]["accuracy"]["value"]
    for name in ("accuracy", "prefill", "pareto"):
        ElementTree.fromstring((out / f"{name}.svg").read_text())
    text = (out / "report.html").read_text()
    page = Page()
    page.feed(text)
    (entry,) = third["pages"]
    assert page.open == [] and page.links == [entry["page"]] and text.count("<svg") == 3
    content = read((out / entry["page"]).read_text())
    assert [(run["pruner"], run["keep"]) for run in content["runs"]] == [
        ("random", 0.45),
        ("contextguard", 0.45),
        ("fastv", 0.45),
    ]
    assert entry["turned"] > 0 and Path(entry["video"]).name == Path(content["video"]).name
    assert not re.search(r"https?://(?!www.w3.org/2000/svg)", text)  # nothing to fetch
    assert json.loads((out / "profile.json").read_text()) == third


def test_a_reading_counts_as_a_run_with_its_settings_and_is_measured_once(cg, tmp_path):
    clip, out = str(SAMPLES / "drum.mp4"), tmp_path / "out"
    command = ["profile", clip, "--model", "nano", "--keep", ".4", "--pruner", "random,fastv", "--repeat", "1"]
    command += ["-o", str(out), "--quiet"]
    code, stdout, err = cg(*command, "--reading", "max-frames=8+max-pixels=25088")
    assert code == 0, err
    first = json.loads(stdout)
    assert list(first["readings"]) == ["max-frames=8+max-pixels=25088"] and first["sampling"]["max_frames"] == 128
    by_name = {(cell["pruner"], cell["reading"]): cell for cell in first["cells"]}
    assert len(by_name) == 6
    for name in ("random", "fastv"):
        cell = by_name[name, "max-frames=8+max-pixels=25088"]
        how = ["--keep", ".4", "--pruner", name, "--max-frames", "8", "--max-pixels", "25088"]
        _, answer, _ = cg("ask", clip, QUESTION, "--model", "nano", "--json", *how)
        record = json.loads(answer)
        for kind in ("video", "video_kept", "audio", "audio_kept"):
            assert cell["tokens"][kind] == record["tokens"][kind]
        del record["flops"]["decode"]
        assert {part: cell["flops"][part] for part in record["flops"]} == record["flops"]
    whole, fewer = by_name["none", OWN]["flops"], by_name["random", "max-frames=8+max-pixels=25088"]["flops"]
    share = by_name["random", "max-frames=8+max-pixels=25088"]["flops_share"]
    parts = ("vision", "audio", "predictor", "prefill")
    assert share["total"] == pytest.approx(sum(fewer[p] for p in parts) / sum(whole[p] for p in parts))
    assert share["total"] < 0.5
    assert all(cell["media_s"] > 0 and cell["encode_s"] > 0 for cell in first["cells"])

    lines = lambda: [json.loads(line) for line in (out / "measurements.jsonl").read_text().splitlines()]
    assert len(lines()) == 1
    code, stdout, _ = cg(*command, "--reading", "look-once=8", "--reading", "max-pixels=25088+max-frames=8")
    again = json.loads(stdout)
    assert list(lines()[1]["cells"]) == ["none 1", *(f"{cell} look-once=8" for cell in CELLS)]
    assert list(lines()[1]["media_s"]) == [OWN, "look-once=8"]
    old = [cell for cell in again["cells"] if cell["reading"] != "look-once=8"]
    assert [cell["seconds"] for cell in old[1:]] == [cell["seconds"] for cell in first["cells"][1:]]
    assert (out / "report.html").read_text().count("<td>look-once=8</td>") == 3


def test_a_reading_that_fails_costs_its_own_cells(cg, tmp_path):
    silent = tmp_path / "sound.wav"
    soundfile.write(silent, np.zeros(16_000), 16_000)
    command = ["profile", str(silent), "--model", "nano", "--pruner", "random", "--keep", ".5", "--repeat", "1"]
    code, stdout, err = cg(*command, "--reading", "audio=false", "-o", str(tmp_path / "out"))
    assert code == 3 and "sound.wav, audio=false: " in err and "none 1 audio=false is left out" in err
    assert [cell["reading"] for cell in json.loads(stdout.splitlines()[-1])["cells"]] == [OWN, OWN]


def test_random_weights_in_a_real_shape_on_a_made_up_clip(cg, tmp_path, monkeypatch):
    small = {**qwen_shapes.SIZES["3b"], "vocab_size": 2000, "intermediate_size": 512}
    monkeypatch.setitem(qwen_shapes.SIZES, "3b", small)
    monkeypatch.setattr(qwen_shapes, "VISION_WIDTH", 320)
    code, stdout, err = cg(
        "profile", "--synthetic", "4s", "--model", "qwen2.5-omni-3b", "--weights", "random",
        "--layers", "1", "--keep", ".45", "--pruner", "contextguard", "--repeat", "1", "--max-pixels", "25088",
        "-o", str(tmp_path / "o"),
    )  # fmt: skip
    assert code == 0, err
    profile = json.loads(stdout)
    assert profile["model"] == {
        "id": "random qwen2_5_omni 3b",
        "revision": "random-qwen2_5_omni-3b-1",
        "weights": "random",
        "layers": 1,
    }
    assert "random weights, 1 layers of each part" in err
    assert profile["predictors"] == {"contextguard": "random weights"} and "accuracy" not in profile["cells"][1]
    whole, pruned = profile["cells"]
    sizes = cost.TextSizes.from_config(qwen_shapes.config("3b", None).text_config)
    assert sizes.layers == 36
    text = whole["tokens"]["text"]
    for cell in (whole, pruned):  # FLOPs of the model that was not cut
        flops = cell["uncut"]["flops"]
        assert flops["prefill"] == cost.decoder_flops(sizes, text + cell["tokens"]["entered"], 0, 0)
        assert flops["prefill"] == 36 * cell["flops"]["prefill"] and flops["vision"] > 20 * cell["flops"]["vision"]
        assert report.row(cell)["uncut_total_flops"] == sum(
            flops[p] for p in ("vision", "audio", "predictor", "prefill")
        )
    assert "with all layers of the model" in " ".join(err.split())
    assert profile["cells"][1]["tokens"]["audio"] == 100 and profile["cells"][1]["tokens"]["video"] % 4 == 0


def test_the_built_in_shapes_are_the_real_ones():
    with pytest.raises(
        UsageError, match="the shape of nano is not built in; there are qwen2.5-omni-3b, qwen2.5-omni-7b"
    ):
        models.random_init("nano", 1, device="cpu", dtype="float32")
    seven, three = qwen_shapes.SIZES["7b"], qwen_shapes.SIZES["3b"]
    for size in (seven, three):
        assert size["hidden_size"] == 128 * size["num_attention_heads"]
    per_layer = lambda s: (
        s["hidden_size"] * (2 * s["hidden_size"] + 256 * s["num_key_value_heads"] + 3 * s["intermediate_size"])
    )
    total = lambda s: s["num_hidden_layers"] * per_layer(s) + 2 * s["hidden_size"] * s["vocab_size"]
    assert total(seven) == pytest.approx(7.6e9, rel=0.02) and total(three) == pytest.approx(3.4e9, rel=0.02)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to measure on"),
        (["--synthetic", "4s", "--layers", "2"], "--weights random"),
        (["--synthetic", "4s", "--weights", "none"], "not one of 'trained', 'random'"),
        (["--synthetic", "long"], "60s or 2m"),
        (["--synthetic", "4s", "--keep", "2"], "at most 1"),
        (["--synthetic", "4s", "--reading", "max-frames=0"], "--reading max-frames=0: --max-frames must be at least 2"),
    ],
)
def test_what_cannot_be_measured_is_one_line(cg, arguments, message):
    code, out, err = cg("profile", *arguments, "--model", "nano")
    assert code == 2 and message in err and not out


def test_a_manifest_of_bad_rows_loads_no_model(cg, tmp_path):
    (tmp_path / "m.jsonl").write_text('{"video": 5}\n')
    code, out, err = cg("profile", str(tmp_path / "m.jsonl"), "--model", "nano")
    assert code == 4 and not out and "m.jsonl:1" in err and "nothing to do" in err and "weights" not in err


def test_rows_of_a_cell_without_times_are_empty():
    (lines,) = [measured({BASELINE.name: [], HALF.name: []}, {BASELINE.name: [True] * 3, HALF.name: [True] * 3})]
    profile = {"cells": summary.summarise([BASELINE, HALF], [lines])["cells"]}
    assert report.row(profile["cells"][1])["prefill_speedup"] is None
    assert report.table(profile).splitlines()[1].startswith("none,1.0,,80,80,20,20,1.0")


def test_names_are_text_on_the_report():
    lines = measured({BASELINE.name: [], HALF.name: []}, {BASELINE.name: [True] * 3, HALF.name: [False] * 3})
    lines[0]["category"] = ["<b>", "<b>", "a&b"]
    profile = {
        "model": {"id": "<i>x", "revision": "1", "weights": "random", "layers": 2},
        "device_name": "cpu", "dtype": "float32", "threads": 2, "failed": 0, "sampling": {"fps": 2.0},
        "benchmark": None, "roofline": {"flops_per_s": 1e9, "bytes_per_s": 1e9}, "versions": {"cg": "0"},
        "pages": [{"video": "/x/<u>.mp4", "page": "pages/<u>-1 #.html", "turned": 3}],
        **summary.summarise([BASELINE, HALF], [lines]),
    }  # fmt: skip
    text = report.page(profile, report.plots(profile))
    page = Page()
    page.feed(text)
    assert page.open == [] and page.links == ["pages/%3Cu%3E-1%20%23.html"]
    assert not re.search("<[biu]>", text) and "cg profile: &lt;i&gt;x" in text and "<th>a&amp;b</th>" in text
    assert "random weights, 2 layers" in text and "<td>66.7</td>" not in text and "<td>100.0</td>" in text
