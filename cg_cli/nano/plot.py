"""One plot as an SVG file: accuracy against keep, a line a pruner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 48, 52  # margins; the names stand on the right
COLOURS = ("#0b6e4f", "#3aa17e", "#8a8a8a", "#c08a2d", "#b5483a", "#5b5ea6", "#2b2b2b")


def accuracy_plot(curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> str:
    """SVG text of lines through (keep, accuracy in percent), from keep 0 to 1."""
    values = [y for points in curves.values() for _, y in points]
    low, high = 10 * int(min(values) / 10), 10 * -int(-max(values) // 10)
    x_of = lambda keep: LEFT + keep * (WIDTH - LEFT - RIGHT)  # noqa: E731
    y_of = lambda value: TOP + (high - value) / max(high - low, 10) * (HEIGHT - TOP - BOTTOM)  # noqa: E731
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="26" font-size="15">{escape(title)}</text>',
    ]
    for value in range(low, high + 1, 10):
        out.append(f'<path d="M{LEFT} {y_of(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y_of(value) + 4:.1f}" text-anchor="end">{value} %</text>')
    for keep in sorted({keep for points in curves.values() for keep, _ in points}):
        out.append(f'<path d="M{x_of(keep):.1f} {HEIGHT - BOTTOM}v5" stroke="#555"/>')
        out.append(f'<text x="{x_of(keep):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" font-size="11">{keep:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">share of audio and video tokens kept</text>')
    labels = _apart({name: y_of(min(points)[1]) for name, points in curves.items()})
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y in sorted(points))
        dots = "".join(f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3"/>' for x, y in points)
        out.append(f'<g fill="{colour}"><path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}')
        out.append(f'<text x="{WIDTH - RIGHT + 34}" y="{labels[name] + 4:.1f}">{escape(name)}</text>')
        out.append(f'<circle cx="{WIDTH - RIGHT + 22}" cy="{labels[name]:.1f}" r="5"/></g>')
    return "\n".join([*out, "</svg>\n"])


def _apart(heights: Mapping[str, float], gap: float = 20) -> dict[str, float]:
    """The heights, pushed down where two are less than ``gap`` apart."""
    out: dict[str, float] = {}
    last = -gap
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        last = out[name] = max(height, last + gap)
    return out
