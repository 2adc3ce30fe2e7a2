"""Which predictor goes with which model: the one that was asked for, or the one that is bundled with the model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .. import models
from ..backbones.base import Backbone
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
    known = models.KNOWN.get(backbone.id.lower())
    path = Path(asked).expanduser() if asked else Path(known.predictor) if known and known.predictor else None
    if path is None:
        return None
    predictor = a2v.load(path)
    a2v.check_fits(predictor, backbone.id, backbone.revision, backbone.hidden_size, str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return Found(predictor.to(backbone.device), f"{path.stem}@{digest}")
