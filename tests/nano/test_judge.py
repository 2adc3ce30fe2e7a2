"""One clip under many conditions: answered together as one by one, and how much of it was kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers import SAMPLES

from cg_cli.engine import pipeline
from cg_cli.engine.inputs import Sampling
from cg_cli.nano.judge import DOWNSAMPLE, FEWER_FRAMES, NO_AUDIO, NOTHING, Condition, Judge, by_clip
from cg_cli.nano.questions import right
from cg_cli.pruning import registry

pytestmark = pytest.mark.slow

CONDITIONS = [
    Condition("full"),
    Condition("random", "random", 0.25),
    Condition("random merged", "random", 0.25, merged=True),
    Condition("between layers", "fastv", 0.25),
    Condition("smaller", keep=0.25, parts=DOWNSAMPLE),
    Condition("fewer", keep=0.25, parts=FEWER_FRAMES),
    Condition("silent", parts=NO_AUDIO),
    Condition("nothing", parts=NOTHING),
    Condition("few pairs", reading=(("frames", "pairs"), ("max_frames", 4))),
]


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return next(iter(by_clip(SAMPLES / "labelled.jsonl").values()))[:4]


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    threads = torch.get_num_threads()  # a judge has a process of its own, and sets this and gradients for good
    yield Judge("nano", CONDITIONS, threads=1)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)


def test_answers_are_those_of_each_condition_by_itself(judge: Judge, rows: list[dict]):
    answers = judge.clip(SAMPLES, rows, [condition.name for condition in CONDITIONS])
    encoded = pipeline.encode(judge.backbone, judge.worker.decode(str(SAMPLES / rows[0]["video"]), judge.options))
    random = registry.make("random")
    for name, pruner in (
        ("random", random),
        ("random merged", random.with_merging("nearest")),
        ("between layers", registry.make("fastv")),
    ):
        prefilled = pipeline.prune_and_prefill(judge.backbone, encoded, pruner, 0.25)
        alone = [
            pipeline.decode(judge.backbone, prefilled, [row["question"]], Sampling(max_new_tokens=64))[0]
            for row in rows
        ]
        hits = [right(row["category"], each.generation.text, row["answer"]) for row, each in zip(rows, alone)]
        assert answers[name].right == hits
    kept = {name: outcome.kept for name, outcome in answers.items()}
    assert kept["full"] == kept["few pairs"] == 1 and kept["nothing"] == 0 and 0.6 < kept["silent"] < 0.8
    assert kept["random"] == kept["random merged"] == kept["between layers"] == pytest.approx(0.25, abs=0.005)
    for name in ("smaller", "fewer"):
        assert 0.15 < kept[name] <= kept["random"]
    assert all(len(outcome.right) == len(rows) for outcome in answers.values())


def test_only_what_is_wanted_is_asked(judge: Judge, rows: list[dict]):
    assert set(judge.clip(SAMPLES, rows, ["full", "fewer"])) == {"full", "fewer"}
