"""One session for all pictures."""

from __future__ import annotations

import pytest

from cg_cli.engine.session import Session
from cg_cli.settings.resolve import resolve


@pytest.fixture(scope="session")
def session():
    return Session.open(resolve({"model": "nano", "offline": True}))
