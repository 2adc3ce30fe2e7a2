"""The predictors installed on this machine: a folder each under ``$XDG_DATA_HOME/cg/predictors``. Imports nothing
heavy.

A folder holds the weights, in a file named after their hash, and ``predictor.json``, which names that file and is
replaced in one
step: whoever reads it finds whole weights, whatever becomes of a fetch beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cg_cli.errors import UsageError

SCHEMA = "cg.predictor/1"
WEIGHTS = "predictor.safetensors"  # in a folder or a repository that publishes a predictor
ABOUT = "predictor.json"


@dataclass(frozen=True)
class Installed:
    """One predictor, as its ``predictor.json`` has it.

    Attributes:
        name: what ``--predictor`` calls it.
        source: the hub repository, URL or path that it came from.
        ref, revision: of a hub repository, what was asked for (None: the main branch), and the commit that this was.
        sha256, size: of the weights; size in bytes.
        installed: when, ISO 8601 in UTC.
        card: the metadata of the weights (``pruning.predictor.PredictorMetadata``).
    """

    name: str
    source: str
    ref: str | None
    revision: str | None
    sha256: str
    size: int
    installed: str
    card: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Of the weights."""
        return folder(self.name) / f"{self.sha256[:16]}.safetensors"

    @property
    def intact(self) -> bool:
        """Whether the weights are there, and what they were."""
        return self.path.is_file() and digest(self.path) == self.sha256

    def is_at(self, ref: str | None) -> bool:
        """Whether it is what a hub repository holds at ``ref``: what was asked for then, or the commit or its first
        digits."""
        return ref in (None, self.ref) or (len(ref) >= 7 and bool(self.revision) and self.revision.startswith(ref))


def root() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "cg" / "predictors"


def folder(name: str) -> Path:
    """Of the predictor ``name``, whether or not it is installed."""
    return root() / name.replace("/", "--")


def find(name: str) -> Installed | None:
    """The installed predictor ``name``. UsageError if what is there cannot be read."""
    return _read(folder(name) / ABOUT)


def everything() -> list[Installed]:
    """All installed predictors, by name. UsageError as for ``find``."""
    return sorted(filter(None, map(_read, root().glob(f"*/{ABOUT}"))), key=lambda found: found.name)


def record(found: Installed) -> None:
    """Make ``found``, whose weights are in their place, the predictor of its name; other weights of that name go."""
    path = found.path.with_name(ABOUT)
    new = path.with_name(f".{ABOUT}.new")
    new.write_text(json.dumps({"schema": SCHEMA, **asdict(found)}, indent=1) + "\n", encoding="utf-8")
    os.replace(new, path)
    for other in path.parent.glob("*.safetensors"):
        if other != found.path:
            other.unlink()


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> Installed | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError
        return Installed(**data)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is damaged: remove the folder {path.parent}, and fetch the predictor again"
        ) from error
