"""The families whose checkpoints are made small here: a new one is one more row, and gets the tests of ``test_families.py``."""

from __future__ import annotations

import tiny
import tiny_qwen3

BUILDERS = {"qwen3_omni": tiny_qwen3.build}
SIDES = {"qwen3_omni": (64, 96)}  # of a clip, in whole merged patches
ESSENTIAL = {"qwen3_omni": ("visual.merger_list", "audio_tower.layers", "layers.1.self_attn.q_norm")}  # a weight of each part


def clip(name: str, seed: int = 0, *, picture: bool = True, sound: bool = True):
    """Three seconds of noise for a family."""
    return tiny.clip(6 if picture else None, *SIDES[name], 3.0 if sound else None, seed=seed)


CLIPS = {name: clip(name) for name in BUILDERS}
