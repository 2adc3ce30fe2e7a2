"""What only CUDA can show. The bodies run on the CPU as well, so that they are known to work where a GPU is at hand."""

from __future__ import annotations

from functools import cache

import pytest

from cg_cli import backbones
from cg_cli.settings import models


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def load():
    """Nano, by device and dtype, loaded once."""
    return cache(
        lambda device, dtype: backbones.load(models.NANO.source, device=device, dtype=dtype, offline=True),
    )
