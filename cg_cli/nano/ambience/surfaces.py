"""What the surfaces of the ambience world look like: each is a family of looks, and each cell is drawn for itself.

A family is an orientation field, a spectrum and a palette; all 24 combinations are a surface. Phase, scale, hue,
brightness, and whether the texture swells in blobs or in streaks are the cell's. So two cells of one surface are as
unlike as two cells of any, yet each shows its family.

Six fields times four manners (two spectra times two palettes) are dealt like the squares of a chessboard: black ones
are heard, white ones silent. Each field, each spectrum, each palette, and each field with each spectrum is heard as
often as it is silent: brightness, contrast and spectrum tell nothing about whether a surface is heard.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cg_cli.nano.things import CELL

FIELDS = ("lying", "standing", "rising", "falling", "crossed", "ringed")
# Spectrum: one frequency, or several. Palette: one tint, or two that alternate with the texture.
MANNERS = (("narrow", "tint"), ("narrow", "twin"), ("broad", "tint"), ("broad", "twin"))


class Look(NamedTuple):
    """A family of looks."""

    field: str
    spectrum: str
    palette: str


# A line for each field, in the order of FIELDS.
HEARD = (
    "sea", "snowstorm",
    "rain", "engine",
    "applause", "fire",
    "stream", "crowd",
    "keyboards", "traffic",
    "frying", "leaves",
)  # fmt: skip
SILENT_SURFACES = (
    "wood", "sand",
    "paper", "lawn",
    "cloth", "gravel",
    "marble", "metal",
    "tiles", "brick",
    "carpet", "concrete",
)  # fmt: skip
SURFACES = HEARD + SILENT_SURFACES  # class of a cell is the index in here + 1


def _deal() -> dict[str, Look]:
    black, white = iter(HEARD), iter(SILENT_SURFACES)
    squares = [(i + j, Look(field, *manner)) for i, field in enumerate(FIELDS) for j, manner in enumerate(MANNERS)]
    return {next(white if at % 2 else black): look for at, look in squares}


LOOKS = _deal()

_PERIOD = (7.0, 12.0)  # pixels of a texture's main wave, shortest and longest
_TILT = 0.14  # radians, farthest that a cell's texture is turned from its field
_PARTS = {"narrow": ((1.0, 1.0),), "broad": ((0.45, 1.0), (1.0, 0.8), (1.9, 0.8))}  # (frequency, weight) of its waves
_BRIGHTNESS = (105.0, 12.0)  # mean and standard deviation over cells
_CONTRAST = (18.0, 30.0)  # standard deviation of a cell's brightness, least and most
_CHROMA = 20.0  # root mean square distance from grey
_ANGLES = {"lying": np.pi / 2, "standing": 0.0, "rising": np.pi / 4, "falling": -np.pi / 4}
# Two directions of colour at equal brightness; a hue is an angle between them.
_OPPONENTS = np.array([[0.75, -0.38, 0.02], [0.3, 0.1, -1.45]], dtype=np.float32)


def _unit(pattern: np.ndarray) -> np.ndarray:
    """Each cell of ``pattern`` [n, CELL, CELL] with mean 0 and standard deviation 1."""
    pattern = pattern - pattern.mean((1, 2), keepdims=True)
    return pattern / pattern.std((1, 2), keepdims=True).clip(1e-6)


def _waves(look: Look, count: int, rng: np.random.Generator) -> np.ndarray:
    """The texture of ``count`` cells, [count, CELL, CELL], before it swells."""
    y, x = (np.mgrid[0:CELL, 0:CELL] - (CELL - 1) / 2)[:, None]
    draw = lambda low, high: rng.uniform(low, high, (count, 1, 1))
    tilt, frequency = draw(-_TILT, _TILT), 2 * np.pi / np.exp(draw(*np.log(_PERIOD)))
    along = lambda angle: x * np.cos(angle + tilt) + y * np.sin(angle + tilt)
    if look.field == "ringed":
        paths = [np.hypot(x - draw(-8, 8), y - draw(-8, 8))]
    elif look.field == "crossed":
        paths = [along(0.0), along(np.pi / 2)]
    else:
        paths = [along(_ANGLES[look.field])]
    return sum(
        weight * np.sin(share * frequency * path + draw(0, 2 * np.pi))
        for path in paths
        for share, weight in _PARTS[look.spectrum]
    )


def _swell(count: int, rng: np.random.Generator) -> np.ndarray:
    """How strong the texture is across each of ``count`` cells, [count, CELL, CELL] in 0.35..1: blobs or streaks."""
    y, x = (np.mgrid[0:CELL, 0:CELL] / CELL)[:, None]
    angle, shift = rng.uniform(0, 2 * np.pi, (2, 2, count, 1, 1))
    streaks = rng.random((count, 1, 1)) < 0.5
    first, second = (np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) + s) for a, s in zip(angle, shift))
    return 0.675 + 0.325 * np.where(streaks, first, (first + second) / 2)


def draw(surface: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` cells of ``surface``, unlike each other: [count, CELL, CELL, 3] float32, unlit."""
    look = LOOKS[surface]
    pattern = _unit(_waves(look, count, rng) * _swell(count, rng))
    spread = lambda low, high: rng.uniform(low, high, (count, 1, 1))
    light = _BRIGHTNESS[0] + _BRIGHTNESS[1] * rng.standard_normal((count, 1, 1)) + spread(*_CONTRAST) * pattern
    hue = rng.uniform(0, 2 * np.pi, count)
    tint = np.stack([np.cos(hue), np.sin(hue)], 1).astype(np.float32) @ _OPPONENTS
    tint = _CHROMA * tint / np.sqrt((tint**2).mean(1, keepdims=True))
    strength = np.sign(pattern) if look.palette == "twin" else np.ones_like(pattern)
    return (light[..., None] + strength[..., None] * tint[:, None, None]).astype(np.float32)
