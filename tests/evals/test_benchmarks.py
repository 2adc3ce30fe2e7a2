"""The six benchmarks: every layout is read, in the published prompt, and answered end to end by nano; another package
brings one more."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import SAMPLES
from helpers.layouts import CLIPS, LAYOUTS, PARQUET

from cg_cli.commands import completion
from cg_cli.errors import UsageError
from cg_cli.evals import benchmarks
from cg_cli.evals.benchmarks import base
from cg_cli.evals.matching import VERSION, chosen, right
from cg_cli.settings.resolve import resolve_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def settings():
    return resolve_settings({"model": "nano", "max_frames": 64})


def check(layout, folder: Path, settings) -> None:
    collected = benchmarks.collect(layout.name, layout.write(folder), settings)
    assert not collected.faults
    questions = [(item, question) for item in collected.items for question in item.questions]
    assert len(questions) == layout.count and len({question.id for _, question in questions}) == layout.count
    item, question = questions[0]
    identity, video, choices, answer, category = layout.first
    assert Path(item.video).read_bytes() == (SAMPLES / CLIPS[video]).read_bytes()
    assert all(Path(item.video).is_file() for item in collected.items)
    assert question.id == identity and question.more["expected"] == answer and question.more["category"] == category
    assert tuple(question.more["choices"]) == choices
    assert all(choice in question.text for choice in choices)
    setup = question.more["benchmark"]
    assert setup["name"] == layout.name and setup["annotations"] == Path(layout.file).name
    assert setup["fps"] == 2.0 and setup["max_frames"] == 64 and setup["max_pixels"] == 100352 and setup["prompt"]
    for _, question in questions:
        assert question.more["expected"] in "ABCDEF"[: len(question.more["choices"])]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read(name: str, tmp_path: Path, settings):
    check(LAYOUTS[name], tmp_path, settings)


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_is_read(name: str, tmp_path: Path, settings):
    pytest.importorskip("pyarrow")
    check(PARQUET[name], tmp_path, settings)


def test_parquet_without_its_library_says_so(tmp_path: Path, settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "videomme").mkdir()
    (tmp_path / "videomme" / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="pip install 'cg-cli\\[parquet\\]', or give the file as .json or .jsonl"):
        benchmarks.collect("video-mme", tmp_path, settings)


PROMPTS = {
    "worldsense": (
        "Carefully watch this video and pay attention to every detail. Based on your observations, select the best "
        "option that accurately addresses the question.\nThese are the frames of a video and the corresponding audio. "
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, or D) of the correct option.\nWhat is the position"
    ),
    "daily-omni": (
        "Your task is to accurately answer multiple-choice questions based on the given video.\n"
        "Select the single most accurate answer from the given choices.\nQuestion: What visual"
    ),
    "avut": (
        "What sound is heard?\nOptions:\nA. dog\nB. cat\nC. bell\nD. music\n"
        "Answer with the option's letter from the given choices directly."
    ),
    "omnivideobench": (
        "You are given a video. Based on the content of the video, answer the following question:\n\n"
        "Question:\nWhich concepts"
    ),
    "video-holmes": "Question: What is the relationship between the woman and the man?\nA. Cleaners\nB. Colleagues\n",
}


@pytest.mark.parametrize("name", PROMPTS)
def test_the_prompt_is_the_published_one(name: str, tmp_path: Path, settings):
    prompt = benchmarks.collect(name, LAYOUTS[name].write(tmp_path), settings).items[0].questions[0].text
    assert prompt.startswith(PROMPTS[name]) and "{" not in prompt


def test_groups(tmp_path: Path, settings):
    world = benchmarks.collect("worldsense", LAYOUTS["worldsense"].write(tmp_path / "w"), settings).items
    assert world[0].questions[0].more["groups"] == {
        "task_domain": "Understanding",
        "task_type": "Spatial Relation",
        "sub_category": "Covers",
        "duration": "<1min",
        "audio_class": "Speech, Music",
    }
    assert world[1].questions[0].text.count("{sic}") == 1  # braces of a question are its own
    omni = benchmarks.collect("omnivideobench", LAYOUTS["omnivideobench"].write(tmp_path / "o"), settings).items
    assert [item.questions[0].more["groups"]["duration"] for item in omni] == ["up to 5 min", "over 30 min"]
    nested = benchmarks.collect("video-mme", LAYOUTS["video-mme, nested"].write(tmp_path / "m"), settings).items
    assert nested[0].questions[0].more["groups"] == {
        "domain": "Knowledge",
        "sub_category": "Humanity & History",
        "task_type": "Counting Problem",
    }


def test_blank_choices_keep_their_letters(tmp_path: Path, settings):
    avut = benchmarks.collect("avut", LAYOUTS["avut"].write(tmp_path / "a"), settings).items[1].questions[0].more
    assert (
        tuple(avut["choices"]) == ("A. once", "B. twice", "C. ") and avut["expected"] == "C"
    )  # the right one is blank in the file
    holmes = (
        benchmarks.collect("video-holmes", LAYOUTS["video-holmes"].write(tmp_path / "h"), settings)
        .items[1]
        .questions[0]
        .more
    )
    assert tuple(holmes["choices"]) == ("A. 1, 2", "B. 2, 1")


@pytest.mark.parametrize(
    "text", ["['A. x' 'B. it\\'s y']", '["A. x", "B. it\'s y"]', "['A. x', \"B. it's y\"]", ["A. x", "B. it's y", None]]
)
def test_lists_that_became_text(text):
    assert base.as_list(text) == ["A. x", "B. it's y"]


def test_what_is_no_layout(tmp_path: Path, settings):
    def fails(content: str, message: str, name: str = "daily-omni", file: str = "qa.json") -> None:
        (tmp_path / file).write_text(content)
        with pytest.raises(UsageError, match=message):
            benchmarks.collect(name, tmp_path, settings)

    fails("[{}]", r"qa.json is not in the layout of daily-omni \(no '.*'\); it should come from liarliar/Daily-Omni")
    fails("[]", "holds no question")
    fails("[", "qa.json cannot be read: Expecting value")
    fails(
        '[{"video_id": "a", "Question": "q", "Choice": "red", "Answer": "A", "Type": "t"}]',
        "not in the layout of daily-omni",
    )
    fails(
        '[{"video_id": "a", "Question": "q", "Choice": ["a", "b"], "Answer": "none", "Type": "t"}]',
        "answer 'none' is no letter",
    )
    fails('[{"QA_id": 1, "option_A": "x", "answer": "B"}]', "question 1 has no option_B", "avut", "AV_Human_data.json")
    (tmp_path / "another.json").write_text("[]")
    with pytest.raises(
        UsageError,
        match="no annotation file of worldsense in it; looked for worldsense_qa.json.*: name it, --data FILE",
    ):
        benchmarks.collect("worldsense", tmp_path, settings)
    with pytest.raises(UsageError, match="no such folder"):
        benchmarks.collect("worldsense", tmp_path / "none", settings)
    with pytest.raises(UsageError, match="no benchmark 'worldsence', did you mean 'worldsense'?"):
        benchmarks.collect("worldsence", tmp_path, settings)
    with pytest.raises(UsageError, match="--benchmark avut: give its folder with --data DIR"):
        benchmarks.collect("avut", None, settings)


PACKAGE = """
from cg_cli.evals.benchmarks.base import Benchmark, Row, with_letters

def rows(data):
    for entry in data:
        yield Row(str(entry["id"]), entry["clip"], entry["q"], with_letters(entry["of"]), entry["a"], "quiz")

BENCHMARK = Benchmark(
    name="pub-quiz", source="a pub", annotations=("quiz.json",), videos=("{video}",), rows=rows,
    prompt="{question}\\n{choices}", prompt_source="its own",
)
NO_BENCHMARK = "a text"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch) -> None:
    """An installed package with a benchmark, an object that is none, and one that cannot be imported."""
    site = tmp_path / "site"
    (site / "cg_quiz-1.0.dist-info").mkdir(parents=True)
    (site / "cg_quiz.py").write_text(PACKAGE)
    (site / "cg_quiz-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: cg-quiz\nVersion: 1.0\n")
    (site / "cg_quiz-1.0.dist-info" / "entry_points.txt").write_text(
        "[cg_cli.benchmarks]\npub-quiz = cg_quiz:BENCHMARK\ntext = cg_quiz:NO_BENCHMARK\ngone = cg_quiz:GONE\n"
    )
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("cg_quiz", None)


def test_another_package_brings_a_benchmark(package, tmp_path: Path, settings):
    assert list(benchmarks.REGISTRY.entries()) == [*benchmarks.REGISTRY.bundled, "gone", "pub-quiz", "text"]
    assert completion.benchmarks("pub") == [("pub-quiz", "from package cg-quiz")]
    (tmp_path / "quiz.json").write_text(json.dumps([{"id": 7, "clip": "dog", "q": "Who?", "of": ["x", "y"], "a": "B"}]))
    (tmp_path / "dog.mp4").write_bytes((SAMPLES / "dog.mp4").read_bytes())
    collected = benchmarks.collect("pub-quiz", tmp_path, settings)
    ((item, question),) = [(item, question) for item in collected.items for question in item.questions]
    assert item.video == str(tmp_path / "dog.mp4")
    assert (question.id, question.text, question.expected) == ("7", "Who?\nA. x\nB. y", "B")
    assert question.more["benchmark"]["name"] == "pub-quiz"
    with pytest.raises(UsageError, match="cg_quiz:NO_BENCHMARK of package cg-quiz is not an instance of .*Benchmark"):
        benchmarks.collect("text", tmp_path, settings)
    with pytest.raises(UsageError, match="benchmark cg_quiz:GONE of package cg-quiz cannot be imported"):
        benchmarks.collect("gone", tmp_path, settings)


def test_every_bundled_benchmark_loads_under_its_name():
    assert set(benchmarks.REGISTRY.bundled) == {layout.name for layout in LAYOUTS.values()}
    for name in benchmarks.REGISTRY.bundled:
        assert benchmarks.find(name).name == name


def test_listing_benchmarks_imports_nothing_heavy():
    code = (
        "import sys; from cg_cli.evals.benchmarks import REGISTRY; assert REGISTRY.entries();"
        "heavy = {'torch', 'numpy', 'pydantic', 'transformers'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_benchmark_through_batch(cg, tmp_path: Path):
    data = LAYOUTS["worldsense"].write(tmp_path / "data")
    (tmp_path / "data" / "videos" / "UYkFSXsh.mp4").unlink()  # not all were downloaded
    out = tmp_path / "out.jsonl"
    code, _, err = cg(
        "batch",
        "--benchmark",
        "worldsense",
        "--data",
        str(data),
        "-o",
        str(out),
        "--model",
        "nano",
        "--max-new-tokens",
        "8",
    )
    assert code == 3 and "UYkFSXsh.mp4" in err
    records = [json.loads(line) for line in out.read_text().splitlines()]
    answered = [record for record in records if record["ok"]]
    assert [record["id"] for record in records] == ["dvOkwKAs/task0", "dvOkwKAs/task1", "UYkFSXsh/task0"] and len(
        answered
    ) == 2
    for record in records:
        assert (
            record["benchmark"]["name"] == "worldsense"
            and record["category"] in ("Music", "Performance")
            and record["choices"]
        )
    for record in answered:
        assert record["correct"] is right(record["answer"], record["expected"], record["choices"])
    assert (
        sum(record["correct"] for record in answered)
        == json.loads((tmp_path / "out.run.json").read_text())["scores"][0]["right"]
    )
    sidecar = json.loads((tmp_path / "out.run.json").read_text())
    unreadable = sum(chosen(record["answer"], record["choices"]) is None for record in answered)
    assert sidecar["matching"] == VERSION and sidecar["scores"][0]["unreadable"] == unreadable
    assert f" {unreadable} of 2, which give no choice" in err
    right_answers = re.compile(r"right answers +\d+\.\d% +\d of 2 *\n")  # without an interval: it is one clip
    assert right_answers.search(err) and re.search(r"\n +Music +\d", err)
    again = cg(
        "batch",
        "--benchmark",
        "worldsense",
        "--data",
        str(data),
        "-o",
        str(out),
        "--model",
        "nano",
        "--max-new-tokens",
        "8",
    )
    assert again[0] == 3 and right_answers.search(again[2])  # what was answered before counts


def test_a_benchmark_through_profile(cg, tmp_path: Path):
    data = LAYOUTS["avut"].write(tmp_path / "data")
    code, out, _ = cg(
        "profile", "--benchmark", "avut", "--data", str(data), "--model", "nano", "--pruner", "random",
        "--keep", "1,.5", "--repeat", "1", "-o", str(tmp_path / "out"), "--max-new-tokens", "4",
    )  # fmt: skip
    assert code == 0
    summary = json.loads(out.strip().splitlines()[-1])
    assert summary["benchmark"]["name"] == "avut" and summary["cells"][1]["accuracy"]["questions"] == 2
    assert summary["matching"] == VERSION
    unreadable = summary["cells"][1]["accuracy"]["unreadable"]
    assert unreadable == sum(figures["unreadable"] for figures in summary["cells"][1]["by_category"].values())
    rows = list(csv.DictReader((tmp_path / "out" / "profile.csv").open()))
    assert int(rows[1]["unreadable"]) == unreadable
    assert set(summary["cells"][1]["by_category"]) == {"Audio Information Extraction", "Audio Content Counting"}
    assert "AV_Human_data.json" in (tmp_path / "out" / "report.html").read_text()


def test_a_benchmark_brings_its_own(cg, tmp_path: Path):
    for arguments, message in (
        (("batch", "clips", "--benchmark", "avut", "-o", "-"), "leave out INPUT"),
        (("batch", "-q", "Who?", "--benchmark", "avut", "-o", "-"), "leave out INPUT"),
        (("batch", "-o", "-"), "nothing to answer"),
        (("profile", "clips", "--benchmark", "avut"), "leave out clips"),
        (("batch", "--benchmark", "avut", "-o", "-"), "give its folder with --data DIR"),
    ):
        code, _, err = cg(*arguments)
        assert code == 2 and message in err and len(err.strip().splitlines()) == 1
