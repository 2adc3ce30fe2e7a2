"""The sweep: resumable, paired by question, and drawn as the numbers are."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from cg_cli.nano import sweep
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
            out.append({"seed": 1, "video": f"{index}.mp4", "condition": name, "category": category, "right": hits})
    return out


def test_accuracy_and_paired_differences():
    hits = sweep.Hits(lines())
    assert len(hits.clip) == 200 and hits.accuracy("full") == hits.accuracy("contextguard 0.45")
    assert hits.interval("full", "contextguard 0.45") == (0, 0)  # paired: equal answers differ by nothing, surely
    low, high = hits.interval("random 0.45", "contextguard 0.45")
    assert low < hits.accuracy("random 0.45") - hits.accuracy("contextguard 0.45") < high < 0
    low, high = hits.interval("full")
    assert low < hits.accuracy("full") < high and 5 < high - low < 20
    assert hits.accuracy("full", "digits") == pytest.approx(100 * hits.right["full"][hits.category == "digits"].mean())


def test_only_clips_that_every_condition_has_are_compared():
    some = [line for line in lines() if line["condition"] == "full" or line["video"] < "2"]
    hits = sweep.Hits(some)
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

    def judge(model, where, clips, conditions):
        for number, video in enumerate(clips):
            if number == 3 and len(asked) < 4:
                raise KeyboardInterrupt
            asked.append((video, tuple(c.name for c in conditions)))
            yield video, {c.name: [True] for c in conditions}

    monkeypatch.setattr(sweep, "judge_clips", judge)
    wanted = sweep.conditions(None, [0.45], [])
    with pytest.raises(KeyboardInterrupt):
        sweep.run("nano", 7, 6, 8, wanted, tmp_path)
    (tmp_path / "answers.jsonl").open("a").write('{"torn')
    (tmp_path / "answers.jsonl").open("a").write("\n")
    sweep.run("nano", 7, 6, 8, wanted, tmp_path)
    assert sorted(video for video, _ in asked) == [f"{i}.mp4" for i in range(6)]
    hits = sweep.Hits(sweep.read(tmp_path))
    assert len(hits.clips) == 6 and set(hits.right) == {c.name for c in wanted}
    sweep.run("nano", 7, 6, 8, sweep.conditions(None, [0.45, 0.25], []), tmp_path)
    assert asked[-1][1] == tuple(f"{name} 0.25" for name in sweep.PRUNERS)  # only what was missing
    sweep.run("nano", 7, 6, 8, wanted, tmp_path)
    assert len(asked) == 12


def test_conditions_have_names_of_their_own_and_pruners_take_their_options():
    from cg_cli.pruning import registry

    conditions = sweep.conditions("shuffled.safetensors")
    assert len({c.name for c in conditions}) == len(conditions)
    for condition in conditions:
        registry.make(condition.pruner, **condition.options)


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
