"""One tiny random checkpoint of each family on disk, loaded once for all backbone tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import tiny
from helpers.families import FAMILIES
from transformers.utils import logging as transformers_logging

from cg_cli import backbones


@pytest.fixture(scope="session")
def thinker_dir(tmp_path_factory) -> Path:
    transformers_logging.disable_progress_bar()
    return tiny.build(tmp_path_factory.mktemp("thinker"))


@pytest.fixture(scope="session")
def backbone(thinker_dir):
    return backbones.load(str(thinker_dir), device="cpu", dtype="float32", offline=True)


@pytest.fixture(scope="session")
def family_dir(tmp_path_factory):
    """The directory of a family's small checkpoint, by the family's name."""
    directories: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in directories:
            transformers_logging.disable_progress_bar()
            directories[name] = FAMILIES[name].build(tmp_path_factory.mktemp(name))
        return directories[name]

    return find


@pytest.fixture(scope="session")
def families(family_dir):
    """A family's small checkpoint, loaded, by the family's name."""
    loaded = {}

    def find(name: str):
        if name not in loaded:
            loaded[name] = backbones.load(str(family_dir(name)), device="cpu", dtype="float32", offline=True)
        return loaded[name]

    return find
