"""The families whose checkpoints are made small here: a new one is one more row, and gets the tests of ``test_families.py``."""

from __future__ import annotations

import tiny
import tiny_qwen3

BUILDERS = {"qwen3_omni": tiny_qwen3.build}
CLIPS = {"qwen3_omni": tiny.clip(6, 64, 96, 3.0)}
