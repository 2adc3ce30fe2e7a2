"""``cg train-predictor``: from video files to a predictor file, in three numbered stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cg_cli.errors import UsageError
from cg_cli.predictors import corpus, files, publish, training
from cg_cli.pruning.predictor import PredictorMetadata
from cg_cli.settings import models
from cg_cli.settings.resolve import decode_options
from cg_cli.settings.table import Settings
from cg_cli.util.outputs import check_output


class Listener(Protocol):
    """Receives the progress of a training."""

    def fault(self, message: str) -> None: ...

    def encoded(self, done: int, total: int) -> None: ...

    def checked(self, step: int, figures: dict[str, float]) -> None: ...


@dataclass(frozen=True)
class Report:
    """What a job did: the metadata of the predictor written, and how many videos could not be used."""

    metadata: PredictorMetadata
    left_out: int


def check(videos: Sequence[Path], out: Path, *, shuffled: bool, publish_to: Path | None) -> list[Path]:
    """Refuse what cannot work before anything slow begins; returns the video files.

    Raises:
        UsageError: no video, too few of them, or a file or folder that must not be written.
    """
    paths = corpus.find_videos(videos)
    check_output("-o", out, inputs=paths, is_ours=files.is_predictor)
    if publish_to and shuffled:
        raise UsageError(
            "--publish-dir: a predictor trained with --shuffle-sound is a control, and nothing to publish: leave one "
            "of the two out"
        )
    if publish_to:
        publish.check(publish_to)
    if len(paths) < training.MIN_CLIPS:
        raise UsageError(
            f"{len(paths)} video{'s' * (len(paths) != 1)} are too few to learn from: at least "
            f"{training.MIN_CLIPS} with sound and picture are needed"
        )
    return paths


def train_predictor(
    videos: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    window_s: float,
    steps: int,
    cache: Path,
    shuffled: bool,
    publish_to: Path | None,
    listener: Listener,
) -> Report:
    """Train a predictor for ``settings.model`` on ``videos`` and write it to ``out``.

    Args:
        window_s: seconds of audio that one prediction covers.
        cache: folder for encoded clips and checkpoints; a run that was interrupted goes on from there.
        shuffled: pair pictures with the sound of other clips (a control).
        publish_to: folder for what can be uploaded as it is; None for none.

    Raises:
        UsageError: no video, no model, or too few clips with sound and picture.
    """  # fmt: skip
    # 1. the videos, and the model whose tokens the predictor is to read
    paths = check(videos, out, shuffled=shuffled, publish_to=publish_to)
    name = models.choose(settings.model, settings.device)
    backbone = models.load(
        name,
        device=settings.device,
        dtype=settings.dtype,
        offline=settings.offline,
        positions=settings.positions,
        adapter=settings.adapter,
    )

    # 2. encode: each clip once
    clips = []
    encoded = corpus.encode_all(paths, backbone, decode_options(settings, backbone), window_s, cache, listener.fault)
    for done, windows in enumerate(encoded, start=1):
        clips += [windows] if windows else []
        listener.encoded(done, len(paths))

    # 3. train, and write
    metadata = PredictorMetadata(
        backbone.id,
        backbone.revision,
        backbone.family,
        backbone.hidden_size,
        window_s=window_s,
    )
    recipe = json.dumps([backbone.id, backbone.revision, window_s, steps, settings.seed, shuffled, *map(str, paths)])
    state = cache / f"training-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.pt"
    predictor = training.fit(
        clips, metadata, steps=steps, seed=settings.seed, state_file=state, shuffled=shuffled, on_check=listener.checked
    )
    files.save(predictor, out)
    if publish_to:
        publish.write(out, predictor.metadata, publish_to)
    return Report(predictor.metadata, len(paths) - len(clips))
