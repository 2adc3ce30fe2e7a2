"""A folder that can be uploaded to the hub as it is: a predictor's weights, what they are, and a model card for
people."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from cg_cli.errors import CgError, UsageError
from cg_cli.predictors import installed
from cg_cli.predictors.installed import ABOUT, SCHEMA, WEIGHTS
from cg_cli.predictors.sources import REPOSITORY
from cg_cli.predictors.training import HELD_BACK
from cg_cli.pruning.predictor import PredictorMetadata
from cg_cli.settings import models

README = "README.md"


def check(folder: Path) -> None:
    """UsageError unless ``folder`` is new, empty, or a predictor published before, which a new one replaces."""
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise UsageError(f"--publish-dir {folder}: {error.strerror}") from error
    others = sorted(
        name for name in names - {WEIGHTS, ABOUT, README} if not name.startswith(".")
    )  # those are git's, or our own
    if others:
        raise UsageError(f"--publish-dir {folder} holds other things ({others[0]}): give a new folder")


def write(weights: Path, card: PredictorMetadata, folder: Path) -> None:
    """Write the predictor in the file ``weights``, with its ``card``, to ``folder``. CgError if that cannot be done."""
    about = {
        "schema": SCHEMA,
        "sha256": installed.digest(weights),
        "size": weights.stat().st_size,
        "card": asdict(card),
    }
    files = {
        WEIGHTS: weights.read_bytes(),
        ABOUT: (json.dumps(about, indent=1) + "\n").encode(),
        README: model_card(card, folder.absolute().name).encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            new = folder / f".{name}.new"
            new.write_bytes(data)
            os.replace(new, folder / name)
    except OSError as error:
        raise CgError(f"cannot write {folder}: {error.strerror}; the predictor itself is in {weights}") from error


def model_card(card: PredictorMetadata, name: str) -> str:
    """The README of a published predictor; its figures are those that training measured."""
    source = models.source(card.backbone)
    base = f"base_model: {source}\n" if REPOSITORY.fullmatch(source) else ""
    figures = card.validation
    return f"""---
{base}tags:
- video-question-answering
- token-pruning
- cg
---

# {name}

An audio-to-visual predictor for **{card.backbone}** (revision `{card.revision}`): what a moment roughly looks like, as far as its
sound tells. The ContextGuard pruner of the `cg` command line reads it to choose which audio and video tokens reach the language model.
It answers nothing by itself, and fits no other model.

```sh
cg fetch-predictor OWNER/{name}
cg ask clip.mp4 "what is happening?" --model {card.backbone}
```

## How well it predicts

Measured on the {HELD_BACK:.0%} of the clips that training did not see:

| figure | value | without sound to go by |
|---|---:|---:|
| cosine between predicted and actual picture of a window | {figures["cosine"]:.4f} | {figures["cosine_shuffled"]:.4f} (the sound of another clip) |
| how often the actual picture is the nearest to the prediction, among windows of other clips | {figures["recall_at_1"]:.1%} | {figures["chance"]:.1%} (chance) |

What it does to the answers of {card.backbone} was not measured: `cg profile labelled.jsonl --model {card.backbone}` does.

## What it is made of

Trained on {card.clips} clips ({card.windows} windows of {card.window_s:g} s), without labels. `{WEIGHTS}` holds the weights and, as
metadata, all of this; `{ABOUT}` its SHA-256. Tokens of {card.width}, {card.queries} queries of {card.hidden}, a visual space of
{card.components} dimensions.
"""
