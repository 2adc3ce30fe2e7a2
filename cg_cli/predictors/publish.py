"""A folder that can be uploaded to the hub as it is: a predictor's weights, what they are, and a model card for
people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from cg_cli.errors import CgError, UsageError
from cg_cli.predictors import card
from cg_cli.predictors.installed import MANIFEST, SCHEMA, WEIGHTS
from cg_cli.predictors.sources import REPOSITORY
from cg_cli.predictors.training import VALIDATION_SHARE
from cg_cli.pruning.predictor import DIRECTION, WORDS, PredictorMetadata
from cg_cli.settings import models
from cg_cli.util.atomic import write_atomic
from cg_cli.util.hashing import file_sha256

README = "README.md"
FEW_CLIPS = 10  # to choose among, below which a share of hits says nothing
WHAT = {DIRECTION: "the mean video token", WORDS: "the visual words"}  # that each kind predicts


def check(folder: Path) -> None:
    """UsageError unless ``folder`` is new, empty, or a predictor published before, which a new one replaces."""
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise UsageError(f"--publish-dir {folder}: {error.strerror}") from error
    foreign = sorted(
        name for name in names - {WEIGHTS, MANIFEST, README} if not name.startswith(".")
    )  # those are git's, or our own
    if foreign:
        raise UsageError(f"--publish-dir {folder} holds other things ({foreign[0]}): give a new folder")


def write(weights: Path, metadata: PredictorMetadata, folder: Path) -> None:
    """Write the predictor in the file ``weights``, with its ``metadata``, to ``folder``. CgError if that fails."""
    manifest = {
        "schema": SCHEMA,
        "sha256": file_sha256(weights),
        "size": weights.stat().st_size,
        "card": asdict(metadata),
    }
    files = {
        WEIGHTS: weights.read_bytes(),
        MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode(),
        README: model_card(metadata, folder.absolute().name).encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomic(folder / name, data)
    except OSError as error:
        raise CgError(f"cannot write {folder}: {error.strerror}; the predictor itself is in {weights}") from error


def recall_in_words(figures: Mapping[str, float]) -> str:
    """Recall with the number of clips to choose among, and as a share only where these are enough for one."""
    clips = round(1 / figures["chance"])
    if clips < FEW_CLIPS:
        return f"too few to tell ({clips} clips to choose among)"
    return f"{figures['recall_at_1']:.1%} among {clips} clips"


def model_card(metadata: PredictorMetadata, name: str) -> str:
    """The README of a published predictor; its figures are those that training measured."""
    source = models.source(metadata.backbone)
    base = f"base_model: {source}\n" if REPOSITORY.fullmatch(source) else ""
    lines = [" | ".join(row) for row in card.rows(asdict(metadata))]
    figures = "\n".join(f"| {line} |" for line in lines)
    verdict = f"\n**{metadata.verdict[:1].upper()}{metadata.verdict[1:]}.**\n" if metadata.verdict else ""
    what = WHAT[metadata.kind]
    sizes = f", {metadata.words} visual words" if metadata.words else ""
    return f"""---
{base}tags:
- video-question-answering
- token-pruning
- cg
---

# {name}

An audio-to-visual predictor for **{metadata.backbone}** (revision `{metadata.revision}`): {what} of a moment,
predicted from its audio tokens. The ContextGuard pruner of the `cg` command line reads it to choose which audio
and video tokens reach the language model. It answers nothing by itself, and fits no other model.

```sh
cg fetch-predictor OWNER/{name} --default
cg ask clip.mp4 "what is happening?" --model {metadata.backbone}
```

## How well it predicts

Measured on the {VALIDATION_SHARE:.0%} of the clips that training did not see:

| figure | value | without sound to go by |
|---|---:|---:|
{figures}
{verdict}
What it does to the answers of {metadata.backbone} was not measured; this does:
`cg profile labelled.jsonl --model {metadata.backbone}`.

## What it is made of

Trained on {metadata.clips} clips ({metadata.windows} windows of {metadata.window_s:g} s), without labels. `{WEIGHTS}`
holds the weights and, as metadata, all of this; `{MANIFEST}` its SHA-256. Tokens of {metadata.width},
{metadata.queries} queries of {metadata.hidden}, a visual space of {metadata.components} dimensions{sizes}.
"""
