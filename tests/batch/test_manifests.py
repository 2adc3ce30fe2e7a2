"""Manifests are read as they were meant, or refused by line; a bad row costs only itself."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
from helpers import made

from cg_cli import records
from cg_cli.batch import textfiles
from cg_cli.batch.archive import Archive
from cg_cli.batch.items import collect, read_questions
from cg_cli.batch.manifests import MAX_DEPTH, RESERVED
from cg_cli.batch.pool import Outcome
from cg_cli.batch.run import Plan, Totals
from cg_cli.batch.work import Work
from cg_cli.engine.inputs import AnswerInputs
from cg_cli.errors import NothingToDo, UsageError
from cg_cli.evals.scores import scores
from cg_cli.settings.resolve import resolve_settings


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(name: str, content: str | bytes, *questions: str):
    """Questions of a manifest as (video, text), and faults without the advice at their end."""
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    collection = collect([name], questions)
    pairs = [(item.video, question.text) for item in collection.items for question in item.questions]
    return pairs, collection.faults


def only(name: str, content: str | bytes):
    """The only question of a manifest without a fault."""
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    collection = collect([name], ["default?"])
    (item,) = collection.items
    (question,) = item.questions
    assert not collection.faults
    return question


GOOD = {"video": "a.mp4", "question": "q?"}


@pytest.mark.parametrize(
    "row, reason",
    [
        (r'{"video": "a\u0000.mp4", "question": "q?"}', "a NUL in a path"),
        (r'{"video": "a.mp4", "question": "q?", "x": 1e999}', "1e999 is beyond numbers"),
        (r'{"video": "a.mp4", "question": "q?", "x": [-1e400]}', "-1e400 is beyond numbers"),
        (r'{"video": "a.mp4", "question": "q?", "x": Infinity}', "Infinity is no number"),
        (json.dumps(GOOD) [:-1] + ', "x": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", "nested deeper than"),
        (json.dumps(GOOD) [:-1] + ', "x": ' + '{"x":' * 100_000 + "1" + "}" * 100_001, "nested deeper than"),
        (r'{"video": "\ud800.mp4", "question": "q?"}', "a path with a lone surrogate"),
        (r'{"video": "a.mp4", "question": "\ud800?"}', "a lone surrogate in a text"),
        (r'{"video": "a.mp4", "question": "q?", "x": ["\udfff"]}', "a lone surrogate in a text"),
        (r'{"video": "a.mp4", "question": "q?", "\udfff": 1}', "a lone surrogate in a text"),
        (r'{"video": "a.mp4", "question": "q?", "id": [1]}', "'id' must be text or a number"),
        (r'{"video": "a.mp4", "question": "q?", "id": true}', "'id' must be text or a number"),
        (r'{"video": "a.mp4", "question": "q?", "id": {}}', "'id' must be text or a number"),
        (r'{"video": "a.mp4", "question": "q?", "choices": ["x", ["y"]]}', "'choices' must be"),
        (r'{"video": "a.mp4", "question": "q?", "choices": ["x"]}', "'choices' must be"),
        (r'{"video": "a.mp4", "question": "q?", "choices": "drum"}', "'choices' must be"),
        (r'{"video": "a.mp4", "question": "q?", "choices": {"A": "x", "B": "y"}}', "'choices' must be"),
        (r'{"video": "a.mp4", "question": "q?", "choices": [null, "y"]}', "'choices' must be"),
        (r'{"video": "a.mp4", "question": "q?", "choices": ["", "y"]}', "'choices' must be"),
        (r'{"video": "a.mp4", "question": "q?", "choices": ["x", "y"], "answer": ["x"]}', "'answer' to choices"),
        (r'{"video": "a.mp4", "question": "q?", "video": "b.mp4"}', "'video' stands twice"),
        (r'{"video": "a.mp4"}', "no question"),
        ('{"video": "a.mp4", "question": "q?", "x": ' + "9" * 5000 + "}", "not JSON"),
        ("\ufeff\0", "not JSON"),
    ],
)  # fmt: skip
def test_a_bad_row_costs_only_itself(row, reason):
    good = [json.dumps({"video": f"{n}.mp4", "question": "q?"}) for n in range(2)]
    pairs, (fault,) = read("m.jsonl", "\n".join([good[0], row, good[1]]))
    assert pairs == [("0.mp4", "q?"), ("1.mp4", "q?")]
    assert fault.startswith(f"m.jsonl:2: {reason}" if "not JSON" in reason else "m.jsonl:2: ") and reason in fault
    assert fault.endswith("; line left out") and "\n" not in fault


def test_what_is_nested_to_the_bound_can_be_written_and_read(place):
    nested = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    question = only("m.jsonl", json.dumps(GOOD)[:-1] + f', "x": {nested}, "n": {"9" * 4000}}}')
    record = made.answer().model_copy(update=dict(question.more))
    assert records.from_line(records.to_line(record)).x == json.loads(nested)


HOSTILE = sorted(RESERVED | {"schema_", "model_config", "__class__", "model_extra", "groups", "category", "é", ""})


@pytest.mark.parametrize("value", ["B", 7, [1], {"x": None}, True, None, 1.5])
@pytest.mark.parametrize("error", [False, True])
def test_no_key_that_is_passed_on_changes_or_breaks_a_record(place, value, error):
    fields = {"video": "a.mp4", "question": "q?", "id": 3, "choices": ["a dog", "a cat"], "answer": "a dog"}
    row = {key: value for key in HOSTILE if key not in ("answer", "choices", "video", "question", "id")} | fields
    (place / "m.jsonl").write_text(json.dumps(row))
    (place / "a.mp4").write_bytes(b"x")
    plan = Plan(resolve_settings({"model": "nano"}), collect(["m.jsonl"], []), "o.jsonl")
    inputs = AnswerInputs("v", "q", "p", "m", "w", "f", "none", "p", 1, {}, 0.5, None, {}, 1, 1, 1, {})
    archive = Archive(place / "o.jsonl", {"a.mp4"})
    work = Work(plan, inputs, archive, Totals(), Mock())
    (job,) = work.jobs()
    (key,) = work.keys
    plain = made.failed(key=key) if error else made.answer("a.mp4", "q?", key=key)
    work.settle(Outcome(job.number, (plain.model_copy(update={"key": key}),)))
    archive.close()
    (line,) = (place / "o.jsonl").read_text().splitlines()
    record = json.loads(line)
    expected = json.loads(records.to_line(plain)) | {"key": key, "id": 3}
    assert {name: record[name] for name in expected} == expected
    assert record.get("correct") is (None if error else True) and record["expected"] == "a dog"
    for name in set(row) - set(fields):
        assert record[f"manifest_{name}" if name in RESERVED else name] == value
    assert records.from_line(line).key == key
    assert work.covers(record) and not work.covers(record | {"choices": ["a cow", "a cat"]})
    computed = scores([record], {key})
    assert [(score.right, score.questions) for score in computed][:1] == ([] if error else [(1, 1)])


def test_an_archive_of_a_version_before_with_a_manifests_correct_still_has_scores():
    old = {"key": "k", "video": "a.mp4", "question": "q?", "id": 1, "correct": "B"}
    assert scores([old, old | {"id": 2, "correct": True}], {"k"})[0].questions == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_the_header_tells_the_delimiter(delimiter, suffix):
    rows = [["Video", "Question", "level"], ["a.mp4", f'"what{delimiter} then?"', "1,5;2"]]
    if delimiter in ",;":
        rows[1][2] = '"1,5;2"'
    question = only(f"t.{suffix}", "\n".join(delimiter.join(row) for row in rows))
    assert question.text == f"what{delimiter} then?" and question.more == {"level": "1,5;2"}


@pytest.mark.parametrize("header", ["video,QUESTION", "File name,Prompt", "PATH,query", "\ufefffilename,question"])
def test_headers_go_by_other_names(header):
    assert only("t.csv", f'{header}\na.mp4,"what, then?"\n').text == "what, then?"


@pytest.mark.parametrize("header", ["Video, question", " video ,question "])
def test_spaces_after_delimiters_are_no_part_of_cells(header):
    assert only("t.csv", f'{header}\n a.mp4 , "what, then?"\n').text == "what, then?"
    pairs, faults = read("t.csv", 'video,question\na.mp4, "what?"\nb.mp4, what?\n')
    assert pairs == [("b.mp4", "what?")] and faults == ["t.csv:2: a space before a quote; line left out"]


def test_json_rows_go_by_other_names_too_and_the_first_counts():
    question = only("m.jsonl", '{"Path": "a.mp4", "prompt": "p?", "query": "x", "options": ["a", "b"], "LABEL": "a"}')
    assert (question.text, question.choices, question.expected) == ("p?", ("a", "b"), "a")
    assert question.more["query"] == "x"
    question = only("m.jsonl", '{"video": "a.mp4", "file": "b", "question": "q?", "answer": "a", "expected": "b"}')
    assert question.more == {"expected": "a", "file": "b", "manifest_expected": "b"}


def test_a_row_with_other_cells_than_the_header_is_a_fault_by_its_line():
    text = 'video,question\na.mp4,what, then?\n"b.mp4","two\nlines?"\nc.mp4\n\n,\nd.mp4,ok?\ne.mp4,"a "word" here?"\n'
    pairs, faults = read("t.csv", text)
    assert pairs == [("b.mp4", "two\nlines?"), ("d.mp4", "ok?")]
    assert [fault.split(" (")[0] for fault in faults] == [
        "t.csv:2: 3 cells under 2 columns",
        "t.csv:5: 1 cells under 2 columns",
        "t.csv:9: ',' expected after '\"'",
    ]


def test_a_column_without_a_name_is_an_index_or_holds_nothing():
    pairs, faults = read("t.csv", ",video,question,\n0,a.mp4,q?,\n1,b.mp4,what, then?\n")
    assert pairs == [("a.mp4", "q?")] and faults == ["t.csv:3: a cell under a column without a name; line left out"]


@pytest.mark.parametrize(
    "rows, line",
    [
        (['a.mp4,fine?', 'b.mp4,"open?', "c.mp4,q?"], 3),
        (['a.mp4,"two', 'lines?"', 'b.mp4,"open?', 'c.mp4,"q?"'], 4),  # closed by the next quote, in the wrong place
        (['a.mp4,"open?'], 2),
        (['"a.mp4","two', 'lines","open', "end"], 3),
        (['a.mp4,"' + "x" * 100_000, "y" * 100_000, "b.mp4,q?"], 2),
        (['a.mp4,"x\r', 'b.mp4,"y"'], 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_quote_that_is_not_closed_is_told_by_the_line_where_it_begins(rows, line, newline):
    with pytest.raises(UsageError, match=f"^t.csv:{line}: the quote that begins here"):
        read("t.csv", newline.join(["video,question", *rows]))


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(UsageError, match="t.csv:1: two columns are called 'question'"):
        read("t.csv", "video,question,Question \na.mp4,b,c\n")


TEXTS = {"t.csv": "video,question\na.mp4,ça va?\n", "m.jsonl": '{"video": "a.mp4", "question": "ça va?"}\n'}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-mark"])
def test_encodings_that_tell_themselves_are_read(name, encoding):
    be = encoding == "utf-16-be-mark"
    assert only(name, b"\xfe\xff" * be + TEXTS[name].encode("utf-16-be" if be else encoding)).text == "ça va?"


@pytest.mark.parametrize("name, line", [("t.csv", 2), ("m.jsonl", 1)])
def test_other_encodings_are_refused_by_line_and_with_advice(name, line):
    with pytest.raises(
        UsageError, match=rf"^{name}:{line}: not UTF-8 \(byte 0xe7\): .* iconv -f WINDOWS-1252 -t UTF-8"
    ):
        read(name, TEXTS[name].encode("cp1252"))
    with pytest.raises(UsageError, match=f"^{name}:1: .* iconv -f UTF-16LE -t UTF-8"):
        read(name, TEXTS[name].encode("utf-16-le"))
    with pytest.raises(UsageError, match=f"^{name}:1: .* iconv -f UTF-32 -t UTF-8"):
        read(name, TEXTS[name].encode("utf-32"))
    with pytest.raises(UsageError, match=f"^{name}:{line}: UTF-16 that is damaged here"):
        read(name, TEXTS[name].strip().encode("utf-16")[:-1])
    Path("q.txt").write_bytes("one?\nça va?\n".encode("cp1252"))
    with pytest.raises(UsageError, match=r"^q.txt:2: not UTF-8"):
        read_questions(Path("q.txt"))


def test_marks_on_stdin_and_between_joined_files():
    rows = [json.dumps({"video": f"{n}.mp4", "question": "q?"}).encode() for n in range(2)]
    mark = "\ufeff".encode()
    for data in (mark + rows[0] + b"\n" + mark + rows[1], "\n".join(row.decode() for row in rows).encode("utf-16")):
        collection = collect(["-"], [], stdin=io.BytesIO(data))
        assert [item.video for item in collection.items] == ["0.mp4", "1.mp4"] and not collection.faults
    for data in (mark + "ü.mp4\n".encode(), "ü.mp4\n".encode("utf-16")):
        assert [item.video for item in collect(["-"], ["q?"], stdin=io.BytesIO(data)).items] == ["ü.mp4"]


@pytest.mark.parametrize(
    "cell",
    ["drum;clock", "drum | clock", '"[""drum"", ""clock""]"', "\"['drum', 'clock']\"", "drum;clock;"],
)
def test_choices_in_a_cell(cell):
    question = only("t.csv", f"video,question,choices,answer\na.mp4,q?,{cell},drum\n")
    assert question.choices == ("drum", "clock") and question.more["choices"] == ["drum", "clock"]
    question = only("m.jsonl", '{"video": "a.mp4", "question": "q?", "choices": "drum;clock"}')
    assert question.choices == ("drum", "clock")


def test_one_choice_only_is_a_fault():
    pairs, faults = read("t.csv", "video,question,choices\na.mp4,q?,drum\nb.mp4,q?,\nc.mp4,q?,[1\n")
    assert pairs == [("b.mp4", "q?")] and [fault.split(" ")[0] for fault in faults] == ["t.csv:2:", "t.csv:4:"]


def test_the_same_question_with_other_choices_is_another_question():
    rows = [GOOD | {"choices": texts} for texts in (["a", "b"], ["b", "a"], ["a", "b"])]
    pairs, faults = read("m.jsonl", "\n".join(map(json.dumps, [GOOD, *rows, GOOD])))
    assert len(pairs) == 2 and not faults


def test_questions_in_one_cell():
    pairs, faults = read("t.csv", 'video,questions\na.mp4,"[""a?"", ""b?""]"\nb.mp4,one?\nc.mp4,[what\n')
    assert pairs == [("a.mp4", "a?"), ("a.mp4", "b?"), ("b.mp4", "one?")] and faults[0].startswith("t.csv:4: ")


def test_what_is_no_regular_file_is_told_before_it_is_read(place):
    os.mkfifo("p.jsonl")
    os.mkfifo("q.txt")
    (place / "zero.csv").symlink_to("/dev/zero")
    (place / "folder").mkdir()
    with open("big.jsonl", "wb") as file:
        file.truncate((512 << 20) + 1)
    for name, reason in [
        ("p.jsonl", "a pipe"), ("q.txt", "a pipe"), ("zero.csv", "a device"), ("big.jsonl", "536,870,913 bytes"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=f"^{name} .*{reason}"):
            collect([name], ["q?"])
        with pytest.raises(UsageError, match=f"^{name} .*{reason}"):
            read_questions(Path(name))
    with pytest.raises(UsageError, match="folder is a folder"):
        read_questions(Path("folder"))


def test_stdin_is_bounded_and_may_be_a_folder(monkeypatch):
    monkeypatch.setattr(textfiles, "MAX_BYTES", 1000)
    stream = Mock()
    stream.read = lambda size: b"\0" * size
    with pytest.raises(UsageError, match="^stdin: more than 1,000 bytes"):
        collect(["-"], ["q?"], stdin=stream)
    stream.read = Mock(side_effect=IsADirectoryError(21, "Is a directory"))
    with pytest.raises(UsageError, match="^stdin: Is a directory"):
        collect(["-"], ["q?"], stdin=stream)


def test_lists_separated_by_nuls_are_noticed():
    with pytest.raises(UsageError, match="^stdin: .*--null"):
        collect(["-"], ["q?"], stdin=io.BytesIO(b"a.mp4\0b.mp4\0"))
    collection = collect(["-"], ["q?"], stdin=io.BytesIO(b"a.mp4\nb\0.mp4\nc.mp4\n"))
    assert [item.video for item in collection.items] == ["a.mp4", "c.mp4"]
    assert collection.faults[0].startswith("stdin:2: ") and "--null" in collection.faults[0]
    with pytest.raises(UsageError, match="leave out --null"):
        collect(["-"], ["q?"], stdin=io.BytesIO(b"a.mp4\nb.mp4\n"), null=True)
    with pytest.raises(UsageError, match="^l.txt: .*--null"):
        read("l.txt", b"a.mp4\0b.mp4\0", "q?")


def test_what_is_empty_is_nothing_to_do_alone_and_a_fault_beside_others(place):
    (place / "a.mp4").write_bytes(b"")
    (place / "empty").mkdir()
    for name in ("m.jsonl", "l.txt"):
        (place / name).write_bytes(b"\n")
    (place / "t.csv").write_text("video\n")
    names = {"empty": "no media file in empty", "*.webm": "*.webm: no such file matches", "-": "stdin: nothing in it"}
    names |= {name: f"{name}: nothing in it" for name in ("m.jsonl", "l.txt", "t.csv")}
    for name, message in names.items():
        with pytest.raises(NothingToDo) as stopped:
            collect([name], ["q?"], stdin=io.BytesIO())
        assert str(stopped.value) == f"{message}: nothing to do"
        collection = collect([name, "a.mp4"], ["q?"], stdin=io.BytesIO())
        assert [item.video for item in collection.items] == ["a.mp4"] and collection.faults == [message]


def test_questions_that_are_none(place):
    for text in ("", " ", "\udcff?"):
        with pytest.raises(UsageError, match="-q QUESTION"):
            collect(["a.mp4"], [text])
