"""One session for all pictures."""

from __future__ import annotations

import pytest

from cg_cli.engine.setup import open_session
from cg_cli.settings.resolve import resolve_settings


@pytest.fixture(scope="session")
def session():
    return open_session(resolve_settings({"model": "nano", "offline": True}))
