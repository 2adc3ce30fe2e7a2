"""One tiny random thinker on disk, loaded once for all backbone tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from transformers.utils import logging as transformers_logging

from cg_cli import backbones


@pytest.fixture(scope="session")
def thinker_dir(tmp_path_factory) -> Path:
    transformers_logging.disable_progress_bar()
    return tiny.build(tmp_path_factory.mktemp("thinker"))


@pytest.fixture(scope="session")
def backbone(thinker_dir):
    return backbones.load(str(thinker_dir), device="cpu", dtype="float32", offline=True)
