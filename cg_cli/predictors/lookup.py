"""Which predictor goes with which model: a named one, or the model's default."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from tqdm import tqdm

from cg_cli.backbones.base import Backbone
from cg_cli.errors import UsageError
from cg_cli.predictors import files, hub, installed, sources
from cg_cli.predictors.installed import InstalledPredictor, same_model
from cg_cli.predictors.sources import BUILT_IN, FILE, HUB
from cg_cli.pruning.predictor import A2VPredictor
from cg_cli.settings import models
from cg_cli.util.hashing import cached_sha256

AUTO = "auto"  # the same as None


@dataclass(frozen=True)
class PredictorFile:
    """Where a predictor is.

    Attributes:
        path: of the weights.
        name: what records call it.
        notes: what a record should say about the choice.
        installed_sha256: what the weights hashed to when they were installed, or "".
    """

    path: Path
    name: str
    notes: tuple[str, ...] = ()
    installed_sha256: str = ""

    @cached_property
    def sha256(self) -> str:
        """Of the weights, in hex. UsageError if they cannot be read, or are not what was installed."""
        try:
            actual = cached_sha256(self.path)
        except OSError as error:
            raise UsageError(f"predictor {self.path}: {error.strerror or error}") from error
        if self.installed_sha256 not in ("", actual):
            raise UsageError(
                f"predictor {self.name} is no longer what was installed: remove {self.path.parent}, and fetch it again"
            )
        return actual

    @property
    def label(self) -> str:
        """What records call these very weights: the name, and the start of their SHA-256. UsageError as for
        ``sha256``."""
        return f"{self.name}@{self.sha256[:12]}"


@dataclass(frozen=True)
class LoadedPredictor:
    """A predictor on its model's device.

    Attributes:
        label: what records call it.
        sha256: of its weights, in hex.
        notes: what a record should say about the choice.
    """

    predictor: A2VPredictor
    label: str
    sha256: str
    notes: tuple[str, ...] = ()


class _Silent:
    """A Listener that says nothing: the file's note does."""

    bar = staticmethod(partial(tqdm, disable=True))

    def note(self, message: str) -> None:
        pass


def find_predictor(name: str | None, backbone: Backbone, *, offline: bool) -> LoadedPredictor | None:
    """Load the predictor ``name``, or for None or "auto" the default of ``backbone``; None if it has none.

    Raises:
        UsageError: it is no predictor, was trained for another model, or is not to be had.
        CgError: the hub, for a repository, cannot be reached, or its weights are damaged.
    """
    file = locate_predictor(name, backbone.id, backbone.revision, offline=offline, width=backbone.hidden_size)
    if file is None:
        return None
    display = file.name if name is None or name == AUTO else name
    label = file.label
    predictor = files.load(file.path, display)
    trained_for = predictor.metadata.backbone
    model = trained_for if same_model(trained_for, backbone.id) else backbone.id
    files.check_fits(predictor, model, backbone.revision, backbone.hidden_size, display)
    return LoadedPredictor(predictor.to(backbone.device), label, file.sha256, file.notes)


def locate_predictor(
    name: str | None, model: str, revision: str, *, offline: bool, width: int | None = None
) -> PredictorFile | None:
    """The file that ``find_predictor`` would load for ``model`` at ``revision``; without its ``width``, the name
    decides.

    A name stands for what is installed; after that come files and folders, and then repositories, which, as models do,
    come through the hub's cache and are not installed. Errors as for ``find_predictor``.
    """
    if name is None or name == AUTO:
        return _default(model, revision, width)
    match = sources.REPOSITORY.fullmatch(name)
    if match or sources.NAME.fullmatch(name):
        predictor = installed.find(match["repo"] if match else name)
        if predictor and predictor.is_at(match["ref"] if match else None):
            return _installed_file(predictor)
    source = sources.parse(name)
    path = Path(source.location)
    if source.kind == FILE and os.path.isdir(os.path.expanduser(name)):
        return PredictorFile(path, source.name)
    if source.kind in (BUILT_IN, FILE):
        return PredictorFile(path, path.stem)
    if source.kind != HUB or name in sources.known():
        raise UsageError(f"predictor {source.display} is not installed: `cg fetch-predictor {name}` gets it")
    weights, commit = hub.download(source, offline, _Silent())
    return PredictorFile(weights, source.name, (f"predictor {source.name} is that of commit {commit} on the hub",))


def _default(model: str, revision: str, width: int | None) -> PredictorFile | None:
    """The installed predictor marked as the default of ``model``, or of one of the same ``revision``; else the one that
    comes with the model."""
    defaults = [p for p in installed.installed_predictors() if p.is_default and width in (None, p.card["width"])]
    fitting = [p for p in defaults if same_model(p.backbone, model)]
    fitting += [p for p in defaults if p.card["revision"] == revision]
    if fitting:
        return _installed_file(fitting[0])
    known = models.KNOWN.get(model.lower())
    return PredictorFile(Path(known.predictor), Path(known.predictor).stem) if known and known.predictor else None


def _installed_file(predictor: InstalledPredictor) -> PredictorFile:
    return PredictorFile(predictor.path, predictor.name, installed_sha256=predictor.sha256)
