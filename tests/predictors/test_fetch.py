"""Getting a predictor: whole, checked and safe, or one line that says why not, and nothing half-written is ever
used."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.fetch_servers import Server, serving
from rich.console import Console

from cg_cli.console.predictors import FetchProgress
from cg_cli.console.reporter import Reporter
from cg_cli.errors import UsageError
from cg_cli.predictors import files, installed, lookup, publish, sources, web
from cg_cli.pruning.predictor import WORDS, DirectionPredictor, PredictorMetadata, WordPredictor
from cg_cli.settings import models, presets

pytestmark = pytest.mark.slow

METADATA = PredictorMetadata(
    "qwen2.5-omni-7b", "rev-1", "qwen2_5_omni", 64, hidden=32, queries=2, components=16, clips=90, windows=700,
    validation={"cosine": 0.4, "cosine_shuffled": 0.05, "recall_at_1": 0.2, "chance": 0.1},
)  # fmt: skip


def made(path: Path, metadata: PredictorMetadata = METADATA, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    files.save(DirectionPredictor(metadata), path)
    return path


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> bytes:
    return made(tmp_path_factory.mktemp("made") / "a2v.safetensors").read_bytes()


@pytest.fixture
def server(weights, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(web, "RETRY_PAUSES_S", (0.0, 0.0, 0.0))
    with serving(Server()) as running:
        running.files["/a2v.safetensors"] = weights
        yield running


def entry(name: str = "a2v"):
    return installed.find(name)


def nothing_installed() -> bool:
    return installed.installed_predictors() == [] and not list(installed.root().glob("*/*.safetensors"))


def fails(cg, code: int, says: str, *arguments: str) -> None:
    got, out, err = cg("fetch-predictor", *arguments)
    last = err.strip().splitlines()[-1]
    assert (got, out) == (code, "") and last.startswith("cg: error: ") and says in last
    assert all(line.startswith("cg: ") for line in err.strip().splitlines()) and err.count("cg: error") == 1


# what there is


def test_the_list_is_a_table_or_one_object_a_predictor(cg, tmp_path):
    code, out, err = cg("fetch-predictor")
    assert code == 0 and out.splitlines()[0].split() == ["name", "backbone", "size", "source", "installed", "default"]
    assert out.splitlines()[1].split() == ["nano", "nano", "1.38", "MiB", "built", "in", "yes", "yes"]
    assert (
        "no predictor for Qwen2.5-Omni or video-SALMONN 2+ is published" in err
        and "cg train-predictor" in err
        and "trust" in err
    )
    cg("fetch-predictor", str(made(tmp_path / "mine.safetensors")))
    code, out, err = cg("fetch-predictor", "--json", "-q")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0 and err == "" and list(rows) == ["mine", "nano"] and all(row["installed"] for row in rows.values())
    assert (
        rows["mine"]["backbone"] == "qwen2.5-omni-7b"
        and Path(rows["mine"]["path"]).is_file()
        and rows["mine"]["size"] > 0
    )


def test_the_known_predictors_are_there_and_none_is_taken_for_a_preset():
    known = sources.known()
    assert Path(known["nano"].location) == Path(models.NANO.predictor) and "predictors" not in presets.names()
    assert all(s.kind == sources.BUILT_IN or (s.sha256 and s.size) for s in known.values())


def test_nano_needs_no_fetch(cg):
    code, out, err = cg("fetch-predictor", "nano", "--json")
    assert code == 0 and "built in" in err and json.loads(out)["path"] == models.NANO.predictor and nothing_installed()
    fails(cg, 1, "does not have the SHA-256", "nano", "--sha256", "0" * 64)


@pytest.mark.parametrize(
    "model", ["qwen2.5-omni-7b", "Qwen2.5-Omni-3B", "Qwen/Qwen2.5-Omni-7B", "video-SALMONN-2_plus_7B"]
)
def test_what_nobody_has_published_is_said_with_the_ways_out(cg, model):
    fails(cg, 2, f"no predictor for {model} is published today", model)
    fails(cg, 2, "cg train-predictor", model)
    fails(cg, 2, "repository OWNER/NAME that you trust", model)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nanoo", "did you mean 'nano'"),
        ("./gone.safetensors", "no predictor file or folder"),
        ("gone.safetensors", "no predictor file or folder"),
        ("../../nowhere", "no predictor file or folder"),
        ("ftp://host/a2v.safetensors", "give an https URL"),
        ("https://[::1/a2v.safetensors", "that is no URL"),
        ("http://example.org/a2v.safetensors", "plain http"),
        ("http://localhost.example.org/a2v.safetensors", "plain http"),
        ("https://example.org/a2v.bin", "can run code"),
        ("https://example.org/a2v.PT?download=1", "can run code"),
        ("https://example.org/..%2f..%2f..%2f.bashrc", "cannot be the name"),
        ("https://example.org/%2e%2e/predictor.safetensors", "cannot be the name"),
        ("https://example.org/a%5Cb.safetensors", "cannot be the name"),
        ("https://example.org/", "cannot be the name"),
        ("https://example.org/nano.safetensors", "is the name of another predictor"),
        ("/dev/zero", "neither a file nor a folder"),
        ("a" * 300, "File name too long"),
    ],
)
def test_what_cannot_be_fetched_is_one_line_and_nothing_is_asked_of_anybody(cg, monkeypatch, source, says):
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("the network was touched"))
    fails(cg, 2, says, source)


# files and folders


def test_a_file_is_installed_under_its_name_with_what_it_is(cg, tmp_path, weights):
    file = tmp_path / "a2v.safetensors"
    file.write_bytes(weights)
    code, out, err = cg("fetch-predictor", str(file), "--json", "--sha256", sha(weights).upper())
    row, predictor = json.loads(out), entry()
    assert code == 0 and "a2v: for qwen2.5-omni-7b" in err
    assert (
        row["name"] == "a2v"
        and row["sha256"] == predictor.sha256 == sha(weights)
        and row["path"] == str(predictor.path)
    )
    assert (
        predictor.source == str(file)
        and predictor.size == len(weights)
        and predictor.card["validation"]["cosine"] == 0.4
    )
    assert predictor.path.read_bytes() == weights and predictor.intact
    assert cg("fetch-predictor", "a2v")[0] == 4  # its own name: nothing to do


def test_one_predictor_a_model_is_the_default_and_only_when_told_to_be(cg, tmp_path):
    first, second = (str(made(tmp_path / f"{name}.safetensors", seed=seed)) for seed, name in enumerate("ab"))
    defaults = lambda: [predictor.name for predictor in installed.installed_predictors() if predictor.is_default]
    code, out, err = cg("fetch-predictor", first, "--json")
    assert code == 0 and json.loads(out)["default"] is False and "`--predictor a` uses it" in err and defaults() == []
    code, out, err = cg("fetch-predictor", "a", "--default", "--json")  # it is there: only the mark
    assert code == 0 and json.loads(out)["default"] is True and defaults() == ["a"]
    assert "the default of qwen2.5-omni-7b now" in err
    assert cg("fetch-predictor", second, "--default")[0] == 0 and defaults() == ["b"]
    other = made(tmp_path / "c.safetensors", replace(METADATA, backbone="qwen2.5-omni-3b"))
    assert cg("fetch-predictor", str(other), "--default")[0] == 0 and defaults() == ["b", "c"]
    assert cg("fetch-predictor", second)[0] == 0 and defaults() == ["b", "c"]  # fetched again: the mark stays
    table = cg("fetch-predictor")[1].splitlines()
    assert [line.split()[-1] for line in table] == ["default", "no", "yes", "yes", "yes"]
    fails(cg, 2, "--default marks one predictor: name it", "--default")


def test_a_predictor_that_was_refused_is_no_default(cg, tmp_path):
    (tmp_path / "page.safetensors").write_text("<html>log in first</html>")
    fails(cg, 2, "cannot be read", str(tmp_path / "page.safetensors"), "--default")
    assert installed.default_of("qwen2.5-omni-7b") is None


def test_an_installed_predictor_is_removed_with_its_mark(cg, tmp_path):
    file = str(made(tmp_path / "a2v.safetensors"))
    cg("fetch-predictor", file, "--default")
    code, out, err = cg("fetch-predictor", "--remove", "a2v", "--json")
    assert code == 0 and json.loads(out) == {"name": "a2v", "installed": False} and err == "cg: removed: a2v\n"
    assert nothing_installed() and not installed.folder("a2v").exists()
    assert installed.default_of("qwen2.5-omni-7b") is None
    fails(cg, 2, "no predictor 'a2v' is installed", "--remove", "a2v")
    cg("fetch-predictor", file)
    assert not entry().is_default
    cg("fetch-predictor", "a2v", "--default")
    shutil.rmtree(installed.folder("a2v"))  # by hand: no mark is left for what comes after
    assert installed.default_of("qwen2.5-omni-7b") is None
    cg("fetch-predictor", file)
    assert not entry().is_default
    fails(cg, 2, "did you mean 'a2v'", "--remove", "a2w")
    (entry().path.parent / "predictor.json").write_text("{")  # even what cannot be read
    assert cg("fetch-predictor", "--remove", "a2v", "-q") == (0, "", "") and nothing_installed()


@pytest.mark.parametrize("name", ["../a2v", "/tmp", "", ".locks", "someone/else@v1"])
def test_only_a_name_is_removed(cg, name):
    fails(cg, 2, f"no predictor '{name}' is installed", "--remove", name)


def test_what_is_built_in_stays(cg):
    fails(cg, 2, "is built in and cannot be removed", "--remove", "nano")
    fails(cg, 2, "takes no SOURCE", "nano", "--remove", "nano")
    fails(cg, 2, "takes no SOURCE", "--default", "--remove", "nano")


def test_a_removal_waits_for_a_fetch(cg, tmp_path):
    cg("fetch-predictor", str(made(tmp_path / "a2v.safetensors")))
    with installed.locked("a2v", lambda message: None):
        process = subprocess.Popen([*COMMAND, "--remove", "a2v"], stderr=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=4)
        assert entry().intact
    assert "waiting for it" in process.communicate(timeout=60)[1] and process.returncode == 0 and entry() is None


def test_a_newer_file_from_the_same_place_replaces_it_and_another_does_not(cg, tmp_path, weights):
    file = tmp_path / "a2v.safetensors"
    file.write_bytes(weights)
    cg("fetch-predictor", str(file))
    made(file, seed=1)
    assert cg("fetch-predictor", str(file))[0] == 0 and entry().sha256 == sha(file.read_bytes()) != sha(weights)
    assert [path.name for path in entry().path.parent.glob("*.safetensors")] == [entry().path.name]
    (tmp_path / "other").mkdir()
    fails(cg, 2, "is installed already, from", str(made(tmp_path / "other" / "a2v.safetensors", seed=2)))
    assert entry().sha256 == sha(file.read_bytes())


def bomb(path: Path) -> Path:
    """A pickle that would run code."""

    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was read",))

    path.write_bytes(pickle.dumps(Evil()))
    return path


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a.pth", "a.ckpt", "a.pkl"])
def test_a_pickle_is_refused_by_its_name(cg, tmp_path, name):
    fails(cg, 2, "can run code", str(bomb(tmp_path / name)))
    assert nothing_installed()


def test_a_pickle_is_refused_by_its_content(cg, tmp_path):
    fails(cg, 2, "holds a pickle", str(bomb(tmp_path / "evil.safetensors")))
    torch.save({"a": torch.ones(1)}, tmp_path / "zip.safetensors")
    assert zipfile.is_zipfile(tmp_path / "zip.safetensors")
    fails(cg, 2, "holds a pickle", str(tmp_path / "zip.safetensors"))
    assert nothing_installed()


def test_what_is_no_predictor_is_refused_before_it_has_a_name(cg, tmp_path, weights):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    (tmp_path / "page.safetensors").write_text("<html>log in first</html>")
    (tmp_path / "cut.safetensors").write_bytes(weights[:-1])
    predictor = DirectionPredictor(METADATA)
    predictor.metadata = replace(METADATA, width=10**12)  # sizes that no memory has
    files.save(predictor, tmp_path / "lies.safetensors")
    predictor.metadata = replace(METADATA, backbone="a\x1b[2Jb")
    files.save(predictor, tmp_path / "screen.safetensors")
    predictor.metadata = METADATA
    predictor.basis[0, 0] = torch.nan
    files.save(predictor, tmp_path / "nan.safetensors")
    for name, says in (
        ("other", "is no predictor"),
        ("page", "cannot be read"),
        ("cut", "cannot be read"),
        ("lies", "is damaged"),
        ("screen", "is damaged"),
        ("nan", "no numbers"),
    ):
        fails(cg, 2, says, str(tmp_path / f"{name}.safetensors"))
    assert nothing_installed()


def test_a_wrong_hash_installs_nothing(cg, tmp_path, weights):
    (tmp_path / "a2v.safetensors").write_bytes(weights)
    fails(cg, 1, f"has SHA-256 {sha(weights)}, not {'0' * 64}", str(tmp_path / "a2v.safetensors"), "--sha256", "0" * 64)
    fails(cg, 2, "64 hex digits", str(tmp_path / "a2v.safetensors"), "--sha256", "12")
    fails(cg, 2, "name it", "--sha256", "0" * 64)
    assert nothing_installed()


def test_a_full_disk_installs_nothing(cg, tmp_path, weights, monkeypatch):
    (tmp_path / "a2v.safetensors").write_bytes(weights)

    def full(source, target):
        Path(target).write_bytes(weights[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    fails(cg, 1, "No space left on device", str(tmp_path / "a2v.safetensors"))
    assert nothing_installed() and not list(installed.folder("a2v").glob(".*.part"))


def test_an_installed_file_that_changed_is_not_used(cg, tmp_path, weights):
    (tmp_path / "a2v.safetensors").write_bytes(weights)
    cg("fetch-predictor", str(tmp_path / "a2v.safetensors"))
    entry().path.write_bytes(weights[:-1])
    with pytest.raises(UsageError, match="no longer what was installed"):
        print(lookup.locate_predictor("a2v", "qwen2.5-omni-7b", "rev-1", offline=True).label)
    assert cg("fetch-predictor", str(tmp_path / "a2v.safetensors"))[0] == 0 and entry().intact
    (entry().path.parent / "predictor.json").write_text("{")
    fails(cg, 2, "remove the folder")


# published folders


def test_a_published_folder_can_be_fetched_and_says_what_was_measured(cg, tmp_path):
    file, folder = made(tmp_path / "own.safetensors"), tmp_path / "a2v-7b"
    publish.check(folder)
    publish.write(file, METADATA, folder)
    publish.check(folder)  # again: a new one replaces it
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "predictor.json", "predictor.safetensors"]
    card = (folder / "README.md").read_text()
    assert "base_model: Qwen/Qwen2.5-Omni-7B" in card and "0.400" in card and "20.0%" in card and "90 clips" in card
    assert cg("fetch-predictor", str(folder))[0] == 0 and entry("a2v-7b").path.read_bytes() == file.read_bytes()
    (folder / "predictor.safetensors").write_bytes(made(tmp_path / "new.safetensors", seed=1).read_bytes())
    fails(cg, 1, "not " + entry("a2v-7b").sha256, str(folder))  # weights and metadata of two trainings
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="notes.txt|other things"):
        publish.check(tmp_path)
    fails(cg, 2, "has no predictor.safetensors", str(tmp_path))


def test_the_card_of_a_fetched_predictor_is_shown_in_figures_and_in_words(cg, tmp_path):
    figures = {"bits": 0.91, "bits_shuffled": -0.4, "bits_control": 0.02, "changed_at_0.25": 0.2}
    figures |= {"changed_at_0.25_control": 0.01}
    verdict = "this predictor will not matter"
    metadata = replace(METADATA, kind=WORDS, words=7, validation=figures, verdict=verdict)
    file = tmp_path / "words.safetensors"
    files.save(WordPredictor(metadata), file)
    code, _, err = cg("fetch-predictor", str(file))
    lines = err.splitlines()
    assert code == 0 and lines[-1] == f"cg: verdict: {verdict}"
    assert "cg: measured: bits a token that sound tells: 0.910; -0.400 (another clip's sound)" in lines
    assert "cg: measured: kept tokens that sound changes at keep 0.25: 20.0%; 1.0% (trained on shuffled sound)" in lines
    code, out, err = cg("fetch-predictor", "--json")
    row = next(row for row in map(json.loads, out.splitlines()) if row["name"] == "words")
    assert (row["card"]["kind"], row["card"]["verdict"]) == (WORDS, verdict) and row["card"]["validation"] == figures
    assert f"cg: verdict: words: {verdict}" in cg("fetch-predictor")[2].splitlines()
    publish.write(file, metadata, tmp_path / "published")
    text = (tmp_path / "published" / "README.md").read_text()
    assert "**This predictor will not matter.**" in text and "the visual words" in text and "| 0.910 |" in text


# URLs


def test_a_url_is_downloaded_and_recorded_without_its_secrets(cg, server, weights):
    url = server.url.replace("//", "//user:word@") + "/a2v.safetensors?token=hidden"
    code, out, err = cg("fetch-predictor", url)
    assert (
        (code, out) == (0, "") and err.count("\n") == 1 and "word" not in err and "hidden" not in err
    )  # no bar: no terminal
    assert entry().source == f"{server.url}/a2v.safetensors" and entry().path.read_bytes() == weights
    assert [path.name for path in entry().path.parent.iterdir() if path.suffix in (".part", ".tag")] == []
    assert "authorization" in server.requests[0][2]  # what the URL says


def test_no_token_goes_to_a_url(cg, server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors")[0] == 0
    assert "hf_secret" not in str(server.requests)


@pytest.mark.parametrize("faults", [[500], [503, 429, 500], [("cut", 0)], [("cut", 1000), 502]])
def test_a_fault_that_passes_is_waited_out(cg, server, weights, faults):
    server.faults["/a2v.safetensors"] = list(faults)
    code, _, err = cg("fetch-predictor", f"{server.url}/a2v.safetensors")
    assert code == 0 and err.count("trying again") == len(faults) and entry().path.read_bytes() == weights


def test_a_cut_body_goes_on_where_it_was_cut(cg, server, weights):
    server.faults["/a2v.safetensors"] = [("cut", 1000), ("cut", 500)]
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors")[0] == 0 and entry().path.read_bytes() == weights
    assert [headers.get("range") for headers in server.gets()] == [None, "bytes=1000-", "bytes=1500-"]


def test_a_body_that_is_always_cut_is_an_error_and_the_next_run_goes_on(cg, server, weights):
    server.faults["/a2v.safetensors"] = [("cut", 100)] * 4
    fails(cg, 1, "4 times", f"{server.url}/a2v.safetensors")
    assert nothing_installed()
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors")[0] == 0 and entry().path.read_bytes() == weights
    assert server.gets()[-1]["range"] == "bytes=400-"


@pytest.mark.parametrize("change", ["the file", "no version", "no ranges"])
def test_parts_of_two_files_are_never_put_together(cg, server, weights, tmp_path, change):
    server.versioned, server.ranges = change != "no version", change != "no ranges"
    server.faults["/a2v.safetensors"] = [("cut", 1000), 404]
    fails(cg, 2, "404", f"{server.url}/a2v.safetensors")
    if change == "the file":
        server.files["/a2v.safetensors"] = made(tmp_path / "new.safetensors", seed=3).read_bytes()
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors")[0] == 0
    assert entry().path.read_bytes() == server.files["/a2v.safetensors"]


def test_a_part_that_is_already_whole_is_not_a_dead_end(cg, server, weights):
    server.faults["/a2v.safetensors"] = [("cut", len(weights) - 1), 404]
    fails(cg, 2, "404", f"{server.url}/a2v.safetensors")
    (part,) = installed.folder("a2v").glob(".*.part")
    part.write_bytes(weights)  # as after a kill between the last byte and the check
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors")[0] == 0 and entry().path.read_bytes() == weights


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [(404, 2, "no such file (HTTP 404)"), (401, 2, "HTTP 401"), (403, 2, "HTTP 403"), (418, 1, "HTTP 418")],
)
def test_a_refusal_is_one_line(cg, server, fault, code, says):
    server.faults["/a2v.safetensors"] = [fault]
    fails(cg, code, says, f"{server.url}/a2v.safetensors")
    assert nothing_installed() and len(server.requests) == 1


def test_a_server_that_stays_ill_is_a_failed_run(cg, server):
    server.faults["/a2v.safetensors"] = [500] * 4
    fails(cg, 1, "HTTP 500, 4 times", f"{server.url}/a2v.safetensors")
    assert nothing_installed()


def test_a_redirect_is_followed_but_not_to_where_anybody_can_change_it(cg, server, weights, monkeypatch):
    server.faults["/old.safetensors"] = [("redirect", f"{server.url}/a2v.safetensors")]
    assert cg("fetch-predictor", f"{server.url}/old.safetensors")[0] == 0 and entry("old").path.read_bytes() == weights
    server.faults["/loop.safetensors"] = [("redirect", "/loop.safetensors")] * 30
    fails(cg, 1, "redirected without end", f"{server.url}/loop.safetensors")
    monkeypatch.setattr(web, "is_plain_http", lambda url: url.endswith("/a2v.safetensors"))
    server.faults["/new.safetensors"] = [("redirect", f"{server.url}/a2v.safetensors")] * 2
    fails(cg, 2, "plain http", f"{server.url}/new.safetensors")
    assert (
        cg("fetch-predictor", f"{server.url}/new.safetensors", "--sha256", sha(weights))[0] == 0
    )  # the hash would tell


def test_what_a_server_sends_is_checked_like_any_file(cg, server, tmp_path, weights):
    server.files["/evil.safetensors"] = bomb(tmp_path / "evil").read_bytes()
    fails(cg, 2, "holds a pickle", f"{server.url}/evil.safetensors")
    fails(cg, 1, "nothing was installed", f"{server.url}/a2v.safetensors", "--sha256", "f" * 64)
    assert nothing_installed() and not list(installed.root().glob("*/.*.part"))
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors", "--sha256", sha(weights))[0] == 0


def test_what_is_far_too_large_is_not_downloaded(cg, server, monkeypatch):
    monkeypatch.setattr(web, "MAX_BYTES", 5000)
    fails(cg, 2, "is no predictor: it is larger", f"{server.url}/a2v.safetensors")
    assert nothing_installed() and not list(installed.root().glob("*/.*.part"))


@pytest.fixture
def hurried(monkeypatch):
    """All waits of a download a hundred times as short."""
    for name, value in {
        "TIMEOUT_S": 0.5,
        "HEAD_S": 0.6,
        "PROGRESS_S": 0.3,
        "PROGRESS_BYTES": 300,
        "OVERALL_S": 5.0,
    }.items():
        monkeypatch.setattr(web, name, value)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (("silent", 2), "timed out, 4 times"),
        (("slow head", 0.01), "no answer in 1 s, 4 times"),
        (("trickle", 0.01), "bytes in 0 s are too few, 4 times"),
    ],
)
def test_a_server_that_takes_for_ever_is_given_up(cg, server, weights, hurried, fault, says):
    server.faults["/a2v.safetensors"] = [fault] * 4
    started = time.perf_counter()
    fails(cg, 1, says, f"{server.url}/a2v.safetensors")
    assert time.perf_counter() - started < 6 and nothing_installed()
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors")[0] == 0 and entry().path.read_bytes() == weights


def test_a_download_ends_however_well_it_goes(cg, server, weights, hurried, monkeypatch):
    monkeypatch.setattr(web, "OVERALL_S", 0.4)
    monkeypatch.setattr(web, "PROGRESS_BYTES", 1)
    server.faults["/a2v.safetensors"] = [("trickle", 0.01)] * 4
    fails(cg, 1, "not whole in", f"{server.url}/a2v.safetensors")
    assert nothing_installed()


def test_a_connection_that_is_never_answered_is_given_up(cg, server, hurried):
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the system takes connections, nobody reads them
        fails(cg, 1, "timed out, 4 times", f"http://127.0.0.1:{listener.getsockname()[1]}/a2v.safetensors")
    assert nothing_installed() and not list(installed.root().glob("*/.*.part"))


@pytest.mark.parametrize(
    "text", ["bytes 0-{half}/{size}", "bytes 0-{half}/*", "bytes 5-{last}/{size}", "", "x", "bytes */9"]
)
def test_a_part_that_nobody_asked_for_is_no_file(cg, server, weights, text):
    size = len(weights)
    claim = text.format(half=size // 2 - 1, last=size - 1, size=size)
    server.faults["/a2v.safetensors"] = [("range", claim)] * 4
    fails(cg, 1, "a part of the file", f"{server.url}/a2v.safetensors")
    assert nothing_installed() and not list(installed.root().glob("*/.*.part")) + list(
        installed.root().glob("*/.*.tag")
    )
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors")[0] == 0 and entry().path.read_bytes() == weights
    assert server.gets()[-1].get("range") is None


def test_a_whole_file_as_an_unasked_part_is_the_file(cg, server, weights):
    server.files["/a2v.safetensors"] = weights + weights
    server.faults["/a2v.safetensors"] = [("range", f"bytes 0-{len(weights) - 1}/{len(weights)}")]
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors")[0] == 0 and entry().path.read_bytes() == weights


def test_the_rest_of_another_file_is_not_appended(cg, server, weights, tmp_path):
    """Of a server that does not know If-Range."""
    server.faults["/a2v.safetensors"] = [("cut", 1000), 404]
    fails(cg, 2, "404", f"{server.url}/a2v.safetensors")
    new = made(tmp_path / "new.safetensors", seed=3).read_bytes()
    assert len(new) == len(weights)
    server.files["/a2v.safetensors"] = new
    server.knows_if_range = False
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors")[0] == 0 and entry().path.read_bytes() == new
    assert [headers.get("range") for headers in server.gets()][2:] == ["bytes=1000-", None]


def test_a_disk_that_fills_up_during_a_download_keeps_what_is_there(cg, server, weights, monkeypatch):
    opened = Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            self.file.write(data[:700])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "open",
            lambda self, mode="r", *a, **k: Full(opened(self, mode)) if mode == "ab" else opened(self, mode, *a, **k),
        )
        fails(cg, 1, "No space left on device", f"{server.url}/a2v.safetensors")
    assert nothing_installed()
    assert cg("fetch-predictor", f"{server.url}/a2v.safetensors")[0] == 0 and entry().path.read_bytes() == weights
    assert server.gets()[-1]["range"] == "bytes=700-"


def test_offline_touches_no_socket(cg, server, weights, tmp_path, monkeypatch):
    url = f"{server.url}/a2v.safetensors"
    fails(cg, 2, "offline", url, "--offline")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fails(cg, 2, "offline", url)
    fails(cg, 2, "not in the local cache", "someone/a2v")
    (tmp_path / "mine.safetensors").write_bytes(weights)
    assert cg("fetch-predictor", str(tmp_path / "mine.safetensors"), "--offline")[0] == 0
    assert server.connections == 0


# several processes

COMMAND = [sys.executable, "-m", "cg_cli", "fetch-predictor"]


@pytest.fixture
def online(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def test_a_download_that_was_killed_goes_on(server, online, weights):
    server.faults["/a2v.safetensors"] = [("stall", 2000)]
    process = subprocess.Popen([*COMMAND, f"{server.url}/a2v.safetensors"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while (
        not (parts := [p for p in installed.folder("a2v").glob(".*.part") if p.stat().st_size])
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert parts and nothing_installed()
    had = parts[0].stat().st_size
    subprocess.run([*COMMAND, f"{server.url}/a2v.safetensors", "-q"], check=True)
    assert server.gets()[-1]["range"] == f"bytes={had}-" and entry().path.read_bytes() == weights


def test_two_at_once_take_turns(server, online, weights):
    server.pause_s = 0.5
    run = lambda: subprocess.Popen(
        [*COMMAND, f"{server.url}/a2v.safetensors", "--sha256", sha(weights)], stderr=subprocess.PIPE, text=True
    )
    processes = [run(), run()]
    stderr = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], stderr
    assert entry().path.read_bytes() == weights and len(server.gets()) == 1  # the second one finds it there
    assert sum("installed already" in text for text in stderr) == 1


def test_a_bar_is_for_people_who_watch():
    watched = lambda terminal, quiet=False: (
        not FetchProgress(Reporter(quiet, Console(file=io.StringIO(), force_terminal=terminal))).bar(total=1).disable
    )
    assert watched(True) and not watched(False) and not watched(True, quiet=True)
