"""Where this program keeps things, as each system has it (platformdirs; the XDG variables count)."""

from __future__ import annotations

from pathlib import Path

import platformdirs

APP = "cg"


def cache_dir() -> Path:
    """What can be made again: hashes of files, links to checkpoints."""
    return Path(platformdirs.user_cache_dir(APP))


def config_dir() -> Path:
    """The user's own config file."""
    return Path(platformdirs.user_config_dir(APP))


def data_dir() -> Path:
    """What was installed: predictors."""
    return Path(platformdirs.user_data_dir(APP))
