"""Grids that are not evenly spaced stand, in order and position, where a clip that has all grids has them."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers import tiny
from helpers.families import FAMILIES

from cg_cli.backbones.layout import MediaShape
from cg_cli.backbones.qwen2_5_omni.layout import prefix_layout as qwen2_5_omni
from cg_cli.backbones.qwen3_omni.model import prefix_layout as qwen3_omni
from cg_cli.backbones.video_salmonn2.model import TRAINING
from cg_cli.backbones.video_salmonn2.model import prefix_layout as video_salmonn2
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO

HEADER = 4
LAYOUTS = {
    "qwen2_5_omni": (partial(qwen2_5_omni, HEADER), 25),
    "qwen3_omni": (lambda shape: qwen3_omni(HEADER, shape, 13), 13),
    "video_salmonn2": (lambda shape: video_salmonn2(HEADER, shape, TRAINING), 2),
}  # and audio tokens a second


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("family", LAYOUTS)
def test_some_grids_of_a_dense_clip_keep_its_order_and_positions(family, seed):
    """The dense clip's are those of transformers, or of the published code (the families' own tests)."""
    rng = random.Random(seed)
    (build, rate), grids = LAYOUTS[family], rng.randint(2, 40)
    dense = MediaShape(grids, 2, 3, rng.choice([0, grids * rate + 5]), rng.choice([0.7, 1.0, 1.001]))
    # With the last one: the text behind it may depend on it.
    chosen = sorted({*rng.sample(range(grids), rng.randint(1, grids)), grids - 1})
    starts = tuple(dense.starts()[chosen].tolist())
    whole, some = build(dense), build(replace(dense, grids=len(chosen), grid_starts=starts))
    stays = (whole.modality != VIDEO) | torch.isin(whole.grid, torch.tensor(chosen))
    for name in ("modality", "row", "column", "time_s"):
        assert torch.equal(getattr(some, name), getattr(whole, name)[stays])
    assert torch.equal(some.positions, whole.positions[:, stays]) and some.next_position == whole.next_position
    video = some.modality == VIDEO
    assert torch.equal(some.time_s[video], torch.tensor(starts)[some.grid[video]])


@pytest.mark.parametrize("family", LAYOUTS)
def test_sound_stays_between_the_grids_of_its_time_however_long_the_gap(family):
    build, rate = LAYOUTS[family]
    layout = build(MediaShape(3, 1, 1, 200 * rate, 0.0, (7.0, 90.0, 172.5)))
    window = 2.0  # seconds in which the video comes first, whatever the sound
    latest = -1.0
    for kind, time in zip(layout.modality.tolist(), layout.time_s.tolist()):
        if kind != TEXT:
            assert time >= latest - window
            latest = max(latest, time)
    assert (layout.time_s[layout.modality == AUDIO].diff() >= 0).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_clip_hands_its_starts_on(families, name):
    family = families(name)
    clip = tiny.clip(4, FAMILIES[name].height, FAMILIES[name].width, 3.0)
    even, uneven = (family.encode(replace(clip, grid_starts=starts)) for starts in (None, np.array([0.25, 2.0])))
    video = uneven.modality == VIDEO
    assert uneven.time_s[video].unique().tolist() == [0.25, 2.0]
    assert even.time_s[even.modality == VIDEO].unique().tolist() == [0.0, 1.0]
    assert torch.equal(even.embeddings[even.modality == VIDEO], uneven.embeddings[video])
    silent = family.encode(replace(clip, frames=None, frame_times=None, grid_starts=np.array([1.0])))
    assert not (silent.modality == VIDEO).any()
