"""A long clip of which mostly sound is read says so, and what changes it; a short one does not."""

from __future__ import annotations

import re
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from cg_cli.backbones.qwen2_5_omni.model import Qwen25Omni
from cg_cli.engine import sound_share
from cg_cli.media.clip import SAMPLE_RATE, Clip, DecodeOptions
from cg_cli.media.sizes import fit_size, frame_count
from cg_cli.pruning.budget import split

WIDTH, HEIGHT = 1280, 720
DEFAULTS = DecodeOptions()


def pruned(seconds: float, keep: float, options: DecodeOptions, sound: bool = True, stage: str = "input"):
    """What is kept of a clip of Qwen2.5-Omni, without its tensors."""
    frames = frame_count(Fraction(seconds), options)
    samples = round(seconds * SAMPLE_RATE) if sound else 0
    clip = Clip(
        path="clip.mp4",
        frames=np.empty((frames, 1, 1, 3), np.uint8),
        frame_times=None,
        seconds_per_frame=seconds / frames,
        audio=np.broadcast_to(np.float32(0), samples) if sound else None,
        audio_status="used" if sound else "absent",
        duration_s=seconds,
        source_width=WIDTH,
        source_height=HEIGHT,
    )
    width, height = fit_size(WIDTH, HEIGHT, options.frame_pixels(frames), options.side_multiple)
    grids, video, audio = Qwen25Omni.media_tokens(frames, height, width, samples)
    return SimpleNamespace(
        encoded=SimpleNamespace(clip=clip),
        pruner=SimpleNamespace(stage=stage),
        keep=keep,
        budget=split(video, audio, grids, keep),
    )


def said(*arguments, options: DecodeOptions = DEFAULTS, **more) -> str | None:
    return sound_share.warning(Qwen25Omni, pruned(*arguments, options, **more), options)


def test_ten_minutes_at_the_defaults():
    assert said(600, 0.45) == (
        "85% of the 10,206 kept tokens are sound, as 128 frames stand for 10 min 00 s: "
        "--max-frames 862 makes it half, with 30,024 kept tokens; --no-audio leaves it out"
    )


@pytest.mark.parametrize("seconds, keep", [(100, 0.45), (150, 0.45), (600, 0.25), (3600, 0.1)])
def test_with_the_frames_that_it_names_it_is_not_said_and_with_fewer_it_is(seconds, keep):
    (frames,) = map(int, re.findall(r"--max-frames (\d+)", said(seconds, keep)))
    assert said(seconds, keep, options=DecodeOptions(max_frames=frames)) is None
    assert said(seconds, keep, options=DecodeOptions(max_frames=frames - 2))


@pytest.mark.parametrize("seconds, keep", [(8, 0.45), (60, 0.1), (64, 0.45), (80, 0.45), (150, 0.25)])
def test_nothing_is_said_where_most_of_what_is_read_is_picture(seconds, keep):
    assert said(seconds, keep) is None


def test_nothing_is_said_where_all_frames_are_there_that_were_asked_for():
    sparse = DecodeOptions(fps=0.2)
    kept = pruned(60, 0.45, sparse)
    assert kept.budget.audio > kept.budget.video and said(60, 0.45, options=sparse) is None


def test_frames_that_do_not_suffice_are_not_named():
    line = said(600, 0.45, options=DecodeOptions(fps=0.5))
    assert line.endswith("stand for 10 min 00 s: --no-audio leaves it out")


def test_nothing_is_said_without_sound_or_of_a_pruner_that_divides_as_it_sees_fit():
    assert said(600, 0.45, sound=False) is None and said(600, 0.45, stage="decoder") is None
