"""A folder as the pages take it for granted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import SAMPLES, fork_server
from helpers.made import distinct_copy
from helpers.pages import ROOT
from helpers.processes import wait_until


@pytest.fixture(scope="session")
def cg_server(tmp_path_factory):
    """The address of a ``cg`` that starts at once."""
    address = tmp_path_factory.mktemp("cg") / "socket"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-m", "helpers.fork_server", str(address)]
    server = subprocess.Popen(command, env=environment)
    wait_until(lambda: address.exists() or server.poll() is not None, 60)
    yield str(address)
    server.kill()
    server.wait()


@pytest.fixture
def folder(tmp_path, monkeypatch, cg_server) -> Path:
    """What the pages take for granted: clips of anybody's, a folder of them, labels, questions, and ``cg``."""
    monkeypatch.setenv("CG_MODEL", "nano")
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # a link would lose its environment
    (bin / "python").chmod(0o755)
    fork_server.write_client(bin / "cg", cg_server)
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    place = tmp_path / "here"
    (place / "videos").mkdir(parents=True)
    shutil.copytree(SAMPLES, place / "samples")
    shutil.copy(SAMPLES / "dog.mp4", place / "clip.mp4")
    shutil.copy(SAMPLES / "drum.mp4", place / "talk.mp4")
    sound(SAMPLES / "drum.mp4", place / "talk.mp3")
    rows = [json.loads(line) for line in (SAMPLES / "labelled.jsonl").read_text().splitlines()]
    labelled = []
    for number, name in enumerate(("dog.mp4", "drum.mp4", "clocks.mp4")):
        distinct_copy(SAMPLES / name, place / "videos" / name, number)
        labelled += [row | {"video": f"videos/{name}"} for row in rows if row["video"] == name][:2]
    (place / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    (place / "questions.txt").write_text("What is happening?\nWhat do you hear?\n")
    return place


def sound(video: Path, path: Path) -> None:
    """The sound of a video, as MP3."""
    import av

    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libmp3lame", rate=44_100)
        for frame in source.decode(audio=0):
            frame.pts = None
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
