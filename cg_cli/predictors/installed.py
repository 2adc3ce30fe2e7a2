"""The predictors installed on this machine, a folder each under the data folder, and which of them are the default of
their model. Imports nothing heavy.

A folder holds the weights, in a file named after their hash, and ``predictor.json``, which names that file and is
replaced in one step: whoever reads it finds whole weights, whatever becomes of a fetch beside it. ``.defaults.json``
names at most one predictor a model.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cg_cli.errors import CgError, UsageError
from cg_cli.settings import models
from cg_cli.util.atomic import write_atomic
from cg_cli.util.bounded import read_json
from cg_cli.util.folders import data_dir
from cg_cli.util.hashing import cached_sha256
from cg_cli.util.lock import lock

SCHEMA = "cg.predictor/1"
WEIGHTS = "predictor.safetensors"  # in a folder or a repository that publishes a predictor
MANIFEST = "predictor.json"
DEFAULTS = ".defaults.json"  # no predictor can have that name


@dataclass(frozen=True)
class InstalledPredictor:
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
    def backbone(self) -> str:
        """The model that it was trained for."""
        return self.card["backbone"]

    @property
    def path(self) -> Path:
        """Of the weights."""
        return folder(self.name) / f"{self.sha256[:16]}.safetensors"

    @property
    def intact(self) -> bool:
        """Whether the weights are there, and what they were."""
        return self.path.is_file() and cached_sha256(self.path) == self.sha256

    @property
    def is_default(self) -> bool:
        """Whether it is its model's default. UsageError if the defaults cannot be read."""
        return default_of(self.backbone) == self.name

    def is_at(self, ref: str | None) -> bool:
        """Whether it is what a hub repository holds at ``ref``: what was asked for then, or the commit or its first
        digits."""
        return ref in (None, self.ref) or bool(ref and len(ref) >= 7 and (self.revision or "").startswith(ref))


def root() -> Path:
    return data_dir() / "predictors"


def folder(name: str) -> Path:
    """Of the predictor ``name``, whether or not it is installed."""
    return root() / name.replace("/", "--")


def find(name: str) -> InstalledPredictor | None:
    """The installed predictor ``name``. UsageError if its manifest cannot be read."""
    return _read(folder(name) / MANIFEST)


def installed_predictors() -> list[InstalledPredictor]:
    """All installed predictors, by name. UsageError as for ``find``."""
    return sorted(filter(None, map(_read, root().glob(f"*/{MANIFEST}"))), key=lambda predictor: predictor.name)


def published_sha256(manifest: Path) -> str:
    """The hash that the ``predictor.json`` beside published weights gives them. UsageError if it gives none."""
    try:
        return str(read_json(manifest)["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{manifest} is damaged: publish the predictor again, or take its {WEIGHTS} alone") from error


@contextlib.contextmanager
def locked(name: str, note: Callable[[str], None]) -> Iterator[None]:
    """The predictor ``name``, for this process alone; ``note`` is told when that takes waiting for another one."""
    locks = root() / ".locks"  # outside of the folder, which may be removed
    locks.mkdir(parents=True, exist_ok=True)
    with open(locks / f"{folder(name).name}.lock", "ab") as file:
        if not lock(file, wait=False):
            note(f"another cg is fetching or removing {name}: waiting for it")
            lock(file, wait=True)
        yield


def record(predictor: InstalledPredictor) -> None:
    """Make ``predictor``, whose weights are in their place, the one of its name; other weights of that name go. It is
    the default of its model only if the one before it was."""
    manifest = {"schema": SCHEMA, **asdict(predictor)}
    known = predictor.path.with_name(MANIFEST).is_file()
    _unmark(predictor.name, except_for=predictor.backbone if known else None)
    write_atomic(predictor.path.with_name(MANIFEST), json.dumps(manifest, indent=1) + "\n")
    for weights in predictor.path.parent.glob("*.safetensors"):
        if weights != predictor.path:
            weights.unlink()


def remove(name: str) -> bool:
    """Remove the predictor ``name``, even one whose manifest cannot be read, and its mark as a default; False if it is
    not installed."""
    manifest = folder(name) / MANIFEST
    if not manifest.is_file():
        return False
    _unmark(name)
    manifest.unlink()  # first: whoever finds it finds whole weights
    shutil.rmtree(folder(name))
    return True


def default_of(backbone: str) -> str | None:
    """The name of the installed predictor marked as the default of the model ``backbone``; None if there is none.
    UsageError if the defaults cannot be read."""
    names = (name for model, name in _defaults().items() if same_model(model, backbone))
    return next((name for name in names if (folder(name) / MANIFEST).is_file()), None)


def set_default(backbone: str, name: str | None) -> None:
    """Mark the predictor ``name`` as the default of the model ``backbone``, and no other; None: no predictor. CgError
    if that cannot be written."""
    try:
        with locked(DEFAULTS, lambda message: None):
            defaults = {model: default for model, default in _defaults().items() if not same_model(model, backbone)}
            if name is not None:
                defaults[backbone] = name
            write_atomic(root() / DEFAULTS, json.dumps(defaults, indent=1) + "\n")
    except OSError as error:
        raise CgError(f"cannot write {root() / DEFAULTS}: {error.strerror or error}") from error


def _unmark(name: str, except_for: str | None = None) -> None:
    """Take the mark of the predictor ``name`` away, but for that of the model ``except_for``."""
    for model, default in _defaults().items():
        if default == name and not (except_for and same_model(model, except_for)):
            set_default(model, None)


def same_model(first: str, second: str) -> bool:
    """Whether two names are of one model: an alias is the hub id that it stands for."""
    return models.source(first) == models.source(second)


def _defaults() -> dict[str, str]:
    """The names of the default predictors, by model."""
    path = root() / DEFAULTS
    try:
        return {str(model): str(name) for model, name in read_json(path).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is damaged: remove it, and mark the defaults again") from error


def _read(path: Path) -> InstalledPredictor | None:
    try:
        data = read_json(path)
        if data.pop("schema") != SCHEMA:
            raise ValueError
        predictor = InstalledPredictor(**data)
        _check(predictor)
        return predictor
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise UsageError(
            f"{path} is damaged: remove the folder {path.parent}, and fetch the predictor again"
        ) from error


def _check(predictor: InstalledPredictor) -> None:
    """ValueError for a manifest with values of other kinds than ``record`` writes."""
    card = predictor.card
    texts = [
        predictor.name,
        predictor.source,
        predictor.sha256,
        predictor.installed,
        card["backbone"],
        card["revision"],
    ]
    maybe = [predictor.ref, predictor.revision]
    numbers = [predictor.size, card["width"]]
    right = all(isinstance(text, str) for text in texts) and all(
        text is None or isinstance(text, str) for text in maybe
    )
    if not right or not all(type(number) is int for number in numbers):
        raise ValueError("a value of the wrong kind")
    if not re.fullmatch(r"[A-Za-z0-9][\w./-]*", predictor.name) or not re.fullmatch("[0-9a-f]{64}", predictor.sha256):
        raise ValueError("a name or hash that cannot be one")  # both are parts of a path
