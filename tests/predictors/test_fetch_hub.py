"""Predictors from a hub: pinned, checked, with its token and to its endpoint only; and which one a run then uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import tiny
from helpers.fetch_servers import COMMIT, Hub, Server, serving
from test_fetch import METADATA, entry, fails, made, nothing_installed, sha

from cg_cli.errors import CgError, UsageError
from cg_cli.nano.script import write_script
from cg_cli.nano.world import write_clip
from cg_cli.predictors import installed, lookup, publish, sources, web
from cg_cli.settings import models

pytestmark = pytest.mark.slow

REPO = "someone/a2v"
WEIGHTS = f"/{REPO}/resolve/main/predictor.safetensors"
ABOUT = f"/{REPO}/resolve/main/predictor.json"


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("published")
    publish.write(made(folder / "own.safetensors"), METADATA, folder / "a2v")
    return {path.name: path.read_bytes() for path in (folder / "a2v").iterdir()}


@pytest.fixture
def hub(published, monkeypatch, tmp_path):
    """A hub that this process takes for the real one."""
    from huggingface_hub import constants

    with serving(Hub()) as running:
        running.files = dict(published)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(web, "RETRY_PAUSES_S", (0.0, 0.0, 0.0))
        yield running


def test_a_repository_is_installed_at_the_commit_that_it_had(cg, hub, published):
    code, out, err = cg("fetch-predictor", f"{REPO}@v1", "--json")
    row, predictor = json.loads(out), entry(REPO)
    assert (
        code == 0
        and row["name"] == row["source"] == REPO
        and row["revision"] == COMMIT == predictor.revision
        and predictor.ref == "v1"
    )
    assert predictor.path.read_bytes() == published["predictor.safetensors"] and err.count("\n") == 1
    assert [f.name for f in installed.installed_predictors()] == [REPO] and REPO in cg("fetch-predictor")[1]
    count = len(hub.requests)
    assert cg("fetch-predictor", f"{REPO}@{COMMIT}")[0] == 0 and len(hub.requests) == count  # it is that commit


def test_the_metadata_may_be_missing(cg, hub):
    del hub.files["predictor.json"]
    assert cg("fetch-predictor", REPO)[0] == 0 and entry(REPO).intact


@pytest.mark.parametrize(
    ("source", "change", "code", "says"),
    [
        ("someone/else", {}, 2, "no repository someone/else on the hub"),
        (REPO, {"private": "hf_x"}, 2, "needs `hf auth login`"),
        (REPO, {"gated": True}, 2, "is gated"),
        (f"{REPO}@v9", {}, 2, "has no revision v9"),
        (REPO, {"files": {"pytorch_model.bin": b"x"}}, 2, "has no predictor.safetensors"),
        (REPO, {"files": {"predictor.safetensors": b"\x80\x04]."}}, 2, "holds a pickle"),
        (REPO, {"faults": {WEIGHTS: [401]}}, 2, "HTTP 401"),
        (REPO, {"faults": {WEIGHTS: [500] * 4}}, 1, "HTTP 500"),
        (REPO, {"faults": {WEIGHTS: [418]}}, 1, "HTTP 418"),
        (REPO, {"headers": {"X-Linked-Etag": f'"{"e" * 64}"'}}, 1, "not " + "e" * 64),
    ],
)
def test_what_a_hub_refuses_is_one_line(cg, hub, source, change, code, says):
    for name, value in change.items():
        setattr(hub, name, value)
    fails(cg, code, says, source)
    assert nothing_installed()


def test_weights_that_are_not_those_of_the_metadata_are_refused(cg, hub, tmp_path):
    hub.files["predictor.safetensors"] = made(tmp_path / "other.safetensors", seed=1).read_bytes()
    fails(cg, 1, "published wrongly, or damaged", REPO)
    fails(cg, 1, "published wrongly, or damaged", REPO, "--sha256", sha(hub.files["predictor.safetensors"]))
    with pytest.raises(CgError, match="published wrongly, or damaged"):
        lookup.locate_predictor(REPO, "qwen2.5-omni-7b", "rev-1", offline=False)
    assert nothing_installed()


def test_a_damaged_copy_in_the_cache_is_refused_offline_too(cg, hub, monkeypatch):
    from huggingface_hub import constants

    locate = lambda: lookup.locate_predictor(REPO, "qwen2.5-omni-7b", "rev-1", offline=True)
    assert cg("fetch-predictor", REPO)[0] == 0 and cg("fetch-predictor", "--remove", REPO)[0] == 0
    weights = locate().path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    weights.resolve().write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CgError, match="damaged in the cache"):
        locate()


@pytest.mark.parametrize("faults", [[500], [None, None, 503], [None, None, ("cut", 1000)]])
def test_a_hub_that_stumbles_is_asked_again(cg, hub, published, faults):
    hub.faults[WEIGHTS] = list(faults)  # of the first look, the second, and the download
    assert cg("fetch-predictor", REPO)[0] == 0 and entry(REPO).path.read_bytes() == published["predictor.safetensors"]


def test_weights_elsewhere_are_followed_without_the_token(cg, hub, published, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.private = "hf_secret"
    with serving(Server()) as store_of_blobs:
        store_of_blobs.files["/blob"] = published["predictor.safetensors"]
        location = f"http://localhost:{store_of_blobs.server_port}/blob"
        hub.faults[WEIGHTS] = [("redirect", location)] * 3
        hub.headers = {"X-Linked-Size": str(len(published["predictor.safetensors"]))}
        del hub.files["predictor.json"]
        code, _, err = cg("fetch-predictor", REPO)
        assert code == 0, err
        assert (
            "hf_secret" in str(hub.requests)
            and "hf_secret" not in str(store_of_blobs.requests)
            and store_of_blobs.gets()
        )


def test_a_copy_in_the_cache_is_used_offline_and_never_in_the_place_of_a_hub_that_fails(cg, hub, monkeypatch):
    from huggingface_hub import constants

    assert cg("fetch-predictor", REPO)[0] == 0
    hub.faults[WEIGHTS] = [None, *[500] * 40]
    hub.answer = lambda path: (200, {"X-Repo-Commit": "f" * 40, "ETag": '"new"'}, b"new")
    assert cg("fetch-predictor", REPO)[0] == 1 and entry(REPO).revision == COMMIT
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    connections = hub.connections
    assert cg("fetch-predictor", REPO)[0] == 0 and entry(REPO).revision == COMMIT
    assert hub.connections == connections


def run(hub: Server, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    env = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url} | environment
    return subprocess.run(
        [sys.executable, "-m", "cg_cli", "fetch-predictor", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_environment_of_the_hub_counts(hub, published, tmp_path):
    hub.private = "hf_mine"
    done = run(hub, REPO, HF_TOKEN="hf_mine", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert entry(REPO).intact and (tmp_path / "hf" / "hub" / "models--someone--a2v").is_dir()
    connections = hub.connections
    done = run(hub, REPO, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0 and hub.connections == connections, done.stderr
    done = run(hub, REPO, "--offline", HF_HOME=str(tmp_path / "empty"))
    assert done.returncode == 2 and "not in the local cache" in done.stderr and hub.connections == connections


def test_a_proxy_is_gone_through(hub, published):
    data = published["predictor.safetensors"]
    with serving(Server()) as proxy:
        proxy.files["/own.safetensors"] = data
        done = run(
            hub,
            "http://files.example/own.safetensors",
            "--sha256",
            sha(data),
            HTTP_PROXY=proxy.url,
            http_proxy=proxy.url,
        )
        assert done.returncode == 0 and proxy.requests[0][1] == "http://files.example/own.safetensors", done.stderr
    assert entry("own").path.read_bytes() == data


def test_no_network_is_one_line(hub):
    done = run(hub, REPO, "-q", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "check the network" in done.stderr, done.stderr


# the data file of known predictors


def test_a_known_predictor_is_fetched_by_name_at_its_revision_and_hash(cg, hub, published, monkeypatch):
    data = published["predictor.safetensors"]
    known = {"source": REPO, "revision": COMMIT, "backbone": "qwen2.5-omni-7b", "sha256": sha(data), "size": len(data)}
    monkeypatch.setattr(sources.presets, "known", lambda what: {"predictors": {"a2v-7b": known}, "unpublished": []})
    assert "no" in cg("fetch-predictor")[1].splitlines()[1].split()
    with pytest.raises(UsageError, match="not installed: `cg fetch-predictor a2v-7b`"):
        lookup.locate_predictor("a2v-7b", "qwen2.5-omni-7b", "rev-1", offline=False)
    assert cg("fetch-predictor", "a2v-7b")[0] == 0 and entry("a2v-7b").revision == COMMIT
    assert all(f"/{COMMIT}/" in path for _, path, _ in hub.requests)
    connections = hub.connections
    assert cg("fetch-predictor", "a2v-7b")[0] == 0 and hub.connections == connections  # it is there already
    fails(cg, 2, "is known to have", "a2v-7b", "--sha256", "0" * 64)
    entry("a2v-7b").path.unlink()
    known["sha256"] = "0" * 64
    fails(cg, 1, "nothing was installed", "a2v-7b")


# what a run uses


def test_auto_takes_the_default_of_the_model(cg, tmp_path):
    locate = lambda name=None, model="qwen2.5-omni-7b", revision="rev-1", width=64: lookup.locate_predictor(
        name, model, revision, offline=True, width=width
    )
    assert locate() is None and locate("nano").path == locate(model="nano", width=None).path == Path(
        models.NANO.predictor
    )
    install = lambda name, *more, **metadata: cg(
        "fetch-predictor", str(made(tmp_path / f"{name}.safetensors", replace(METADATA, **metadata))), *more
    )
    install("old", revision="rev-0")
    assert locate() is None and locate("old").name == "old"  # installed, and used when it is named
    install("old", "--default", revision="rev-0")
    install("other", "--default", backbone="qwen2.5-omni-3b", revision="3b")
    assert locate().name == locate("auto").name == "old" and locate().notes == ()
    assert (
        locate(model="Qwen/Qwen2.5-Omni-7B").name == "old"
        and locate(width=128) is None
        and locate(model="x", revision="y") is None
    )
    install("new", backbone="Qwen/Qwen2.5-Omni-7B")
    assert locate().name == "old"
    cg("fetch-predictor", "new", "--default")
    assert locate().name == "new" and locate().notes == () and not entry("old").is_default  # an alias is the same model
    assert locate(model="renamed").name == "new"  # the weights are those of its revision
    assert locate("old").name == "old" and locate("old").label.startswith("old@")
    assert locate(model="nano", width=256).path == Path(models.NANO.predictor)


def test_a_model_keeps_its_own_predictor_until_another_is_its_default(cg, tmp_path):
    locate = lambda: lookup.locate_predictor(None, "nano", "rev", offline=True)
    rows = lambda: map(json.loads, cg("fetch-predictor", "--json")[1].splitlines())
    default = lambda: [row["name"] for row in rows() if row["default"]]
    file = str(made(tmp_path / "mine.safetensors", replace(METADATA, backbone="nano")))
    assert cg("fetch-predictor", file)[0] == 0
    assert locate().path == Path(models.NANO.predictor) and default() == ["nano"]
    assert cg("fetch-predictor", "mine", "--default")[0] == 0
    assert locate().path == entry("mine").path and default() == ["mine"]
    assert cg("fetch-predictor", "nano", "--default")[0] == 0  # the built-in one, again
    assert locate().path == Path(models.NANO.predictor) and default() == ["nano"]


def test_the_full_hash_goes_with_the_label(cg, tmp_path):
    file = made(tmp_path / "mine.safetensors")
    cg("fetch-predictor", str(file), "--default")
    located = lookup.locate_predictor(None, METADATA.backbone, "rev", offline=True)
    assert located.sha256 == sha(file.read_bytes()) and located.label == f"mine@{located.sha256[:12]}"


def test_a_repository_becomes_the_default_without_the_network_once_it_is_installed(cg, hub):
    assert cg("fetch-predictor", f"{REPO}@v1")[0] == 0 and not entry(REPO).is_default
    connections = hub.connections
    code, out, _ = cg("fetch-predictor", f"{REPO}@v1", "--default", "--json")
    assert code == 0 and json.loads(out)["default"] and hub.connections == connections and entry(REPO).is_default
    assert cg("fetch-predictor", "--remove", REPO)[0] == 0 and entry(REPO) is None
    assert cg("fetch-predictor", REPO, "--default")[0] == 0 and entry(REPO).is_default


def test_a_name_a_path_or_a_repository(cg, hub, tmp_path, monkeypatch):
    locate = lambda name, offline=False: lookup.locate_predictor(name, "qwen2.5-omni-7b", "rev-1", offline=offline)
    file = made(tmp_path / "mine.safetensors")
    folder = tmp_path / "published"
    publish.write(file, METADATA, folder)
    assert (locate(str(file)).name, locate(str(folder)).name) == ("mine", "published") and locate(
        str(folder)
    ).path.parent == folder
    used = locate(REPO)
    assert (
        used.name == REPO and COMMIT in used.notes[0] and installed.installed_predictors() == []
    )  # said in the record; not installed
    assert locate(f"{REPO}@main", offline=True).path == used.path
    cg("fetch-predictor", f"{REPO}@v1")
    connections = hub.connections
    for name in (REPO, f"{REPO}@v1", f"{REPO}@{COMMIT[:8]}"):
        assert locate(name).path == entry(REPO).path
    assert hub.connections == connections
    for name, says in (
        ("a2v-7b", "no predictor 'a2v-7b'"),
        ("https://x.org/a.safetensors", "not installed: `cg fetch"),
        ("qwen2.5-omni-7b", "published today"),
    ):
        with pytest.raises(UsageError, match=says):
            locate(name)
    hub.faults[WEIGHTS.replace("main", "v9")] = [500] * 4
    with pytest.raises(CgError, match="HTTP 500"):
        locate(f"{REPO}@v9")


def test_the_record_says_which_predictor_answered_or_that_there_was_none(cg, hub, tmp_path):
    model, clip = str(tiny.build(tmp_path / "model")), tmp_path / "clip.mp4"
    write_clip(write_script(510, 0, longest=6), clip)
    ask = lambda *more: json.loads(
        cg("ask", str(clip), "What?", "--model", model, "--max-new-tokens", "2", "--json", *more)[1]
    )
    none = ask()
    assert none["pruner"]["predictor"] is None
    assert any("no audio-to-visual predictor" in w and "cg fetch-predictor" in w for w in none["warnings"])
    card = replace(METADATA, backbone=model, width=tiny.HIDDEN)
    file = made(tmp_path / "fitting.safetensors", card)
    hub.files = {"predictor.safetensors": file.read_bytes()}
    digest = sha(file.read_bytes())[:12]
    fetched = ask("--predictor", REPO)
    assert fetched["pruner"]["predictor"] == f"{REPO}@{digest}" and any(COMMIT in w for w in fetched["warnings"])
    cg("fetch-predictor", str(file))
    assert ask("--predictor", "auto")["key"] == none["key"]
    cg("fetch-predictor", "fitting", "--default")
    auto = ask("--predictor", "auto")
    assert auto["pruner"]["predictor"] == f"fitting@{digest}" and not any("predictor" in w for w in auto["warnings"])
    assert auto["key"] == ask()["key"] == ask("--predictor", "fitting")["key"] != none["key"]
    assert not any("had no effect" in w for w in ask("--predictor", "auto", "--pruner", "evs")["warnings"])
    line = cg("batch", str(clip), "-q", "What?", "--model", model, "--max-new-tokens", "2", "--dry-run")
    assert line[0] == 0 and json.loads(line[1])["questions"] == 1
    code, _, err = cg("ask", str(clip), "What?", "--model", "nano", "--predictor", "fitting")
    assert code == 2 and "was trained for" in err and err.count("\n") == 1
