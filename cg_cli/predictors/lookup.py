"""Which predictor goes with which model: the one that was asked for, or one that is here and fits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from cg_cli.backbones.base import Backbone
from cg_cli.errors import UsageError
from cg_cli.predictors import hub, installed, sources
from cg_cli.predictors.installed import Installed
from cg_cli.predictors.sources import BUILT_IN, FILE, HUB
from cg_cli.pruning import predictor as a2v
from cg_cli.pruning.predictor import A2VPredictor
from cg_cli.settings import models

AUTO = "auto"  # the same as not to ask


@dataclass(frozen=True)
class Place:
    """Where a predictor is.

    Attributes:
        path: of the weights.
        name: what records call it.
        notes: what a record should say about the choice.
        sha256: what the weights hashed to when they were installed, or "".
    """

    path: Path
    name: str
    notes: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def label(self) -> str:
        """What records call these very weights: the name, and the start of their SHA-256. UsageError if they cannot be
        read, or are not what was installed."""
        try:
            found = installed.digest(self.path)
        except OSError as error:
            raise UsageError(f"predictor {self.path}: {error.strerror}") from error
        if self.sha256 not in ("", found):
            raise UsageError(
                f"predictor {self.name} is no longer what was installed: remove {self.path.parent}, and fetch it again"
            )
        return f"{self.name}@{found[:12]}"


@dataclass(frozen=True)
class Found:
    """A predictor, what records call it, and what they should say about the choice."""

    predictor: A2VPredictor
    label: str
    notes: tuple[str, ...] = ()


class _Silent:
    """A Listener that says nothing: the place's note does."""

    bar = staticmethod(partial(tqdm, disable=True))

    def note(self, message: str) -> None:
        pass


def find(asked: str | None, backbone: Backbone, *, offline: bool) -> Found | None:
    """The predictor ``asked``, or for None or "auto" one that is here and fits ``backbone``; None if there is none.

    Raises:
        UsageError: it is no predictor, was trained for another model, or is not to be had.
        CgError: the hub, for a repository, cannot be reached, or its weights are damaged.
    """
    place = locate(asked, backbone.id, backbone.revision, offline=offline, width=backbone.hidden_size)
    if place is None:
        return None
    shown = asked if asked not in (None, AUTO) else place.name
    label = place.label
    predictor = a2v.load(place.path, shown)
    same = _same(predictor.card.backbone, backbone.id)
    a2v.check_fits(
        predictor, predictor.card.backbone if same else backbone.id, backbone.revision, backbone.hidden_size, shown
    )
    return Found(predictor.to(backbone.device), label, place.notes)


def locate(asked: str | None, model: str, revision: str, *, offline: bool, width: int | None = None) -> Place | None:
    """Where the predictor is that ``find`` would load for ``model`` at ``revision``; without its ``width``, the name
    decides.

    A name stands for what is installed; after that come files and folders, and then repositories, which, as models do,
    come through the hub's cache and are not installed. Errors as for ``find``.
    """
    if asked in (None, AUTO):
        return _fitting(model, revision, width)
    repository = sources.REPOSITORY.fullmatch(asked)
    name, ref = (repository["repo"], repository["ref"]) if repository else (asked, None)
    if repository or sources.NAME.fullmatch(asked):
        here = installed.find(name)
        if here and here.is_at(ref):
            return _installed(here)
    source = sources.parse(asked)
    if source.kind == BUILT_IN or (source.kind == FILE and not Path(asked).expanduser().is_dir()):
        return Place(Path(source.where), Path(source.where).stem)
    if source.kind == FILE:
        return Place(Path(source.where), source.name)
    if source.kind != HUB or asked in sources.known():
        raise UsageError(f"predictor {source.shown} is not installed: `cg fetch-predictor {asked}` gets it")
    files = hub.fetch(source, offline, _Silent())
    return Place(files.weights, source.name, (f"predictor {source.name} is that of commit {files.commit} on the hub",))


def _fitting(model: str, revision: str, width: int | None) -> Place | None:
    """The installed predictor that was trained for ``model``, rather for this ``revision`` and newer than others; else
    the one that comes with the model."""
    fits = [i for i in installed.everything() if width in (None, i.card["width"])]
    fits = [i for i in fits if _same(i.card["backbone"], model) or i.card["revision"] == revision]
    fits.sort(key=lambda i: (i.card["revision"] == revision, i.installed), reverse=True)
    if fits:
        several = (
            f"{len(fits)} installed predictors fit {model}: {fits[0].name} was taken; --predictor NAME takes another"
        )
        return _installed(fits[0], *([several] if len(fits) > 1 else []))
    known = models.KNOWN.get(model.lower())
    return Place(Path(known.predictor), Path(known.predictor).stem) if known and known.predictor else None


def _installed(found: Installed, *notes: str) -> Place:
    return Place(found.path, found.name, notes, found.sha256)


def _same(first: str, second: str) -> bool:
    """Whether two names are of one model: an alias is the hub id that it stands for."""
    return models.source(first) == models.source(second)
