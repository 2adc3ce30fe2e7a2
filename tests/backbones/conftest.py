"""One tiny random thinker on disk, loaded once for all backbone tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from transformers.utils import logging as transformers_logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/tiny.py serves several folders

import tiny  # noqa: E402

from cg_cli import backbones  # noqa: E402


@pytest.fixture(scope="session")
def thinker_dir(tmp_path_factory) -> Path:
    transformers_logging.disable_progress_bar()
    return tiny.build(tmp_path_factory.mktemp("thinker"))


@pytest.fixture(scope="session")
def backbone(thinker_dir):
    return backbones.load(str(thinker_dir), device="cpu", dtype="float32", offline=True)
