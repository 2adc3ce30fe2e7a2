"""Four minutes that differ in how often they repeat themselves: slides, a terminal, a fixed camera and film.

``python -m cg_cli.profiling.footage --out DIR`` writes one clip each, of the same pictures and sound in every run. What
a pruner, fewer frames or looking once save on such clips is what they may save on real ones of their kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cg_cli.media.clip import SAMPLE_RATE
from cg_cli.profiling.synthetic import FPS, SOURCE, save

WIDTH, HEIGHT = SOURCE
LETTERS = "abcdefghijklmnopqrstuvwxyz     "
NOISE = np.random.default_rng(9).standard_normal((HEIGHT + 256, WIDTH + 256)).astype(np.float32)

Pictures = Iterator[np.ndarray]  # [HEIGHT, WIDTH, 3] uint8 each


def slides(rng: np.random.Generator, count: int) -> Pictures:
    """A slide for six seconds, with a mouse pointer that moves during one of them on every other slide."""
    pointer = np.array([900.0, 500.0])
    for number in range(count):
        slide, at = divmod(number, 6 * FPS)
        if at == 0:
            page = Image.new("RGB", (WIDTH, HEIGHT), (250, 250, 247))
            draw = ImageDraw.Draw(page)
            draw.rectangle((0, 0, WIDTH, 110), fill=tuple(rng.integers(20, 120, 3).tolist()))
            draw.text((60, 25), _words(rng, 24).title(), "white", ImageFont.load_default(52))
            for line in range(rng.integers(3, 6)):
                draw.text((90, 160 + 70 * line), f"-  {_words(rng, 30)}", "black", ImageFont.load_default(32))
            for bar, size in enumerate(rng.integers(40, 400, 5).tolist()):
                draw.rectangle((860 + 70 * bar, 640 - size, 910 + 70 * bar, 640), fill=(60, 110, 60 + 30 * bar))
            step = rng.uniform(-250, 250, 2) / FPS if slide % 2 else np.zeros(2)
        if 2 * FPS <= at < 3 * FPS:
            pointer = np.clip(pointer + step, 60, (WIDTH - 60, HEIGHT - 60))
        picture = page.copy()
        shape = [tuple(pointer.round() + side) for side in ((0, 0), (0, 26), (18, 18))]
        ImageDraw.Draw(picture).polygon(shape, "black", "white")
        yield np.asarray(picture)


def terminal(rng: np.random.Generator, count: int) -> Pictures:
    """Lines of text that scroll in bursts, one a frame, and a cursor that blinks twice a second in between."""
    font, high = ImageFont.load_default(18), 24
    screen, left, wait = Image.new("RGB", (WIDTH, HEIGHT), (16, 18, 24)), 28, 0
    for number in range(count):
        if not left:
            wait, left = int(rng.integers(2 * FPS, 7 * FPS)), int(rng.integers(3, 60))
        wait, left = (wait - 1, left) if wait else (0, left - 1)
        if not wait:
            screen.paste(screen.crop((0, high, WIDTH, HEIGHT)))
            draw = ImageDraw.Draw(screen)
            draw.rectangle((0, HEIGHT - 2 * high, WIDTH, HEIGHT), fill=(16, 18, 24))
            text = f"{number:06d}  {_words(rng, int(rng.integers(10, 90)))}"
            draw.text((12, HEIGHT - 2 * high), text, (190, 220 - 60 * (number % 5 == 0), 190), font)
        picture = screen.copy()
        if number % (FPS // 2) < FPS // 4:
            ImageDraw.Draw(picture).rectangle((12, HEIGHT - high, 23, HEIGHT - 4), fill=(190, 220, 190))
        yield np.asarray(picture)


def camera(rng: np.random.Generator, count: int) -> Pictures:
    """A yard that a fixed camera looks at, with sensor noise, which somebody crosses every twelve seconds."""
    yard = _surface(rng, 120, WIDTH, HEIGHT)
    draw = ImageDraw.Draw(yard)
    draw.rectangle((0, 470, WIDTH, HEIGHT), fill=(96, 96, 92))
    for left in range(80, WIDTH, 300):
        draw.rectangle((left, 160, left + 130, 330), fill=(60, 70, 90), outline=(200, 200, 190), width=6)
    for number in range(count):
        picture = yard.copy()
        since = number % (12 * FPS) - 5 * FPS
        if 0 <= since < 4 * FPS:
            x = -80 + since * (WIDTH + 160) / (4 * FPS)
            draw = ImageDraw.Draw(picture)
            draw.ellipse((x - 18, 360, x + 18, 410), fill=(150, 110, 90))
            draw.rectangle((x - 28, 408, x + 28, 560), fill=(40, 50, 120))
        yield _grain(rng, picture, 5.0)


def film(rng: np.random.Generator, count: int) -> Pictures:
    """Shots of two to five seconds in which the camera pans and zooms over a scene where things move, with grain."""
    end = 0
    for number in range(count):
        if number == end:
            start, end = number, number + int(rng.integers(2 * FPS, 5 * FPS))
            scene = _surface(rng, rng.uniform(60, 170), 1920, 1080)
            corner, pan = rng.uniform((100, 60), (400, 220)), rng.uniform(-3, 3, 2)
            zoom, things = rng.uniform(-0.0015, 0.0015), rng.uniform(-6, 6, (4, 2))
            places, colours = rng.uniform((300, 200), (1600, 900), (4, 2)), rng.integers(0, 255, (4, 3)).tolist()
        at = number - start
        shot = scene.copy()
        for place, radius, colour in zip(places + at * things, (60, 90, 120, 150), colours):
            ImageDraw.Draw(shot).ellipse((*(place - radius), *(place + radius)), fill=tuple(colour))
        size = np.array(SOURCE) * (1 + zoom * at)
        begin = np.clip(corner + at * pan, 0, np.array((1920, 1080)) - size)
        box = (*begin, *(begin + size))
        yield _grain(rng, shot.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box), 4.0)


KINDS = {"slides": slides, "terminal": terminal, "camera": camera, "film": film}


def _words(rng: np.random.Generator, length: int) -> str:
    return "".join(rng.choice(list(LETTERS), length)).strip()


def _surface(rng: np.random.Generator, brightness: float, width: int, height: int) -> Image.Image:
    """A picture with large and small shapes, mostly grey: noise at five scales, the coarser the stronger."""
    total = np.full((height, width, 3), brightness, dtype=np.float32)
    for scale in (4, 12, 40, 120, 360):
        colour = rng.standard_normal((height // scale + 2, width // scale + 2, 3))
        noise = (colour[..., :1] + 0.3 * colour) * 5 * scale**0.35
        small = Image.fromarray(np.clip(noise + 128, 0, 255).astype(np.uint8))
        total += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) - 128
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def _grain(rng: np.random.Generator, picture: Image.Image, levels: float) -> np.ndarray:
    """A picture with noise of ``levels`` of 255, other noise in every frame."""
    x, y = rng.integers(0, 256, 2)
    noise = (NOISE[y : y + HEIGHT, x : x + WIDTH] * levels).astype(np.int16)[..., None]
    return np.clip(np.asarray(picture, dtype=np.int16) + noise, 0, 255).astype(np.uint8)


def write(path: Path, kind: str, seconds: float) -> None:
    """An MP4 of a kind of KINDS, H.264 and AAC, with a murmur for sound."""
    rng = np.random.default_rng(list(KINDS).index(kind))
    time, beats = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE, np.arange(0, seconds + 1, 0.2)
    loud = np.interp(time, beats, rng.random(len(beats)))
    sound = loud * (0.1 * np.sin(2 * np.pi * 140 * time) + 0.03 * rng.standard_normal(len(time)))
    save(path, KINDS[kind](rng, round(seconds * FPS)), sound.astype(np.float32), crf="23", preset="veryfast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each clip (default: 60)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        write(arguments.out / f"{kind}.mp4", kind, arguments.seconds)
        print(arguments.out / f"{kind}.mp4")


if __name__ == "__main__":
    main()
