"""Line plots as SVG text, readable in a paper: a colour and a label for each curve, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 72, 200, 48, 52  # margins; the labels are on the right
TICKS = 6  # of the y axis, about
COLOURS = (
    "#0b6e4f", "#3aa17e", "#8a8a8a", "#c08a2d", "#b5483a", "#5b5ea6", "#2b2b2b", "#c2649a", "#3f8fbf", "#7a9a2e",
    "#8c5a3c", "#19a3a3", "#a83ab8", "#e07b39",
)  # fmt: skip

Scale = Callable[[float], float]  # from a value to pixels
Point = tuple[float, ...]  # x, y, and optionally the ends of the interval of y


def accuracy_plot(curves: Mapping[str, Sequence[Point]], title: str) -> str:
    """Curves of accuracy in percent over keep."""
    return lines(curves, title, "share of audio and video tokens kept", "right answers, %")


def lines(
    curves: Mapping[str, Sequence[Point]], title: str, x_name: str, y_name: str, x_ticks: Sequence[float] = ()
) -> str:
    """SVG text of curves through points. ``x_ticks`` default to the points' x; the x axis starts at 0 unless the points
    are far from it."""
    points = [point for curve in curves.values() for point in curve]
    ys = [y for point in points for y in point[1:]]
    step = _step(min(ys), max(ys))
    low, high = step * floor(min(ys) / step), step * max(ceil(max(ys) / step), floor(min(ys) / step) + 1)
    xs = sorted({point[0] for point in points})
    left, right = (min(0, xs[0]) if xs[0] < xs[-1] / 3 or len(xs) == 1 else xs[0]), xs[-1]
    x_of = lambda x: LEFT + (x - left) / ((right - left) or 1) * (WIDTH - LEFT - RIGHT)
    y_of = lambda y: TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        f'<text x="{LEFT}" y="26" font-size="15">{escape(title)}</text>',
    ]
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        out.append(f'<path d="M{LEFT} {y_of(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y_of(value) + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for x in x_ticks or xs:
        out.append(f'<path d="M{x_of(x):.1f} {HEIGHT - BOTTOM}v5" stroke="#555"/>')
        out.append(
            f'<text x="{x_of(x):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" font-size="11">{x:.3g}</text>'
        )
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_name)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(
        f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">{escape(y_name)}</text>'
    )
    labels = _spread_out({name: y_of(min(curve)[1]) for name, curve in curves.items() if curve})
    for number, (name, curve) in enumerate(curves.items()):
        if curve:
            out += _curve(name, curve, COLOURS[number % len(COLOURS)], labels[name], x_of, y_of)
    return "\n".join([*out, "</svg>\n"])


def beside(plots: Sequence[str]) -> str:
    """SVG text of several plots of ``lines``, from left to right."""
    placed = [
        plot.replace("<svg ", f'<svg x="{number * WIDTH}" width="{WIDTH}" height="{HEIGHT}" ', 1)
        for number, plot in enumerate(plots)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(plots) * WIDTH} {HEIGHT}">'
    return "\n".join([head, *placed, "</svg>\n"])


def _curve(name: str, curve: Sequence[Point], colour: str, label: float, x_of: Scale, y_of: Scale) -> list[str]:
    line = "L".join(f"{x_of(x):.1f} {y_of(y):.1f}" for x, y, *_ in sorted(curve))
    dots = "".join(f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3"/>' for x, y, *_ in curve)
    bars = "".join(f"M{x_of(p[0]):.1f} {y_of(p[2]):.1f}V{y_of(p[3]):.1f}" for p in curve if len(p) == 4)
    return [
        f'<g fill="{colour}"><path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}',
        f'<path d="{bars}" stroke="{colour}" opacity="0.4"/>' if bars else "",
        f'<text x="{WIDTH - RIGHT + 34}" y="{label + 4:.1f}">{escape(name)}</text>',
        f'<circle cx="{WIDTH - RIGHT + 22}" cy="{label:.1f}" r="5"/></g>',
    ]


def _step(low: float, high: float) -> float:
    """A round distance between ticks: 1, 2 or 5 times a power of 10."""
    rough = (high - low) / TICKS or abs(high) / TICKS or 1.0
    power = 10 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _spread_out(heights: Mapping[str, float], gap: float = 20) -> dict[str, float]:
    """The heights, pushed down where two are less than ``gap`` apart."""
    out: dict[str, float] = {}
    last = -gap
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        last = out[name] = max(height, last + gap)
    return out
