"""A model from a hub on loopback, through the real huggingface_hub: what is fetched, what is announced, and what goes
wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from helpers.fetch_servers import COMMIT, Hub, serving
from test_checkpoint import full_dir  # noqa: F401

from cg_cli import backbones
from cg_cli.errors import UsageError
from cg_cli.settings import models
from cg_cli.settings.resolve import resolve_settings

pytestmark = pytest.mark.slow

SHARD = "model-0000{}-of-00003.safetensors"


@pytest.fixture
def hub(full_dir, monkeypatch, tmp_path):  # noqa: F811
    """A hub with a full checkpoint, talker and all, that this process takes for the real one."""
    from huggingface_hub import constants

    with serving(Hub()) as running:
        running.repo = ("someone", "omni")
        running.files = {path.name: path.read_bytes() for path in full_dir.iterdir()}
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between huggingface_hub's tries
        yield running


def fetch(notes: list[str], **overrides) -> None:
    models.fetch(resolve_settings({"model": "someone/omni", "device": "cpu"} | overrides), notes.append)


def bodies(hub: Hub) -> set[str]:
    """The files of which a body was asked for."""
    return {path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET"}


def test_what_the_thinker_needs_is_fetched_and_its_size_is_announced(hub, tmp_path):
    notes: list[str] = []
    fetch(notes)
    needed = sum(len(hub.files[SHARD.format(n)]) for n in (1, 2))
    assert notes == [f"downloading someone/omni: {needed / 1e9:.1f} GB in 2 files to {tmp_path / 'hub'}"]
    assert {SHARD.format(1), SHARD.format(2), "config.json", "tokenizer.json"} <= bodies(hub) and SHARD.format(
        3
    ) not in bodies(hub)
    before = len(hub.requests)
    fetch(notes)
    assert len(hub.requests) == before and len(notes) == 1  # no request, no note
    loaded = backbones.load("someone/omni", device="cpu", dtype="float32", offline=True)
    assert loaded.revision == COMMIT


def test_what_cannot_be_loaded_is_refused_before_its_weights_are_fetched(hub):
    def fails(message: str, **options) -> None:
        notes: list[str] = []
        with pytest.raises(UsageError, match=message) as caught:
            fetch(notes, **options)
        assert (
            "\n" not in str(caught.value)
            and not notes
            and not any(name.endswith(".safetensors") for name in bodies(hub))
        )

    fails("--dtype float8: give auto, float32", dtype="float8")
    fails("no device cuda:7 here", device="cuda:7")
    fails("--quantize int3", quantize="int3")
    fails("no model someone/else on the hub", model="someone/else")
    config = json.loads(hub.files["config.json"])
    hub.files["config.json"] = json.dumps(config | {"model_type": "llama"}).encode()
    fails("model type llama is not supported; supported are: qwen2_5_omni")


@pytest.mark.filterwarnings("ignore:Not enough free disk space")  # huggingface_hub only warns
def test_no_room_is_noticed_before(hub, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UsageError, match=r"takes 0.0 GB more, and .* has 0.0 GB free: make room, or set HF_HOME"):
        fetch([])
    assert SHARD.format(1) not in bodies(hub)


def test_a_full_disk_a_gate_and_a_hub_that_fails_are_one_line(hub, monkeypatch):
    import huggingface_hub

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    real = huggingface_hub.hf_hub_download
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(
        UsageError, match="no space left for config.json of model someone/omni: make room and run again, or set HF_HOME"
    ):
        backbones.load("someone/omni", device="cpu", dtype="float32", offline=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", real)
    hub.gated = True
    with pytest.raises(UsageError, match="gated: ask for access"):
        fetch([])
    hub.gated = False
    hub.faults["/someone/omni/resolve/main/config.json"] = [500] * 20
    with pytest.raises(UsageError) as caught:
        fetch([])
    assert "someone/omni" in str(caught.value) and "\n" not in str(caught.value)


def test_an_interrupted_download_goes_on_with_the_files_that_are_missing(hub):
    shard = f"/someone/omni/resolve/{COMMIT}/{SHARD.format(2)}"
    hub.faults[shard] = [
        None,
        ("cut", 10),
        ("cut", 10),
        ("cut", 10),
        ("cut", 10),
        ("cut", 10),
        ("cut", 10),
        ("cut", 10),
    ]
    with pytest.raises(
        UsageError,
        match=r"the download of model-00002-of-00003.safetensors of model someone/omni broke off .*: run again",
    ):
        fetch([])
    hub.faults.clear()
    hub.requests.clear()
    fetch([])
    assert SHARD.format(2) in bodies(hub) and SHARD.format(1) not in bodies(hub)


def test_ask_says_what_it_downloads(hub, tmp_path):
    from cg_cli.doctor import write_clip

    write_clip(tmp_path / "clip.mp4")
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "other")}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [
        sys.executable,
        "-m",
        "cg_cli",
        "ask",
        str(tmp_path / "clip.mp4"),
        "What?",
        "--model",
        "someone/omni",
        "--json",
        "--max-new-tokens",
        "4",
    ]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path) for _ in range(2)
    )
    for done in (first, second):
        assert done.returncode in (0, 3) and json.loads(done.stdout)["video"].endswith("clip.mp4"), done.stderr
    assert (
        "cg: note: downloading someone/omni: 0.0 GB in 2 files to" in first.stderr
        and "downloading" not in second.stderr
    )
    offline = subprocess.run([*command, "--offline"], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert offline.returncode in (0, 3)
