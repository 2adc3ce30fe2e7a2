"""Whole batches in processes of their own, on nano: faults, interrupts, kills, resuming, shards, several workers."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.made import CLIPS, folder_of, lines, told
from helpers.processes import children, wait_for_line, wait_until

from cg_cli import records
from cg_cli.batch.decoders import Decoders
from cg_cli.batch.job import Job
from cg_cli.batch.pool import Pool
from cg_cli.engine.inputs import AnswerInputs, video_content
from cg_cli.settings import models
from cg_cli.settings.resolve import resolve_settings

pytestmark = pytest.mark.slow

QUESTIONS = ["-q", "What is happening?", "-q", "What do you hear?"]


@pytest.fixture
def work(tmp_path):
    folder_of(tmp_path / "clips", 5)
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"junk")
    return tmp_path


def start(work: Path, *arguments: str, python_path: Path | None = None, **more) -> subprocess.Popen:
    environment = {**os.environ, **({"PYTHONPATH": str(python_path)} if python_path else {})}
    command = [sys.executable, "-m", "cg_cli", "batch", *arguments, "--model", "nano"]
    return subprocess.Popen(
        command, cwd=work, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **more
    )


def cg(work: Path, *arguments: str, **more) -> tuple[int, str, str]:
    process = start(work, *arguments, **more)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_a_folder_becomes_records_and_a_second_run_answers_only_what_is_missing(work):
    code, out, err = cg(work, "clips", *QUESTIONS, "-o", "o.jsonl")
    assert code == 3 and not out and err.count("not audio or video") == 1 and "\x1b" not in err
    first = lines(work / "o.jsonl")
    assert len(first) == 12 and sum(r["ok"] for r in first) == 10
    for line in (work / "o.jsonl").read_text().splitlines():
        records.from_line(line)
    answers = {(r["video"], r["question"]): r for r in first}
    drum = answers["clips/c002.mp4", "What is happening?"]
    assert "drum" in drum["answer"] and drum["answered_together"] >= 2 and not drum["prefix_reused"]
    assert answers["clips/c002.mp4", "What do you hear?"]["prefix_reused"]

    (work / "clips" / "c000.mp4").rename(work / "clips" / "renamed.mp4")  # the same file: nothing to answer
    shutil.copy(work / "clips" / "c001.mp4", work / "clips" / "copy.mp4")  # the same content: nothing to answer anew
    os.utime(work / "clips" / "c002.mp4")  # touched: the same file
    code, out, err = cg(work, "clips", *QUESTIONS, "-q", "New?", "-o", "o.jsonl")
    assert code == 3
    second = lines(work / "o.jsonl")
    new = [r for r in second if r["question"] == "New?" and r["ok"]]
    assert len(new) == 6 and len(second) == 12 + 2 + 7  # "New?" of each, all of the copy, and the failures once
    assert [r["attempts"] for r in second if not r["ok"]] == [1, 1, 1]  # what is no media is not tried again
    assert "10 of them before this run" in err
    copies = {r["question"]: r for r in second if r["video"] == "clips/copy.mp4"}
    originals = {r["question"]: r for r in second if r["video"] == "clips/c001.mp4"}
    for question, record in copies.items():
        original = originals[question]
        assert record["copied_from"] == "clips/c001.mp4" and record["key"] == original["key"]
        assert record["answer"] == original["answer"] and record["tokens"] == original["tokens"]
        assert record["latency_s"]["total"] == 0 and record["prefix_reused"]

    sidecar = json.loads((work / "o.run.json").read_text())
    assert sidecar["schema"] == "cg.run/1" and sidecar["status"] == "finished"
    assert sidecar["model"]["id"] == "nano" and sidecar["totals"]["answered"] == 8 and sidecar["versions"]["torch"]

    code, out, err = cg(work, "clips", *QUESTIONS, "-q", "New?", "-o", "o.jsonl")
    assert code == 0 and lines(work / "o.jsonl") == second  # nothing that could be answered is left
    assert "questions set aside" in err and "model" not in err  # none was loaded
    code, out, err = cg(work, "clips", *QUESTIONS, "-q", "New?", "-o", "o.jsonl", "--retry", "--quiet")
    assert code == 3 and [r["attempts"] for r in lines(work / "o.jsonl") if not r["ok"]] == [2, 2, 2]


def test_a_manifest_to_stdout_and_what_it_passes_on(work):
    rows = [
        {
            "video": "clips/c000.mp4",
            "question": "What is happening?",
            "id": "a",
            "answer": "gold",
            "split": "dev",
            "ok": "mine",
        },
        {"video": "clips/c000.mp4", "question": "What do you hear?", "id": 2},
    ]
    (work / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, err = cg(work, "m.jsonl", "-o", "-", "--quiet", "--decoders", "2")
    assert code == 0 and not err
    first, second = map(json.loads, out.splitlines())
    assert (first["id"], second["id"]) == ("a", 2)
    assert first["expected"] == "gold" and first["split"] == "dev" and first["ok"] is True and first["answer"] != "gold"
    assert first["manifest_ok"] == "mine"
    assert not list(work.glob("*.run.json"))


def test_two_questions_that_differ_in_their_choices_have_a_record_each(work):
    row = {"video": "clips/c002.mp4", "question": "What is happening?", "correct": "B", "shown": [1]}
    choices = [["drum", "clock"], ["clock", "drum"], ["dog", "cat"]]
    rows = [row | {"choices": texts, "answer": texts[0]} for texts in choices]
    write = lambda *rows: (work / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write(rows[0])
    code, _, err = cg(work, "m.jsonl", "-o", "o.jsonl")
    assert code == 0 and "1 of 1" in err
    write(rows[2], rows[1], rows[0])  # the same key: what is settled stays with its own choices
    code, _, err = cg(work, "m.jsonl", "-o", "o.jsonl")
    assert code == 0 and "1 of them before this run" in err
    made = lines(work / "o.jsonl")
    assert [(r["choices"], r["correct"]) for r in made] == [
        (["drum", "clock"], True),
        (["dog", "cat"], False),
        (["clock", "drum"], False),
    ]
    assert len({r["key"] for r in made}) == 1 and {r["answer"] for r in made} == {made[0]["answer"]}
    assert all(r["manifest_correct"] == "B" and r["manifest_shown"] == [1] for r in made)
    before = (work / "o.jsonl").read_bytes()
    code, _, err = cg(work, "m.jsonl", "-o", "o.jsonl")
    assert code == 0 and "3 of them before this run" in err and (work / "o.jsonl").read_bytes() == before
    code, out, err = cg(work, "m.jsonl", "*.webm", "-o", "o.jsonl", "--dry-run")
    assert code == 3 and "no such file matches" in err and json.loads(out)["settled"] == 3


def test_failures_of_questions_that_differ_in_their_choices_stay_apart(work):
    rows = [{"video": "clips/broken.mp4", "question": "?", "choices": texts} for texts in (["a", "b"], ["c", "d"])]
    (work / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for attempts in (1, 2):
        assert cg(work, "m.jsonl", "-o", "o.jsonl", "--retry")[0] == 3
        made = lines(work / "o.jsonl")
        assert [(r["choices"], r["attempts"]) for r in made] == [(["a", "b"], attempts), (["c", "d"], attempts)]


def test_a_dry_run_foretells_what_the_run_then_does(work):
    code, out, _err = cg(work, "clips", *QUESTIONS, "-o", "o.jsonl", "--dry-run")
    assert code == 0 and not (work / "o.jsonl").exists()
    foretold = {line["video"]: line for line in map(json.loads, out.splitlines())}
    assert foretold["clips/broken.mp4"]["error"]["type"] == "not_media" and len(foretold) == 6
    assert cg(work, "clips/c00[0-3].mp4", *QUESTIONS, "-o", "o.jsonl", "--quiet")[0] == 0
    for record in lines(work / "o.jsonl"):
        line = foretold[record["video"]]
        assert (line["frames"], line["width"], line["height"]) == tuple(
            record["media"][k] for k in ("frames", "width", "height")
        )
        assert line["tokens"]["video"] == record["tokens"]["video"]
        assert line["tokens"]["audio"] == pytest.approx(record["tokens"]["audio"], abs=2)
        assert line["tokens"]["video_kept"] == pytest.approx(record["tokens"]["video_kept"], abs=2)
    out = cg(work, "clips", *QUESTIONS, "-o", "o.jsonl", "--dry-run")[1]
    assert [(line["questions"], line["settled"]) for line in map(json.loads, out.splitlines())] == [(2, 0)] + [
        (0, 2)
    ] * 4 + [(2, 0)]


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["clips", "-q", "?"], 2, "no place for the records"),
        (["clips", "-o", "o.jsonl"], 2, "nothing to ask"),
        (["empty", "-q", "?", "-o", "o.jsonl"], 4, "no media file"),
        (["gone.jsonl", "-o", "o.jsonl"], 2, "gone.jsonl: No such file"),
        (["clips", "-q", "?", "-o", "o.jsonl", "--engine", "magic"], 2, "'magic' is not one of"),
        (["clips", "-q", "?", "-o", "o.jsonl", "--shard", "2/2"], 2, "count from 0"),
        (["clips", "-q", "?", "-o", "o.jsonl", "--gpus", "0"], 2, "--gpus 0"),
        (["clips", "-q", "?", "-o", "o.jsonl", "--in-flight", "0"], 2, "--in-flight 0"),
        (["clips", "-q", "?", "-o", "o.jsonl", "--decoders", "0"], 2, "--decoders 0"),
        (["clips", "-q", "?", "-o", "o.jsonl", "--pruner", "magic"], 2, "magic"),
        (["clips", "-q", "?", "-o", "gone/o.jsonl"], 2, "no such folder"),
        (["*.webm", "-q", "?", "-o", "o.jsonl"], 4, "no such file matches"),
        (["*.webm", "empty", "-q", "?", "-o", "o.jsonl"], 4, "no such file matches"),
        (["*.webm", "-q", "?", "--dry-run"], 4, "no such file matches"),
        (["bad.jsonl", "-q", "?", "-o", "o.jsonl"], 4, "bad.jsonl:1: no 'video'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_code(work, arguments, code, message):
    (work / "empty").mkdir()
    (work / "bad.jsonl").write_text("{}\n")
    got, out, err = cg(work, *arguments)
    assert got == code and message in err and not out and "Traceback" not in err


def test_failures_can_stop_a_run(work):
    for i in range(20):
        (work / "clips" / f"a{i:02d}.mp4").write_bytes(b"junk %d" % i)
    code, _, err = cg(work, "clips", *QUESTIONS, "-o", "o.jsonl", "--max-failures", "2")
    assert code == 1 and "stopped, as " in err and "go on with: cg batch clips" in err
    failed = [r for r in lines(work / "o.jsonl") if not r["ok"]]
    assert 4 <= len(failed) < 40 and f"{len(failed) // 2} clips failed" in err  # what was in work is finished
    code, _, err = cg(work, "clips", *QUESTIONS, "-o", "fast.jsonl", "--fail-fast")
    assert code == 1 and "stopped, as " in err


def test_shards_together_are_the_whole(work):
    assert cg(work, "clips", *QUESTIONS, "-o", "whole.jsonl", "--quiet")[0] == 3
    codes = [cg(work, "clips", *QUESTIONS, "-o", "part.jsonl", "--shard", f"{i}/2", "--quiet")[0] for i in range(2)]
    assert 3 in codes and set(codes) <= {0, 3}
    parts = sorted(work.glob("part.*-of-00002.jsonl"))
    assert len(parts) == 2 and (work / "part.00000-of-00002.run.json").exists()
    merged = [record for part in parts for record in lines(part)]
    assert sorted(map(told, merged), key=str) == sorted(map(told, lines(work / "whole.jsonl")), key=str)


def test_an_interrupt_finishes_what_is_begun_and_says_how_to_go_on(tmp_path):
    folder_of(tmp_path / "clips", 40)
    process = start(tmp_path, "clips", *QUESTIONS, "-o", "o.jsonl")
    out = tmp_path / "o.jsonl"
    wait_until(lambda: process.poll() is not None or (out.exists() and out.stat().st_size))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    done = lines(out)
    assert process.returncode == 130 and 0 < len(done) < 80 and len(done) % 2 == 0
    assert f"{80 - len(done)} questions are left; go on with: cg batch clips" in err
    assert json.loads((tmp_path / "o.run.json").read_text())["status"] == "interrupted"
    process = start(tmp_path, "clips", *QUESTIONS, "-o", "o.jsonl")
    wait_until(lambda: children(process.pid, "cg_cli.batch.worker"))  # signals are caught by then
    process.send_signal(signal.SIGTERM)
    wait_for_line(process, "once more ends at once")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - began < 5


def test_the_process_that_writes_never_loads_what_may_crash_it(work):
    code = (
        "import sys; from cg_cli.main import app; app(sys.argv[1:], standalone_mode=False); "
        "sys.exit(bool({'torch', 'av', 'transformers'} & set(sys.modules)))"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "batch",
        "clips/c000.mp4",
        "-q",
        "?",
        "-o",
        "o.jsonl",
        "--model",
        "nano",
        "--quiet",
    ]
    assert subprocess.run(command, cwd=work).returncode == 0


def test_a_video_that_takes_too_long_is_a_failure(work):
    code, _, _err = cg(work, "clips/c000.mp4", *QUESTIONS, "-o", "o.jsonl", "--decode-timeout", "0.001")
    assert code == 3 and [r["error"]["type"] for r in lines(work / "o.jsonl")] == ["timeout"] * 2


def test_a_closed_pipe_is_a_line_and_a_code(work):
    process = start(work, "clips", *QUESTIONS, "-o", "-", "--quiet")
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr.read().strip().splitlines()[-1] == "cg: error: cannot write stdout: whoever read it has left"


def test_four_kills_lose_nothing_and_duplicate_nothing(tmp_path):
    """``kill -9`` at random moments; each run goes on where the last one was killed."""
    folder_of(tmp_path / "clips", 12)
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"junk")
    began = time.monotonic()
    assert cg(tmp_path, "clips", *QUESTIONS, "-o", "whole.jsonl")[0] == 3
    whole, took = lines(tmp_path / "whole.jsonl"), time.monotonic() - began
    rng, out, kills, before = random.Random(5), tmp_path / "o.jsonl", 0, 0
    while kills < 4:
        process = start(tmp_path, "clips", *QUESTIONS, "-o", "o.jsonl")
        try:
            process.communicate(timeout=rng.uniform(0.1, 0.8 * took))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            size = out.stat().st_size if out.exists() else 0
            done = [line for line in (out.read_bytes().split(b"\n")[:-1] if size else []) if json.loads(line)["ok"]]
            assert len(set(done)) == len(done) >= before  # nothing that was there is gone
            before = len(done)
        else:  # it came to its end before the kill
            assert sorted(map(told, lines(out)), key=str) == sorted(map(told, whole), key=str)
            out.unlink()
            before = 0
    # 3 if this run is the one that meets the broken file, 0 if that was set aside before.
    assert cg(tmp_path, "clips", *QUESTIONS, "-o", "o.jsonl")[0] in (0, 3)
    assert sorted(map(told, lines(out)), key=str) == sorted(map(told, whole), key=str)
    listed = lambda: subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    wait_until(lambda: str(tmp_path) not in listed())  # no process is left behind


def test_a_file_that_kills_its_worker_twice_is_poison_and_the_others_are_answered(work, plugin, silent):
    (work / "clips" / "broken.mp4").unlink()
    shutil.move(silent, work / "clips" / "b.mp4")
    code, _, err = cg(work, "clips", *QUESTIONS, "-o", "o.jsonl", "--pruner", "killer", python_path=plugin)
    done = lines(work / "o.jsonl")
    assert code == 3 and len(done) == 12
    poison = [r for r in done if not r["ok"]]
    assert {r["video"] for r in poison} == {"clips/b.mp4"} and len(poison) == 2
    assert (
        poison[0]["error"]["type"] == "poison" and poison[0]["error"]["stage"] == "prune" and poison[0]["attempts"] == 2
    )
    assert "SIGKILL" in poison[0]["error"]["message"] and err.count("so it is poison, and not tried again") == 1
    began = (work / "o.jsonl").read_bytes()
    code, _, err = cg(work, "clips", *QUESTIONS, "-o", "o.jsonl", "--pruner", "killer", python_path=plugin)
    assert code == 3 and (work / "o.jsonl").read_bytes() == began and "not tried again" in err


def test_a_file_that_crashes_the_decoder_twice_is_poison(work, tmp_path):
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'cg_cli.media.worker' in sys.orig_argv:\n"
        "    import av, os\n"
        "    plain = av.open\n"
        "    def opened(file, *args, **more):\n"
        "        if file.seek(0, 2) == 4321: os.kill(os.getpid(), 11)\n"
        "        return plain(file, *args, **more)\n"
        "    av.open = opened\n"
    )
    (work / "clips" / "bomb.mp4").write_bytes(CLIPS[0].read_bytes()[:4321])
    code, _, _err = cg(work, "clips", *QUESTIONS, "-o", "o.jsonl", python_path=hook)
    bomb = [r for r in lines(work / "o.jsonl") if r["video"] == "clips/bomb.mp4"]
    assert code == 3 and len(bomb) == 2 and len(lines(work / "o.jsonl")) == 14
    assert bomb[0]["error"]["type"] == "poison" and "SIGSEGV" in bomb[0]["error"]["message"]


def test_out_of_memory_is_tried_once_more_with_less(work, plugin, silent):
    shutil.move(silent, work / "clips" / "silent.mp4")
    code, _, _err = cg(work, "clips", *QUESTIONS, "-o", "o.jsonl", "--pruner", "greedy", python_path=plugin)
    done = {r["video"]: r for r in lines(work / "o.jsonl")}
    assert code == 3
    failed = done["clips/silent.mp4"]
    assert failed["error"]["type"] == "out_of_memory" and failed["attempts"] == 2
    for _video, record in done.items():
        if record["ok"]:
            large = record["tokens"]["video"] == 512
            assert record["pruner"]["keep"] == (0.225 if large else 0.45)
            assert record["tokens"]["keep"] == pytest.approx(record["pruner"]["keep"], abs=0.01)
            assert (
                any("out of memory on cpu in prune: tried again with keep 0.225" in w for w in record["warnings"])
                == large
            )
    assert {r["pruner"]["keep"] for r in done.values() if r["ok"]} == {0.225, 0.45}
    before = (work / "o.jsonl").read_text().count('"ok": true')
    cg(work, "clips", *QUESTIONS, "-o", "o.jsonl", "--pruner", "greedy", python_path=plugin)
    assert (work / "o.jsonl").read_text().count('"ok": true') == before  # an answer with less is an answer


def test_several_workers_share_the_work_and_answer_each_clip_once(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two workers with two threads each would wait for each other
    clips = sorted(folder_of(tmp_path / "clips", 12).glob("*.mp4"))
    pool = Pool(resolve_settings({"model": "nano"}), ["cpu", "cpu"], Decoders(1, 1))
    try:
        inputs = AnswerInputs(**pool.start()["inputs"])
        jobs = [Job(number, str(clip), ("What is happening?",)) for number, clip in enumerate(clips)]
        outcomes = list(pool.run(iter(jobs)))
    finally:
        pool.close()
    assert sorted(o.number for o in outcomes if o.done) == list(range(12))
    made = [(jobs[outcome.number], record) for outcome in outcomes for record in outcome.records]
    assert len(made) == 12
    for job, record in made:
        assert record.ok and record.video == job.video
        assert record.key == replace(inputs, video=video_content(job.video), question=job.questions[0]).key


def test_answers_made_otherwise_are_told_before_they_are_asked_again(work):
    ask = ("clips/c000.mp4", "clips/c001.mp4", *QUESTIONS, "-o", "o.jsonl")
    assert cg(work, *ask)[0] == 0
    code, _, err = cg(work, *ask, "--keep", "0.3", "--temperature", "0.5", "--seed", "3")
    assert code == 0
    assert "4 answers were made with keep 0.45, now 0.3; temperature 0, now 0.5; seed 0, now 3" in err
    records_of_both = lines(work / "o.jsonl")
    assert [r["sampling"]["seed"] for r in records_of_both] == [0] * 4 + [3] * 4  # told apart in one file
    assert all(r["created"] and r["cg"] and r["media"]["options"]["fps"] == 2 for r in records_of_both)
    sidecar = json.loads((work / "o.run.json").read_text())
    assert sidecar["settings"]["keep"] == 0.3 and [run["settings"]["keep"] for run in sidecar["earlier_runs"]] == [0.45]
    assert "made with" not in cg(work, *ask, "--keep", "0.3", "--temperature", "0.5", "--seed", "3")[2]


@pytest.mark.parametrize("change", ["--dtype", "weights"])
def test_no_old_answer_is_handed_out_for_other_numbers(work, tmp_path, change):
    model = shutil.copytree(models.NANO.source, tmp_path / "model")
    ask = ("clips/c000.mp4", *QUESTIONS, "-o", "o.jsonl", "--model", str(model))
    assert batch_with(work, *ask)[0] == 0
    more = ("--dtype", "bfloat16") if change == "--dtype" else ()
    if change == "weights":  # one byte in the middle of a shard, at the same size and time
        (shard,) = Path(model).glob("*.safetensors")
        times = shard.stat()
        with shard.open("r+b") as file:
            file.seek(times.st_size // 2)
            byte = file.read(1)
            file.seek(times.st_size // 2)
            file.write(bytes([byte[0] ^ 1]))
        os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    code, _, err = batch_with(work, *ask, *more)
    assert code == 0 and ("dtype float32, now bfloat16" if more else "weights local-") in err
    assert len(lines(work / "o.jsonl")) == 4 and len({r["key"] for r in lines(work / "o.jsonl")}) == 4


def batch_with(work: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "cg_cli", "batch", *arguments], cwd=work, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_a_blank_line_is_nothing_to_any_reader(work):
    assert cg(work, "clips/c000.mp4", *QUESTIONS, "-o", "o.jsonl")[0] == 0
    text = (work / "o.jsonl").read_text()
    (work / "o.jsonl").write_text(text.replace("\n", "\n\n", 1) + "\n")
    code, _, err = cg(work, "clips/c000.mp4", *QUESTIONS, "-o", "o.jsonl")
    assert code == 0 and "2 of them before this run" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dtype", "flaot32"], "--dtype"),
        (["--device", "cuda:9"], "cuda:9"),
        (["--device", "toaster"], "toaster"),
        (["--gpus", "9"], "--gpus 9"),
        (["-o", "gone/o.jsonl"], "no such folder"),
        (["-o", "clips"], "clips"),
        (["--quantize", "int3"], "--quantize"),
        (["--shard", "9/3"], "--shard 9/3"),
    ],
)
def test_what_can_be_refused_is_refused_before_a_download(work, arguments, message):
    ask = ["clips", "-q", "?", "-o", "o.jsonl", "--model", "someone/a-model", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}  # where nothing listens
    command = [sys.executable, "-m", "cg_cli", "batch", *ask]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert "127.0.0.1" not in done.stderr and not (work / "o.jsonl").exists()
