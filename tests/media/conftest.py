"""One decode worker for all media tests, and a few files that several of them read."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.media_files import beeps, steady, write

from cg_cli.media import DecodeWorker


@pytest.fixture(scope="session")
def worker():
    with DecodeWorker() as started:
        yield started


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def talkie(folder) -> Path:
    """6 s of film at 25 frames a second, with sound."""
    return write(folder / "talkie.mp4", times=steady(6), sound=beeps(6, 48_000))
