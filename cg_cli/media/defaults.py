"""How a file is read unless somebody says otherwise. Imports nothing."""

from __future__ import annotations

FPS = 2.0  # frames a second
MAX_FRAMES = 128
MAX_PIXELS = 128 * 28 * 28  # of a frame: 128 merged patches of 28 x 28
TIMEOUT_S = 300.0  # for decoding one file
