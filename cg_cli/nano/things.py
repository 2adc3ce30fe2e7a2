"""What the nano world is made of: kinds of things, their silhouettes, colours, digits and places.

Eight kinds make a sound and are drawn large; eight are silent and small. A silhouette is a pair of coverage maps:
the body, painted in the thing's colour, and its details, painted darker.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

FRAME = 224  # pixels, frames are square: 8 x 8 merged patches of the vision tower
CELL = 28  # pixels, one merged patch
CELLS = FRAME // CELL

AUDIBLE = ("bell", "drum", "siren", "bird", "car", "clock", "horn", "dog")
SILENT = ("ball", "star", "key", "box", "flower", "kite", "ring", "cup")
DIGITS = tuple("0123456789")
KINDS = AUDIBLE + SILENT + DIGITS  # class of a cell is the index in here + 1; 0 is background

VERBS = {
    "bell": "rings", "drum": "beats", "siren": "wails", "bird": "sings",
    "car": "rumbles", "clock": "ticks", "horn": "blows", "dog": "barks",
}  # fmt: skip

COLOURS = {
    "red": (214, 40, 40),
    "yellow": (240, 208, 40),
    "green": (40, 168, 64),
    "blue": (44, 88, 224),
    "purple": (152, 56, 196),
    "white": (240, 240, 240),
}
PLACES = ("top left", "top right", "bottom left", "bottom right")
COUNTS = ("one", "two", "three")

_SUPERSAMPLE = 4  # sub-pixels a side, for soft edges
_FONT = {
    "0": "01110100011001110101110011000101110",
    "1": "00100011000010000100001000010001110",
    "2": "01110100010000100010001000100011111",
    "3": "11111000100010000010000011000101110",
    "4": "00010001100101010010111110001000010",
    "5": "11111100001111000001000011000101110",
    "6": "00110010001000011110100011000101110",
    "7": "11111000010001000100010000100001000",
    "8": "01110100011000101110100011000101110",
    "9": "01110100011000101111000010001001100",
}  # 5 columns x 7 rows a digit


def _disc(u, v, x, y, r):
    return (u - x) ** 2 + (v - y) ** 2 <= r * r


def _box(u, v, x0, y0, x1, y1):
    return (u >= x0) & (u <= x1) & (v >= y0) & (v <= y1)


def _triangle(u, v, a, b, c):
    def side(p, q):
        return (q[0] - p[0]) * (v - p[1]) - (q[1] - p[1]) * (u - p[0])

    s = side(a, b), side(b, c), side(c, a)
    return ((s[0] >= 0) & (s[1] >= 0) & (s[2] >= 0)) | ((s[0] <= 0) & (s[1] <= 0) & (s[2] <= 0))


def _shape(kind: str, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Body and detail of ``kind`` as boolean maps over u (right) and v (down), both in [-1, 1]."""
    none = np.zeros_like(u, dtype=bool)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    match kind:
        case "bell":
            dome = _disc(u, v, 0, -0.25, 0.6) & (v < 0.1)
            flare = (v >= 0) & (v <= 0.6) & (np.abs(u) <= 0.58 + 0.35 * np.clip(v, 0, 1) ** 2)
            return dome | flare, _disc(u, v, 0, 0.78, 0.2) | _box(u, v, -0.95, 0.42, 0.95, 0.56) & flare
        case "drum":
            top = (u / 0.95) ** 2 + ((v + 0.5) / 0.32) ** 2 <= 1
            side = _box(u, v, -0.95, -0.5, 0.95, 0.75)
            zigzag = np.abs(((u * 2.1 + 10) % 1) - 0.5) * 1.6 - 0.25
            return top | side, (np.abs(v - 0.3 - zigzag) < 0.1) & side & (v > -0.15)
        case "siren":
            dome = _disc(u, v, 0, 0.15, 0.5) & (v < 0.2)
            rays = (radius > 0.62) & (radius < 1) & (np.cos(angle * 8) > 0.5) & (v < 0.1)
            return dome | rays, _box(u, v, -0.75, 0.25, 0.75, 0.7)
        case "bird":
            body = ((u + 0.1) / 0.7) ** 2 + ((v - 0.2) / 0.45) ** 2 <= 1
            head = _disc(u, v, 0.5, -0.35, 0.34)
            tail = _triangle(u, v, (-0.6, 0.1), (-1, -0.35), (-0.95, 0.3))
            wing = _triangle(u, v, (-0.45, 0.1), (0.3, 0.1), (-0.35, -0.75))
            beak = _triangle(u, v, (0.78, -0.48), (1, -0.3), (0.78, -0.2))
            return body | head | tail | wing, beak | _disc(u, v, 0.55, -0.42, 0.09)
        case "car":
            body = _box(u, v, -1, -0.05, 1, 0.45)
            cabin = (v >= -0.5) & (v < 0) & (np.abs(u) <= 0.62 + 0.25 * v)
            wheels = _disc(u, v, -0.5, 0.5, 0.27) | _disc(u, v, 0.5, 0.5, 0.27)
            return body | cabin, wheels | _box(u, v, -0.4, -0.38, -0.06, -0.08) | _box(u, v, 0.06, -0.38, 0.4, -0.08)
        case "clock":
            hands = _box(u, v, -0.07, -0.62, 0.07, 0.07) | _box(u, v, -0.07, -0.07, 0.48, 0.07)
            return radius <= 0.92, hands | ((radius > 0.72) & (radius < 0.88))
        case "horn":
            cone = (u >= -0.75) & (u <= 0.95) & (np.abs(v) <= 0.1 + 0.75 * np.clip((u + 0.2) / 1.15, 0, 1) ** 1.5)
            return cone, _box(u, v, -1, -0.2, -0.75, 0.2) | (_box(u, v, 0.82, -0.9, 0.95, 0.9) & cone)
        case "dog":
            body = _box(u, v, -0.7, -0.1, 0.5, 0.35)
            legs = _box(u, v, -0.7, 0.3, -0.45, 0.9) | _box(u, v, 0.25, 0.3, 0.5, 0.9)
            head = _box(u, v, 0.3, -0.65, 0.8, 0.0) | _box(u, v, 0.7, -0.35, 1, -0.05)
            tail = _triangle(u, v, (-0.7, -0.1), (-0.7, 0.15), (-1, -0.6))
            return body | legs | head | tail, _triangle(u, v, (0.3, -0.65), (0.55, -0.65), (0.35, -0.1)) | _disc(
                u, v, 0.65, -0.45, 0.08
            )
        case "ball":
            return radius <= 0.9, (radius <= 0.9) & (np.abs(v) < 0.14)
        case "star":
            fold = np.abs(((angle + np.pi / 2 + 0.2 * np.pi) % (0.4 * np.pi)) - 0.2 * np.pi)  # 0 at a tip, pi/5 between
            return radius <= 0.4 / np.sin(fold + 0.4), none
        case "key":
            bow = _disc(u, v, -0.5, 0, 0.46) & ~_disc(u, v, -0.5, 0, 0.2)
            teeth = _box(u, v, 0.45, 0, 0.62, 0.5) | _box(u, v, 0.78, 0, 0.95, 0.5)
            return bow | _box(u, v, -0.1, -0.12, 0.95, 0.12) | teeth, none
        case "box":
            body = _box(u, v, -0.85, -0.85, 0.85, 0.85)
            return body, body & ((np.abs(u) < 0.13) | (np.abs(v) < 0.13))
        case "flower":
            return radius <= 0.6 + 0.35 * np.cos(5 * angle), radius <= 0.27
        case "kite":
            body = (np.abs(u) / 0.62 + np.abs(v) / 0.98) <= 1
            return body, body & ((np.abs(u) < 0.08) | (np.abs(v) < 0.08))
        case "ring":
            return (radius <= 0.92) & (radius >= 0.55), none
        case "cup":
            bowl = (v >= -0.7) & (v <= 0.7) & (np.abs(u + 0.2) <= 0.62 - 0.12 * v)
            handle = _disc(u, v, 0.5, -0.05, 0.45) & ~_disc(u, v, 0.5, -0.05, 0.24) & (u > 0.3)
            return bowl | handle, _box(u, v, -0.85, -0.7, 0.45, -0.5)
    bitmap = np.array([int(c) for c in _FONT[kind]], dtype=bool).reshape(7, 5)
    rows = np.clip(((v + 1) / 2 * 7).astype(int), 0, 6)
    columns = np.floor((u / (5 / 7) + 1) / 2 * 5).astype(int)
    return bitmap[rows, np.clip(columns, 0, 4)] & (np.abs(u) < 5 / 7), none


@lru_cache(maxsize=2048)
def silhouette(kind: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of body and of details, each [size, size] float32 in 0..1 (details lie over the body)."""
    steps = (np.arange(size * _SUPERSAMPLE) + 0.5) / (size * _SUPERSAMPLE) * 2 - 1
    u, v = np.meshgrid(steps, steps)
    body, detail = _shape(kind, u, v)

    def soften(mask: np.ndarray) -> np.ndarray:
        tiles = mask.reshape(size, _SUPERSAMPLE, size, _SUPERSAMPLE)
        return tiles.mean(axis=(1, 3), dtype=np.float32)

    return soften(body | detail), soften(detail)
