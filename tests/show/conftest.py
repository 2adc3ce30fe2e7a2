"""One session for all pictures."""

from __future__ import annotations

import pytest

from cg_cli.config import resolve
from cg_cli.session import Session


@pytest.fixture(scope="session")
def session():
    return Session.open(resolve({"model": "nano", "offline": True}))
