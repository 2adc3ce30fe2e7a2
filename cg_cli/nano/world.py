"""Write clips of the nano world as files: ``python -m cg_cli.nano.world --seed 7 --count 10 --out DIR``.

DIR gets ``clip-0000.mp4`` ... (H.264 and AAC, 25 frames a second, 224 x 224) and ``labelled.jsonl``, one question a
line: video (relative to the file), question, answer, choices, category, id. The same seed gives the same bytes on one
machine. Training uses the seeds below 100; anything at or above is held out.

``--joined N`` makes each file a film of N clips one after another, with questions that have one right answer over all
of it (``joined``). ``--world ambience`` writes clips of the world of surfaces instead (``ambience.script``).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cg_cli.nano.joined import film_questions, join
from cg_cli.nano.questions import Question
from cg_cli.nano.render import FPS
from cg_cli.nano.sounds import RATE
from cg_cli.nano.things import FRAME
from cg_cli.nano.worlds import CATEGORIES, THINGS, WORLDS, Script, World

HELD_OUT = 100  # first world seed that training never sees
_AUDIO_FRAME = 1024  # samples of an AAC frame

Ask = Callable[[Any], Sequence[Question]]


def write_clip(script: Script, path: Path, world: World = THINGS) -> None:
    """Write the clip of ``script``, of ``world``, as an MP4."""
    import av

    sound = world.soundtrack(script)
    with av.open(str(path), "w", format="mp4") as file:
        video = file.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast", "threads": "1"})
        video.width = video.height = FRAME
        video.pix_fmt = "yuv420p"
        audio = file.add_stream("aac", rate=RATE, layout="mono")
        audio.bit_rate = 96_000
        for index in range(script.duration * FPS):
            frame = av.VideoFrame.from_ndarray(world.picture(script, index / FPS), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            file.mux(video.encode(frame))
        for start in range(0, len(sound), _AUDIO_FRAME):
            piece = np.ascontiguousarray(sound[None, start : start + _AUDIO_FRAME])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            file.mux(audio.encode(frame))
        file.mux(video.encode(None))
        file.mux(audio.encode(None))


def sample_questions(script: Script, ask: Ask = THINGS.questions) -> list[Question]:
    """The questions of a clip that go into ``labelled.jsonl``: one of each category that ``ask`` has, picked at
    random."""
    rng = np.random.default_rng([script.seed, script.index, 5])
    pool = ask(script)
    by_category = [[q for q in pool if q.category == name] for name in CATEGORIES]
    return [same[int(rng.integers(len(same)))] for same in by_category if same]


def labels(script: Script, video: str, ask: Ask = THINGS.questions) -> list[dict]:
    """The lines of ``labelled.jsonl`` for one clip, of what ``ask`` asks about it."""
    rng = np.random.default_rng([script.seed, script.index, 6])
    return [
        {
            "video": video,
            "question": question.text(rng),
            "answer": question.answer,
            "choices": question.choices(rng),
            "category": question.category,
            "type": question.phrase,
            "id": f"{script.seed}-{script.index}-{question.category}",
        }
        for question in sample_questions(script, ask)
    ]


def _make(world: str, seed: int, out: Path, longest: int, joined: int, index: int) -> list[dict]:
    kind = WORLDS[world]
    parts = [kind.write_script(seed, index * joined + part, longest) for part in range(joined)]
    script, ask = (parts[0], kind.questions) if joined == 1 else (join(parts, index), film_questions)
    name = f"clip-{index:04d}.mp4"
    write_clip(script, out / name, kind)
    return labels(script, name, ask)


def write_world(
    seed: int, count: int, out: Path, longest: int | None = None, joined: int = 1, world: World = THINGS
) -> Path:
    """Write ``count`` clips of ``world`` with ``seed``, or films of ``joined`` clips each, and their questions to
    ``out``; returns the path of ``labelled.jsonl``. No clip is longer than ``longest`` seconds (None: the world's own
    limit). ValueError for films of a world that is not THINGS."""
    if joined > 1 and world is not THINGS:
        raise ValueError(f"films are of the world {THINGS.name}, not {world.name}")
    longest = longest or world.seconds[1]
    out.mkdir(parents=True, exist_ok=True)
    # Not forked: this process may have threads of torch, whose locks a fork would copy as they are.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        lines = list(pool.map(partial(_make, world.name, seed, out, longest, joined), range(count), chunksize=4))
    labelled = out / "labelled.jsonl"
    labelled.write_text("".join(json.dumps(row) + "\n" for rows in lines for row in rows), encoding="utf-8")
    return labelled


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.nano.world", description=__doc__)
    parser.add_argument(
        "--seed", type=int, required=True, help=f"of the world; from {HELD_OUT} on, training never saw it"
    )
    parser.add_argument("--count", type=int, required=True, help="clips")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--world", choices=WORLDS, default=THINGS.name)
    parser.add_argument("--longest", type=int, help="seconds of the longest clip")
    parser.add_argument("--joined", type=int, default=1, help="clips of a film, one after another")
    options = parser.parse_args()
    if options.joined > 1 and options.world != THINGS.name:
        parser.error(f"--joined: films are of the world {THINGS.name}")
    world = WORLDS[options.world]
    print(write_world(options.seed, options.count, options.out, options.longest, options.joined, world))


if __name__ == "__main__":
    main()
