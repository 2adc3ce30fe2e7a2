"""The sweep: resumable, paired by clip, and drawn as the numbers are."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from cg_cli.errors import UsageError
from cg_cli.nano import sweep, tables
from cg_cli.nano.judge import Outcome
from cg_cli.profiling.plots import accuracy_plot

pytestmark = pytest.mark.slow


def lines(seed: int = 0, clips: int = 40, questions: int = 5) -> list[dict]:
    rng = np.random.default_rng(seed)
    out = []
    for index in range(clips):
        base = (rng.random(questions) < 0.7).tolist()
        category = ["silent", "digits"] * 2 + ["brief"]
        for name, hits in (
            ("full", base),
            ("contextguard 0.45", base),
            ("random 0.45", [hit and i > 0 for i, hit in enumerate(base)]),
        ):
            line = {"seed": 1, "video": f"{index}.mp4", "condition": name, "category": category, "right": hits}
            out.append(line | {"kept": 1.0 if name == "full" else 0.45})
    return out


def test_accuracy_and_paired_differences():
    hits = tables.Hits(lines())
    assert len(hits.clip) == 200 and hits.accuracy("full") == hits.accuracy("contextguard 0.45")
    assert hits.interval("full", "contextguard 0.45") == (0, 0)  # paired: equal answers differ by nothing, surely
    low, high = hits.interval("random 0.45", "contextguard 0.45")
    assert low < hits.accuracy("random 0.45") - hits.accuracy("contextguard 0.45") < high < 0
    low, high = hits.interval("full")
    assert low < hits.accuracy("full") < high and 5 < high - low < 20
    assert hits.accuracy("full", "digits") == pytest.approx(100 * hits.right["full"][hits.category == "digits"].mean())


def test_only_clips_that_every_condition_has_are_compared():
    some = [line for line in lines() if line["condition"] == "full" or line["video"] < "2"]
    hits = tables.Hits(some)
    assert {video for _, video in hits.clips} == {line["video"] for line in some if line["condition"] != "full"}
    assert len({len(r) for r in hits.right.values()}) == 1


def test_a_torn_line_costs_only_itself(tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines()[:4]) + '{"seed": 1, "vid', encoding="utf-8")
    assert sweep.read(tmp_path) == lines()[:4]
    assert sweep.read(tmp_path / "nowhere") == []


def test_a_sweep_answers_each_question_once_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    folder = tmp_path / "seed-7"
    folder.mkdir()
    rows = [{"video": f"{i}.mp4", "category": "silent", "question": "?", "answer": "red"} for i in range(6)]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = []

    def judge(model, where, clips, conditions, done, workers):
        for number, video in enumerate(clips):
            if number == 3 and len(asked) < 4:
                raise KeyboardInterrupt
            names = tuple(c.name for c in conditions if c.name not in done[video])
            asked.append((video, names))
            yield video, {name: Outcome([True], 0.45) for name in names}

    monkeypatch.setattr(sweep, "judge_clips", judge)
    wanted = sweep.conditions(["evs", "random"], [0.45])
    with pytest.raises(KeyboardInterrupt):
        sweep.run("nano", 7, 6, 8, wanted, tmp_path)
    (tmp_path / "answers.jsonl").open("a").write('{"torn')
    (tmp_path / "answers.jsonl").open("a").write("\n")
    sweep.run("nano", 7, 6, 8, wanted, tmp_path)
    assert sorted(video for video, _ in asked) == [f"{i}.mp4" for i in range(6)]
    hits = tables.Hits(sweep.read(tmp_path))
    assert len(hits.clips) == 6 and set(hits.right) == {c.name for c in wanted}
    sweep.run("nano", 7, 6, 8, sweep.conditions(["evs", "tome"], [0.45, 0.25]), tmp_path)
    assert asked[-1][1] == ("tome 0.45", "evs 0.25", "tome 0.25")  # only what was missing
    sweep.run("nano", 7, 6, 8, wanted, tmp_path)
    assert len(asked) == 12


def test_a_killed_sweep_to_which_rows_are_added_asks_nothing_twice(tmp_path, monkeypatch):
    folder = tmp_path / "seed-7"
    folder.mkdir()
    rows = [{"video": f"{i}.mp4", "category": "silent", "question": "?", "answer": "red"} for i in range(2)]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    line = {"seed": 7, "video": "0.mp4", "condition": "evs 0.45", "category": ["silent"], "right": [True], "kept": 0.45}
    (tmp_path / "answers.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")

    def judge(model, where, clips, conditions, done, workers):
        assert {video: done[video] for video in clips} == {"0.mp4": {"evs 0.45"}, "1.mp4": set()}
        return iter(())

    monkeypatch.setattr(sweep, "judge_clips", judge)
    sweep.run("nano", 7, 2, 8, sweep.conditions(["evs", "tome"], [0.45]), tmp_path)


def test_conditions_have_names_of_their_own_and_pruners_take_their_options():
    from cg_cli.pruning import registry

    names = sweep.with_merging([*sweep.DEFAULT_ROWS, *sweep.ROWS, "omnizip", "fastv"])
    conditions = sweep.conditions(dict.fromkeys(names), [0.45, 0.1], [0.45], "shuffled.safetensors")
    assert len({c.name for c in conditions}) == len(conditions)
    for condition in conditions:
        registry.make(condition.pruner, **condition.options)


def test_rows_merge_that_can():
    names = ["contextguard", "random", "downsample", "fastv", "tome"]
    assert sweep.with_merging(names) == [
        "contextguard", "random", "random +merge", "downsample", "fastv", "tome",
    ]  # fmt: skip
    assert [c.merged for c in sweep.row_of("random +merge").conditions("random +merge", 0.1)] == [True] * 3
    for name in ("downsample +merge", "fastv +merge", "nothing"):
        with pytest.raises(UsageError):
            sweep.row_of(name)
    assert "fastv" in sweep.between_layers(names) and sweep.between_layers(["tome", "downsample"]) == ""


def test_a_row_is_the_mean_of_its_draws_question_by_question():
    def line(clip: int, name: str, right: list[bool]) -> dict:
        return {
            "seed": 1,
            "video": str(clip),
            "condition": name,
            "category": ["silent"] * 2,
            "right": right,
            "kept": 0.4,
        }

    columns = sweep.conditions(["random"], [0.45])
    names = [column.name for column in columns]
    assert names == ["full", "random, seed 0 0.45", "random, seed 1 0.45", "random, seed 2 0.45"]
    answers = [line(0, name, [name == "full", True]) for name in names[:2]] + [
        line(0, name, [True, False]) for name in names[2:]
    ]
    hits = sweep.hits_of(answers, ["random"], columns, [0.45])
    np.testing.assert_allclose(hits.right["random 0.45"], [2 / 3, 1 / 3])
    assert hits.accuracy("random 0.45") == 50 and hits.kept["random 0.45"] == pytest.approx(0.4)


def test_the_tables_pair_by_clip_and_tell_what_is_kept_where_it_is_not_the_ratio():
    columns = sweep.conditions(["contextguard", "random"], [0.45])
    some = lines()
    draws = [
        {**x, "condition": f"random, seed {i} 0.45", "kept": 0.3}
        for x in some
        if "random" in x["condition"]
        for i in range(3)
    ]
    hits = sweep.hits_of(some + draws, ["contextguard", "random"], columns, [0.45])
    table = tables.accuracy_table(hits, ["contextguard", "random"], [0.45])
    assert list(table.columns[0].cells) == ["full", "contextguard", "random"]
    cells = list(table.columns[1].cells)
    assert cells[2].endswith("keeps 0.30") and not any("keeps" in cell for cell in cells[:2])
    pairs = {"random": ("random", "contextguard"), "full": ("full", "contextguard"), "other": ("other", "full")}
    table = tables.difference_table(hits, pairs, [0.45], "against contextguard", "A note.")
    assert (
        list(table.columns[0].cells) == ["random", "full"]
        and list(table.columns[1].cells)[1] == "+0.00 [+0.00 to +0.00]"
    )
    assert "clips, not questions, are drawn" in table.caption and table.caption.endswith("A note.")


def test_the_plot_shows_every_point_where_it_belongs():
    curves = {"a & b": [(1.0, 90.0), (0.5, 80.0), (0.1, 40.0)], "c": [(1.0, 90.0), (0.1, 41.0)]}
    tree = ElementTree.fromstring(accuracy_plot(curves, "title <1>"))
    space = "{http://www.w3.org/2000/svg}"
    texts = [t.text for t in tree.iter(f"{space}text")]
    assert {"a & b", "c", "title <1>", "40", "90", "0.5"} <= set(texts)
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in tree.iter(f"{space}circle") if c.get("r") == "3"]
    assert len(dots) == 5 and dots[0] == dots[3]
    assert dots[0][0] > dots[1][0] > dots[2][0] and dots[0][1] < dots[1][1] < dots[2][1]
    heights = [float(t.get("y")) for t in tree.iter(f"{space}text") if t.text in curves]
    assert abs(heights[0] - heights[1]) >= 19
