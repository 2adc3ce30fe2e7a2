"""Which predictor goes with which model: the one that was asked for, or the one that is bundled with the model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .. import models
from ..backbones.base import Backbone
from ..errors import UsageError
from ..pruning import predictor as a2v
from ..pruning.predictor import A2VPredictor


@dataclass(frozen=True)
class Found:
    """A predictor, and what the record calls it: file name and the start of its SHA-256."""

    predictor: A2VPredictor
    label: str


def find(asked: str | None, backbone: Backbone) -> Found | None:
    """The predictor file ``asked``, or the one that comes with the backbone's model; None if there is none.

    Raises:
        UsageError: the file is no predictor, or was trained for another model.
    """
    path = locate(asked, backbone.id)
    if path is None:
        return None
    predictor = a2v.load(path)
    a2v.check_fits(predictor, backbone.id, backbone.revision, backbone.hidden_size, str(path))
    return Found(predictor.to(backbone.device), label(path))


def locate(asked: str | None, model: str) -> Path | None:
    """Where the predictor ``asked``, or else the one that comes with ``model``, is; None if there is none."""
    known = models.KNOWN.get(model.lower())
    return Path(asked).expanduser() if asked else Path(known.predictor) if known and known.predictor else None


def label(path: Path) -> str:
    """What the record calls a predictor file. UsageError if it cannot be read."""
    try:
        return f"{path.stem}@{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    except OSError as error:
        raise UsageError(f"predictor {path}: {error.strerror}") from error
