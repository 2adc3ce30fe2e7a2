"""``cg batch --dry-run``: what would run and how many tokens, from probes and the model's config alone."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from cg_cli.batch import history
from cg_cli.batch.run import Plan
from cg_cli.engine.inputs import video_content
from cg_cli.engine.setup import Expected, expect
from cg_cli.errors import ItemError
from cg_cli.media import DecodeWorker, fit_size
from cg_cli.media.clip import SAMPLE_RATE
from cg_cli.media.metadata import Probe
from cg_cli.media.sizes import frame_count
from cg_cli.pruning import budget


def forecast(plan: Plan) -> Iterator[dict[str, Any]]:
    """An object for each file of the run: ``video``, ``questions`` left to answer and ``settled`` ones, and
    ``duration_s``, ``frames``, ``width``, ``height``, ``tokens`` as its records will have them (but for a token or two
    of sound, whose last frame a codec may pad), or the ``error`` that they will have.

    Raises:
        UsageError: settings or an archive that cannot be used.
    """
    expected = expect(plan.settings)
    videos = {item.video for item in plan.collected.items}
    from_nothing = plan.overwrite or plan.out == "-"
    past = history.History((), None) if from_nothing else history.read(Path(plan.file), videos, plan.retry)
    with DecodeWorker() as worker:
        for item in plan.items:
            keys = expected.inputs.keys(video_content(item.video), [question.text for question in item.questions])
            left = past.claims(item, keys).count(None)
            line: dict[str, Any] = {"video": item.video, "questions": left, "settled": len(keys) - left}
            try:
                probe = worker.probe(item.video, plan.settings.decode_timeout)
            except ItemError as error:
                yield line | {"error": {"stage": error.stage, "type": error.kind, "message": str(error)}}
            else:
                yield line | _sizes(probe, expected, plan.settings.keep)


def _sizes(probe: Probe, expected: Expected, keep: float) -> dict[str, Any]:
    options = expected.decode_options
    frames = width = height = 0
    if probe.video_s:
        frames = frame_count(Fraction(probe.video_s), options)
        width, height = fit_size(probe.width, probe.height, options.frame_pixels(frames), options.side_multiple)
    samples = round(probe.audio_s * SAMPLE_RATE) if options.audio else 0
    grids, video, audio = expected.backbone.media_tokens(frames, height, width, samples)
    kept = budget.split(video, audio, grids, keep)
    return {
        "duration_s": round(probe.duration_s, 6),
        "frames": frames,
        "width": width,
        "height": height,
        # Which of them stay in the end is not known before a pruner between layers has seen the question.
        "tokens": {"video": video, "audio": audio, "kept": kept.count}
        | ({"video_kept": kept.video, "audio_kept": kept.audio} if expected.pruner.stage == "input" else {}),
    }
