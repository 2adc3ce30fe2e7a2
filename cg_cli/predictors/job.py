"""``cg train-predictor``: from video files to a predictor file, in four numbered stages."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cg_cli.errors import UsageError
from cg_cli.predictors import card, corpus, effects, files, publish, training
from cg_cli.predictors.corpus import Corpus
from cg_cli.predictors.features import ClipFile
from cg_cli.pruning.predictor import PredictorMetadata
from cg_cli.settings import models
from cg_cli.settings.resolve import decode_options
from cg_cli.settings.table import Settings
from cg_cli.util.format import rough_duration, size
from cg_cli.util.outputs import check_output

TIMED_CLIPS = 3  # after which the time of encoding the others is told


class Listener(Protocol):
    """Receives the progress of a training."""

    def fault(self, message: str) -> None: ...

    def note(self, message: str) -> None: ...

    def encoded(self, done: int, total: int) -> None: ...

    def checked(self, role: str, step: int, figures: dict[str, float]) -> None: ...


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
    kind: str,
    window_s: float,
    steps: int,
    cache: Path,
    shuffled: bool,
    publish_to: Path | None,
    listener: Listener,
) -> Report:
    """Train a predictor for ``settings.model`` on ``videos``, and its control, and write it with its card to ``out``.

    Args:
        kind: of ``pruning.predictor.KINDS``.
        window_s: seconds of audio that one prediction covers.
        cache: folder for encoded clips and checkpoints; a run that was interrupted goes on from there.
        shuffled: pair pictures with the sound of other clips (a control).
        publish_to: folder for what can be uploaded as it is; None for none.

    Raises:
        UsageError: no video, no model, too little room on the disk, or too few clips with sound and picture.
    """  # fmt: skip
    # 1. the videos, and the model whose tokens the predictor is to read
    paths = check(videos, out, shuffled=shuffled, publish_to=publish_to)
    backbone = models.load_chosen(replace(settings, quantize="none"), towers_only=settings.adapter is None)

    # 2. encode: each clip once
    videos_of = Corpus(paths, backbone, decode_options(settings, backbone), window_s, cache)
    clips = _encode(videos_of, listener)

    # 3. train
    metadata = PredictorMetadata(
        backbone.id,
        backbone.revision,
        backbone.family,
        backbone.hidden_size,
        window_s=window_s,
        kind=kind,
    )
    recipe = [backbone.id, backbone.revision, kind, window_s, steps, settings.seed, shuffled, *map(str, paths)]
    state = cache / f"training-{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]}"
    trained = training.fit(
        [clip for _, clip in clips],
        metadata,
        steps=steps,
        seed=settings.seed,
        device=backbone.device,
        state=state,
        shuffled=shuffled,
        on_check=listener.checked,
        tell=listener.note,
    )

    # 4. measure what it changes, and write
    predictor = trained.predictor
    measured = [clips[place][0] for place in trained.held_out[: effects.MEASURED_CLIPS]]
    changed = effects.changes(predictor, trained.control, videos_of.streams(measured))
    figures = predictor.metadata.validation | changed
    predictor.metadata = replace(predictor.metadata, validation=figures, verdict=card.verdict(kind, figures))
    files.save(predictor, out)
    if publish_to:
        publish.write(out, predictor.metadata, publish_to)
    return Report(predictor.metadata, len(paths) - len(clips))


def _encode(videos: Corpus, listener: Listener) -> list[tuple[Path, ClipFile]]:
    """The videos that can be used, encoded, each with its file. UsageError if the disk has no room for them."""
    waiting = videos.to_encode()
    if waiting:
        seconds = corpus.stated_seconds(waiting)
        needed = corpus.disk_bytes(videos.backbone, seconds, videos.window_s)
        videos.cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(videos.cache).free
        if needed > free:
            raise UsageError(
                f"{len(waiting)} videos of {rough_duration(seconds)} take up to {size(needed)} encoded, and "
                f"{videos.cache} has {size(free)} free: make room, name a folder on another disk with --cache, or take "
                "fewer videos"
            )
        listener.note(
            f"{len(waiting)} videos of {rough_duration(seconds)} to encode: up to {size(needed)} in {videos.cache} "
            f"({size(free)} free)"
        )
    clips, began, fresh = [], time.perf_counter(), frozenset(waiting)
    encoded = 0
    for done, (video, clip) in enumerate(zip(videos.videos, videos.encode(listener.fault)), start=1):
        clips += [(video, clip)] if clip else []
        encoded += video in fresh
        if encoded == TIMED_CLIPS and video in fresh and len(fresh) > encoded:
            left = (time.perf_counter() - began) / encoded * (len(fresh) - encoded)
            listener.note(f"encoding the other {len(fresh) - encoded} takes about {rough_duration(left)}")
        listener.encoded(done, len(videos.videos))
    return clips
