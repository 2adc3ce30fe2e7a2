"""The command line as its users meet it: what goes to stdout, what to stderr, and the exit codes."""

from __future__ import annotations

import io
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import SAMPLES, tiny
from helpers.processes import drain, wait_for_output

from cg_cli import records
from cg_cli.nano.script import write_script
from cg_cli.nano.world import write_clip
from cg_cli.settings import models

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    return str(tiny.build(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("clips") / "a clip.mp4"
    write_clip(write_script(510, 0, longest=6), path)
    return str(path)


def ask_tiny(cg, tiny_model, clip, *more):
    return cg("ask", clip, "What is this?", "--model", tiny_model, "--max-new-tokens", "4", *more)


def test_json_is_one_valid_record_a_line(cg, tiny_model, clip):
    code, out, err = cg("ask", clip, "One?", "Two?", "--model", tiny_model, "--max-new-tokens", "4", "--json")
    assert code == 0 and err.count("\n") == 1 and "no audio-to-visual predictor" in err  # the tiny model has none
    first, second = (json.loads(line) for line in out.splitlines())
    assert any("no audio-to-visual predictor" in warning for warning in first["warnings"])
    for record in (first, second):
        assert isinstance(records.from_line(json.dumps(record)), records.Answer)
        assert record["video"] == clip and record["ok"] is True
    assert (first["question"], second["question"]) == ("One?", "Two?")
    assert not first["prefix_reused"] and second["prefix_reused"]
    assert first["key"] != second["key"]
    assert first["pruner"]["preset"] == "paper" and first["pruner"]["keep"] == 0.45
    tokens = first["tokens"]
    assert tokens["keep"] == pytest.approx(0.45, abs=1 / (tokens["video"] + tokens["audio"]))
    assert tokens["video"] == first["media"]["frames"] // 2 * 64 and tokens["audio"] == pytest.approx(25 * 6, abs=2)
    assert first["media"]["fps"] == pytest.approx(2, abs=0.05) and first["media"]["audio"] == "used"
    assert 0 < first["flops"]["prefill"] < first["flops"]["prefill_full"]
    assert first["latency_s"]["total"] >= sum(first["latency_s"][s] for s in ("media", "encode", "prune", "prefill"))
    assert first["memory"]["kv_bytes"] > 0


def test_answers_go_to_stdout_and_the_table_to_stderr(cg, tiny_model, clip):
    code, out, err = ask_tiny(cg, tiny_model, clip)
    assert code == 0 and len(out.strip().splitlines()) >= 1
    assert "video tokens" in err and "prefill" in err and "KV cache" in err and "video tokens" not in out


def test_quiet_says_nothing_but_the_answer(cg, tiny_model, clip):
    code, out, err = ask_tiny(cg, tiny_model, clip, "-q")
    assert code == 0 and out.strip() and err == ""


def test_verbose_prints_the_settings(cg, tiny_model, clip):
    assert "keep = 0.45" in ask_tiny(cg, tiny_model, clip, "-v")[2]


def test_questions_come_from_stdin(cg, tiny_model, clip, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("First?\n\n  Second?  \n"))
    code, out, _ = cg("ask", clip, "-", "--model", tiny_model, "--max-new-tokens", "2", "--json")
    assert code == 0 and [json.loads(line)["question"] for line in out.splitlines()] == ["First?", "Second?"]


def test_no_question_on_stdin_is_nothing_to_do(cg, tiny_model, clip, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    code, out, err = cg("ask", clip, "-", "--model", tiny_model)
    assert code == 4 and out == "" and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("keep", ["1", "0.45", "0.1", "0.01"])
@pytest.mark.parametrize("pruner", ["random", "uniform", "evs"])
def test_any_pruner_at_any_keep_gets_its_budget(cg, tiny_model, clip, pruner, keep):
    code, out, _ = ask_tiny(cg, tiny_model, clip, "--json", "--pruner", pruner, "--keep", keep)
    tokens = json.loads(out)["tokens"]
    total, kept = tokens["video"] + tokens["audio"], tokens["video_kept"] + tokens["audio_kept"]
    assert code == 0 and kept == int(float(keep) * total + 0.5)


def test_pruner_none_keeps_everything(cg, tiny_model, clip):
    code, out, _ = ask_tiny(cg, tiny_model, clip, "--json", "--pruner", "none")
    record = json.loads(out)
    assert code == 0 and record["tokens"]["keep"] == 1 and record["flops"]["prefill"] == record["flops"]["prefill_full"]


def test_full_tokens_answer_alike_with_every_pruner(cg, tiny_model, clip):
    answers = {
        json.loads(ask_tiny(cg, tiny_model, clip, "--json", "--keep", "1", "--pruner", p)[1])["answer"]
        for p in ("none", "evs", "random")
    }
    assert len(answers) == 1


def test_no_audio_leaves_the_sound_out(cg, tiny_model, clip):
    record = json.loads(ask_tiny(cg, tiny_model, clip, "--json", "--no-audio")[1])
    assert record["media"]["audio"] == "off" and record["tokens"]["audio"] == 0


def test_a_broken_file_is_a_record_and_one_line(cg, tiny_model, tmp_path):
    bad = tmp_path / "bad\nname.mp4"
    bad.write_text("this is no video")
    code, out, err = cg("ask", str(bad), "One?", "Two?", "--model", tiny_model, "--json")
    failures = [records.from_line(line) for line in out.splitlines()]
    assert code == 3 and [f.question for f in failures] == ["One?", "Two?"]
    assert all(not f.ok and f.error.stage == "media" and f.error.message for f in failures)
    assert len(err.strip().splitlines()) == 1 and err.startswith("cg: error: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ask"], "VIDEO"),
        (["ask", "x.mp4", "--keep", "1.5"], "--keep"),
        (["ask", "x.mp4", "--keep", "0"], "--keep"),
        (["ask", "x.mp4", "--keep", "nan"], "--keep"),
        (["ask", "x.mp4", "--keep", "lots"], "--keep"),
        (["ask", "x.mp4", "--pruner", "none", "--keep", "0.5"], "none"),
        (["ask", "x.mp4", "--pruner", "evvs"], "did you mean 'evs'"),
        (["ask", "x.mp4", "--preset", "papper"], "did you mean 'paper'"),
        (["ask", "x.mp4", "--max-frames", "0"], "--max-frames"),
        (["ask", "x.mp4", "--config", "missing.yaml"], "missing.yaml"),
        (["ask", "x.mp4", "--model", "no/such/place"], "no/such/place"),
        (["ask", "x.mp4", "--model", "nano", "--device", "cuda:9"], "cuda:9"),
        (["ask", "x.mp4", "--nonsense"], "--nonsense"),
        (["asks"], "asks"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_2(cg, arguments, says):
    code, out, err = cg(*arguments)
    assert code == 2 and out == "" and says in err and len(err.strip().splitlines()) == 1


def test_auto_without_a_gpu_names_both_ways_on(cg, clip, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = cg("ask", clip, "What?")
    assert code == 2 and out == "" and "--model nano" in err and "Qwen/Qwen2.5-Omni" in err and "GB" in err
    assert len(err.strip().splitlines()) == 1


def test_flag_beats_environment_beats_file_beats_preset(cg, tiny_model, clip, monkeypatch, tmp_path):
    config = tmp_path / "cg.yaml"
    config.write_text(f"model: {tiny_model}\nkeep: 0.5\nmax-frames: 4\nmax-new-tokens: 2\npreset: strong\n")
    run = lambda *more: json.loads(cg("ask", clip, "What?", "--config", str(config), "--json", *more)[1])
    record = run()
    assert record["pruner"]["keep"] == 0.5 and record["pruner"]["preset"] == "strong" and record["media"]["frames"] == 4
    monkeypatch.setenv("CG_KEEP", "0.6")
    assert run()["pruner"]["keep"] == 0.6
    assert run("--keep", "0.7")["pruner"]["keep"] == 0.7


def test_a_config_file_in_its_usual_place_is_used(cg, tiny_model, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "cg").mkdir()
    (tmp_path / "cg" / "config.yaml").write_text(f"model: {tiny_model}\nmax_new_tokens: 2\nkeep: 1\n")
    assert json.loads(cg("ask", clip, "What?", "--json")[1])["tokens"]["keep"] == 1
    (tmp_path / "cg" / "config.yaml").write_text("modell: nano\n")
    code, _, err = cg("ask", clip, "What?")
    assert code == 2 and "modell" in err


def test_the_same_seed_draws_the_same_answer(cg, tiny_model, clip):
    draw = lambda seed: json.loads(ask_tiny(cg, tiny_model, clip, "--json", "--temperature", "5", "--seed", seed)[1])
    assert draw("1")["answer"] == draw("1")["answer"]
    assert len({draw(str(seed))["answer"] for seed in range(4)}) > 1


def test_help_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys, cg_cli.main; heavy = {'torch', 'av', 'transformers', 'pydantic', 'numpy'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", [[], ["ask"]])
def test_help_teaches_by_example(cg, command):
    code, out, _ = cg(*command, "--help")
    assert code == 0 and "cg ask" in out and '"' in out


def test_a_reader_that_leaves_is_no_traceback(tiny_model, clip):
    command = [
        sys.executable,
        "-m",
        "cg_cli",
        "ask",
        clip,
        *(["What?"] * 3),
        "--model",
        tiny_model,
        "--json",
        "--max-new-tokens",
        "2",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait()


def test_ctrl_c_is_exit_130_and_one_line(tiny_model, clip):
    command = [sys.executable, "-m", "cg_cli", "ask", clip, "What?", "--model", tiny_model, "--max-new-tokens", "30000"]
    terminal, stdout = pty.openpty()  # an answer is streamed to a terminal only
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
    os.close(stdout)
    wait_for_output(terminal)  # the first words of the answer
    process.send_signal(signal.SIGINT)
    drain(terminal)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "cg: error: interrupted")


def test_a_predictor_is_trained_from_a_folder_and_used(cg, tmp_path, monkeypatch):

    from cg_cli.predictors import training

    monkeypatch.setattr(training, "MIN_CLIPS", 4)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    out, cache = tmp_path / "own.safetensors", tmp_path / "cache"
    videos = [str(SAMPLES), str(tmp_path / "broken.mp4")]
    train_it = (
        "train-predictor",
        *videos,
        "--model",
        "nano",
        "-o",
        str(out),
        "--cache",
        str(cache),
        "--steps",
        "3",
        "--fps",
        "1",
        "--publish-dir",
        str(tmp_path / "a2v"),
    )
    code, data, told = cg(*train_it)
    assert code == 3 and data == "" and out.exists()  # one of the videos could not be used
    assert "broken.mp4" in told and "recall@1" in told and "from 3 clips" in told
    encoded = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    cg(*train_it)
    assert {
        file: file.stat().st_mtime_ns for file in cache.iterdir() if "training" not in file.name
    }.items() <= encoded.items()

    ask = ("ask", str(Path(videos[0]) / "drum.mp4"), "What is happening?", "--model", "nano", "--json")
    own, bundled = (json.loads(cg(*ask, *more)[1]) for more in (("--predictor", str(out)), ()))
    assert (
        bundled["pruner"]["name"] == "contextguard" and bundled["pruner"]["preset"] == "paper"
    )  # what nobody has to ask for
    assert own["pruner"]["predictor"].startswith("own@") and bundled["pruner"]["predictor"].startswith("predictor@")
    assert own["key"] != bundled["key"] and own["flops"]["predictor"] > 0
    assert own["tokens"]["video_kept"] == bundled["tokens"]["video_kept"] and own["ok"]
    silent = json.loads(cg(*ask, "--no-audio")[1])
    assert any("no sound" in warning for warning in silent["warnings"])
    assert cg("fetch-predictor", str(tmp_path / "a2v"))[0] == 0  # what can be published can be fetched
    assert json.loads(cg(*ask)[1])["key"] == bundled["key"]  # installed, and not the default: nothing changes
    assert cg("fetch-predictor", str(tmp_path / "a2v"), "--default")[0] == 0  # and fits
    installed = json.loads(cg(*ask)[1])
    assert (
        installed["pruner"]["predictor"] == own["pruner"]["predictor"].replace("own", "a2v")
        and installed["answer"] == own["answer"]
    )


def test_a_predictor_that_does_not_fit_or_is_not_there_is_one_line(cg, tiny_model, clip, tmp_path):
    for predictor, reason in (
        (str(Path(models.NANO.predictor)), "was trained for nano"),
        (str(tmp_path / "gone"), "no predictor file"),
    ):
        code, out, err = ask_tiny(cg, tiny_model, clip, "--pruner", "contextguard", "--predictor", predictor)
        assert code == 2 and out == "" and reason in err and err.count("\n") == 1
    code, _, err = ask_tiny(cg, tiny_model, clip, "--pruner", "contextguard")
    assert code == 0 and "no audio-to-visual predictor" in err


def test_training_a_predictor_refuses_what_cannot_work(cg, tmp_path):
    (tmp_path / "empty").mkdir()
    samples = str(SAMPLES)
    for arguments, reason in (
        ((str(tmp_path / "empty"), "-o", str(tmp_path / "p")), "no video"),
        ((samples, "-o", str(tmp_path / "none" / "p")), "no such folder"),
        ((samples, "-o", str(tmp_path / "p")), "too few"),
        ((samples, "-o", str(tmp_path / "p"), "--publish-dir", samples), "holds other things"),
        ((samples, "-o", str(tmp_path / "p"), "--publish-dir", str(tmp_path / "a"), "--shuffle-sound"), "is a control"),
    ):
        code, out, err = cg("train-predictor", *arguments, "--model", "nano")
        assert code == 2 and out == "" and reason in err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments, redirections, code, line",
    [
        ("--version", ">&-", 1, "cannot write stdout: it is closed"),
        ("config", ">&-", 1, "cannot write stdout: it is closed"),
        ("config", ">/dev/full", 1, "cannot write stdout: No space left on device"),
        ("ask {clip} - --model nano", "<&-", 4, "no question on stdin: nothing to do"),
        ("batch - --question what -o o.jsonl --model nano", "<&-", 4, "stdin: nothing in it: nothing to do"),
        ("ask {clip} --model nano --quiet", ">/dev/full", 1, "cannot write stdout: No space left on device"),
        ("ask {clip} --model nano --quiet", ">&-", 1, "cannot write stdout: it is closed"),
        ("batch {clip} --question what -o - --model nano --quiet", ">&-", 1, "cannot write stdout: it is closed"),
        ("ask {clip} {clip} what", "", 2, "{clip} is a file, not a question: `cg batch` asks about several videos"),
        ("ask gone.mp4 what --model nano", "", 3, "'gone.mp4' does not exist: check the name"),
    ],
)
def test_closed_and_full_streams_and_wrong_names_are_one_line(clip, tmp_path, arguments, redirections, code, line):
    command = f"{sys.executable} -m cg_cli {arguments.format(clip=shlex.quote(clip))} {redirections}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (code, f"cg: error: {line.format(clip=clip)}\n")


def test_records_are_written_with_all_streams_closed(clip, tmp_path):
    command = (
        f"{sys.executable} -m cg_cli batch {shlex.quote(clip)} --question what -o o.jsonl --model nano >&- <&- 2>&-"
    )
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, timeout=120).returncode == 0
    (record,) = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert record["ok"]
