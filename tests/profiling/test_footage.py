"""The made-up footage: what repeats itself in it and what does not, and that it is a file like others."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from cg_cli import media
from cg_cli.media.repeats import grid_sources
from cg_cli.profiling import footage

pytestmark = pytest.mark.slow


def drawn(kind: str, seconds: float) -> np.ndarray:
    """Pictures half a second apart."""
    pictures = footage.KINDS[kind](np.random.default_rng(0), round(seconds * footage.FPS))
    return np.stack(list(islice(pictures, 0, None, footage.FPS // 2)))


def test_what_repeats_itself():
    slides, terminal, camera, film = (drawn(kind, s) for kind, s in zip(footage.KINDS, (7, 4, 1.6, 1.6)))
    encoded = lambda frames, levels: len(set(grid_sources(frames[: len(frames) // 2 * 2], 2, levels)))
    assert encoded(slides, 0) < 0.6 * len(slides) / 2 and len(np.unique(slides[-1])) > 3
    assert 1 < encoded(terminal, 0) <= len(terminal) / 2  # bursts change it, a cursor blinks
    assert encoded(camera, 0) == encoded(film, 0) == 2  # noise is never the same
    steady = np.abs(camera[0].astype(int) - camera[1]).mean()
    assert 2 * steady < np.abs(film[0].astype(int) - film[-1]).mean()
    assert (drawn("film", 0.2) == drawn("film", 0.2)).all()


def test_a_file_of_it(tmp_path):
    footage.write(tmp_path / "camera.mp4", "camera", 1)
    clip = media.decode(tmp_path / "camera.mp4")
    assert (clip.source_width, clip.source_height) == footage.SOURCE and len(clip.frames) == 2
    assert clip.audio_s == pytest.approx(1, abs=0.1) and 0.01 < np.abs(clip.audio).max() < 0.5
