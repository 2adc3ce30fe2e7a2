"""Manifests, for any rows and any bytes."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from helpers import made
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cg_cli import records
from cg_cli.batch.items import collect
from cg_cli.batch.manifests import OWN_KEYS
from cg_cli.engine.inputs import video_content
from cg_cli.errors import NothingToDo, UsageError
from cg_cli.questions import GOLD

properties = settings(derandomize=True, deadline=None, max_examples=150)
SUFFIXES = (".jsonl", ".csv", ".txt")

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
videos = names.map(lambda name: f"{name}.mp4")
question_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
own_keys = names.filter(lambda name: name not in (*OWN_KEYS, "answer", GOLD))
rows = st.fixed_dictionaries(
    {"video": videos},
    optional={
        "question": question_texts,
        "questions": st.lists(question_texts, min_size=1, max_size=3),
        "id": st.integers(0, 10**6) | names,
        "answer": names,
        "choices": st.lists(names.filter(str.strip), min_size=2, max_size=4),
    },
).flatmap(lambda row: st.dictionaries(own_keys, values, max_size=2).map(lambda more: more | row))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One folder for all examples of a property: every one writes its manifest anew."""
    return tmp_path_factory.mktemp("manifests")


def expected(rows: list[dict], folder: Path, default: str) -> dict[str, list[tuple]]:
    """Video -> (question, id, further keys) of each question, in order, the second of two alike left out."""
    result: dict[str, dict[tuple, tuple]] = {}
    for row in rows:
        texts = row.get("questions") or [row.get("question", default)]
        further = {key: value for key, value in row.items() if key not in OWN_KEYS}
        if "answer" in further:
            further[GOLD] = further.pop("answer")
        questions = result.setdefault(os.path.abspath(folder / row["video"]), {})
        for text in texts:
            identity = (text.strip(), row.get("id"), tuple(row.get("choices", ())))
            questions.setdefault(identity, (text.strip(), row.get("id"), further))
    return {video: list(questions.values()) for video, questions in result.items()}


def collected(path: Path, default: str) -> dict[str, list[tuple]]:
    collection = collect([str(path)], [default])
    assert collection.faults == []
    return {
        os.path.abspath(item.video): [(q.text, q.id, dict(q.more)) for q in item.questions] for item in collection.items
    }


@properties
@given(st.lists(rows, min_size=1, max_size=5), st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_rows_come_back_from_json_lines(folder, rows, ascii_only, newline):
    path = folder / "rows.jsonl"
    text = newline.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path.write_bytes(text.encode())
    assert collected(path, "default?") == expected(rows, folder, "default?")


# Without a carriage return: see the test at the end.
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=12)


@properties
@given(
    st.lists(
        st.fixed_dictionaries(
            {"video": videos, "question": cells.filter(str.strip), "id": cells, "answer": cells, "level": cells}
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["", "\ufeff"]),
)
def test_rows_come_back_from_csv(folder, rows, mark):
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path = folder / "rows.csv"
    path.write_bytes((mark + table.getvalue()).encode())
    filled = [{key: cell for key, cell in row.items() if cell} for row in rows]  # an empty cell is an absent one
    assert collected(path, "default?") == expected(filled, folder, "default?")


fragments = st.sampled_from(
    [
        *(
            word.encode()
            for word in ("video", "question", "questions", "id", "a.mp4", "*", "?", "NaN", "1e999", "null")
        ),
        *(mark.encode() for mark in '"{}[]:,\n\r\0\u2028\ufeff'),
        b"\xff",
        b"\\ud800",
    ]
)
manifests = st.binary(max_size=80) | st.lists(fragments, max_size=30).map(b"".join)
manifests |= st.builds(b"video,question\n%b".__mod__, manifests) | st.builds(b'{"video": %b}'.__mod__, manifests)


@properties
@given(manifests, st.sampled_from(SUFFIXES))
@example(b'{"video": "a.mp4", "question": 1e400}', ".jsonl")
@example(b'video\n"' + b"x" * 200_000, ".csv")
@example(b"9" * 5000, ".jsonl")
def test_any_bytes_are_questions_faults_or_a_usage_error(folder, data, suffix):
    path = folder / f"any{suffix}"
    path.write_bytes(data)
    try:
        collection = collect([str(path)], ["default?"])
    except (UsageError, NothingToDo) as error:
        assert str(error)
    else:
        assert collection.items or collection.faults


@properties
@given(manifests, st.booleans())
def test_any_bytes_on_stdin_are_items_or_faults(data, null):
    try:
        collection = collect(["-"], ["default?"], stdin=io.BytesIO(data), null=null)
    except (UsageError, NothingToDo) as error:
        assert str(error)
    else:
        assert collection.items or collection.faults


def test_a_carriage_return_in_a_cell_stays(folder):
    path = folder / "return.csv"
    path.write_bytes(b'video,question,level\na.mp4,what?,"one\rtwo"\n')
    assert collected(path, "default?")[os.path.abspath(folder / "a.mp4")] == [("what?", None, {"level": "one\rtwo"})]


def test_json_that_is_nested_too_deeply_is_a_fault(folder):
    path = folder / "deep.jsonl"
    path.write_bytes(b'{"video": "a.mp4", "x": ' + b"[" * 100_000 + b"\n")
    assert collect([str(path)], ["default?"]).faults


SEEDS = [
    (".jsonl", b'{"video": "a.mp4", "question": "What?", "id": 7, "choices": ["x", "y"], "answer": "x"}\n'
               b'{"video": "sub/b.mp4", "questions": ["One?", "Two?"], "level": {"hard": [1.5, null]}}\n'),
    (".csv", b'video,question,choices,answer\na.mp4,"What, then?",drum;clock,drum\nb.mp4,"Two\nlines?",,\n'),
    (".csv", "\ufeffVideo; Question\r\na.mp4; \u00e7a va?\r\n".encode()),
    (".csv", "video|question\na.mp4|what?\nb.mp4|who?\n".encode("utf-16")),
    (".tsv", b'path\tprompt\toptions\na.mp4\twhat?\t["a", "b"]\nb.mp4\t"who ""is""?"\t[\'a\', \'b\']\n'),
    (".txt", "a.mp4\n\u00fc.mp4\n*.webm\nsub\n".encode()),
    ("-", b"a.mp4\0b.mp4\0"),
    ("-", '{"video": "\u00fc.mp4", "question": "\u00e7a?"}\n'.encode("utf-16")),
]  # fmt: skip
WORDS = [
    b"\0", b"\n", b"\r", b'"', b",", b";", b"\t", b"|", b"\\ud800", b"1e999", b"NaN", b"[" * 50, b"\xff\xfe",
    b"\xfe\xff", b"{", b"}", b"?", b"[a", b"\xe9", b"\xef\xbb\xbf", b"9" * 30, b"video", b":", b" ",
]  # fmt: skip


def mutant(draw: random.Random, data: bytes) -> bytes:
    """``data`` after one to four byte flips, cuts, duplications and splices."""
    for _ in range(draw.randint(1, 4)):
        at, to = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        kind = draw.randrange(5)
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[to:]
        elif kind == 2:
            data = data[:to] + data[at:to] * draw.randint(1, 3) + data[to:]
        elif kind == 3:
            data = data[:at] + draw.choice(WORDS) + data[at:]
        else:
            other = draw.choice(SEEDS)[1]
            data = data[:at] + other[draw.randrange(len(other)) :]
    return data


@pytest.mark.parametrize("seed", range(4))
def test_mutants_of_good_manifests_are_questions_faults_or_one_line(folder, monkeypatch, seed):
    monkeypatch.chdir(folder)
    draw = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for _ in range(250):
        suffix, data = draw.choice(SEEDS)
        data = mutant(draw, data)
        name = suffix if suffix == "-" else f"mutant{suffix}"
        if suffix != "-":
            Path(name).write_bytes(data)
        null = draw.random() < 0.5
        try:
            collection = collect([name], draw.choice([[], ["default?"]]), stdin=io.BytesIO(data), null=null)
        except (UsageError, NothingToDo) as error:
            outcomes[type(error).__name__] += 1
            messages = [str(error)]
        else:
            outcomes["faults" if collection.faults else "fine"] += 1
            messages = collection.faults
            assert collection.items or messages
            for item in collection.items:
                video_content(item.video)  # a path that can be opened, or told apart from others
                for question in item.questions:
                    record = made.failed(item.video, question.text).model_copy(
                        update={"id": question.id, **question.more}
                    )
                    line = records.to_line(record)
                    assert records.from_line(line).video == item.video and "\n" not in line
        assert all(len(message.splitlines()) == 1 for message in messages), data
    assert outcomes["faults"] > 20 and outcomes["fine"] > 10 and outcomes["UsageError"] > 20
