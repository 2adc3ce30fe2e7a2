"""The section of the GPU check that takes files: a folder of clips from file to answers, pruned and not.

It does in this process what a worker of ``cg batch`` does in its own, since a model with random weights is on no disk
from which a worker could load it: files are decoded ahead by processes of their own, clips are prefilled until a group
of them waits, and their answers are generated together.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.table import Table

from cg_cli import media
from cg_cli.backbones.base import Backbone
from cg_cli.batch.pool import IN_FLIGHT
from cg_cli.engine.attempts import answer_together
from cg_cli.engine.inputs import Sampling
from cg_cli.engine.session import Reading, Session
from cg_cli.profiling import synthetic
from cg_cli.profiling.gpu_model import Figures, decode_options, figures_table, make_pruner
from cg_cli.profiling.throughput import QUESTIONS
from cg_cli.settings.table import NO_PRUNER

RUNS = {"keep 1": (NO_PRUNER, 1.0), "keep 0.45": ("contextguard", 0.45)}
ANSWER = Sampling(max_new_tokens=32)
DECODERS = 4  # processes, at most, that read files ahead

Read = Callable[[Session, Sequence[str]], Iterator[Reading]]


def missing() -> str | None:
    """Why files cannot be written and read here."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        return f"left out: no PyAV ({error})"
    return None


def folder(backbone: Backbone, length_s: float, count: int, figures: Figures) -> None:
    """``clips`` and ``questions`` of each, and by run in ``runs`` the seconds of the folder, those that the model
    waited for a file, and what failed."""
    figures |= {"clips": count, "questions": len(QUESTIONS), "clip_s": length_s, "runs": {}}
    with tempfile.TemporaryDirectory() as directory, _decoders() as read:
        videos = [str(Path(directory, f"clip-{number:03}.mp4")) for number in range(count)]
        synthetic.write(Path(videos[0]), length_s)
        for video in videos[1:]:
            shutil.copyfile(videos[0], video)
        options = decode_options(backbone)
        for name, (pruner, keep) in RUNS.items():
            session = Session(backbone, make_pruner(pruner, backbone), keep, ANSWER, options)
            _answer(session, videos[:1], read)  # warm-up, of decoders too
            figures["runs"][name] = _answer(session, videos, read)


def _answer(session: Session, videos: Sequence[str], read: Read) -> dict[str, Any]:
    """One pass over ``videos``."""
    began, waited, answers = time.perf_counter(), 0.0, 0
    failures: dict[str, None] = {}
    readings = zip(videos, read(session, videos))
    while True:
        group = []
        for _ in range(IN_FLIGHT):
            idle = time.perf_counter()
            got = next(readings, None)
            waited += time.perf_counter() - idle
            if got is None:
                break
            group.append(session.ask(got[0], QUESTIONS, got[1]))
            group[-1].prefill()
        if not group:
            break
        for _, record in answer_together(group):
            # Random weights may end an answer at once, which is no fault here.
            if record.ok or record.error.type == "empty_answer":
                answers += 1
            else:
                failures[record.error.message] = None
    return {
        "seconds": time.perf_counter() - began,
        "waited_s": waited,
        "answers": answers,
        "failures": list(failures),
    }


@contextlib.contextmanager
def _decoders() -> Iterator[Read]:
    """A function that reads files ahead, in processes that leave the model a core."""
    number = max(1, min(DECODERS, (os.cpu_count() or 1) - 1))
    idle: queue.SimpleQueue[media.DecodeWorker] = queue.SimpleQueue()
    workers = [media.DecodeWorker() for _ in range(number)]
    for worker in workers:
        idle.put(worker)
    threads = ThreadPoolExecutor(number)

    def read_one(session: Session, video: str) -> Reading:
        worker = idle.get()
        try:
            return session.read(video, worker.decode)
        finally:
            idle.put(worker)

    try:
        yield lambda session, videos: threads.map(lambda video: read_one(session, video), videos)
    finally:
        threads.shutdown(cancel_futures=True)
        for worker in workers:
            worker.close()


def table(figures: Figures) -> Table:
    """A row a run."""
    title = f"{figures['clips']} clips of {figures['clip_s']:g} s, {figures['questions']} questions each"
    out = figures_table(title, "", "seconds", "faster", "clips a minute", "waited for files", "failed")
    whole_s = figures["runs"].get("keep 1", {}).get("seconds", 0.0)
    for name, run in figures["runs"].items():
        out.add_row(
            name,
            f"{run['seconds']:.2f}",
            f"{whole_s / run['seconds']:.2f} x",
            f"{60 * figures['clips'] / run['seconds']:.1f}",
            f"{run['waited_s'] / run['seconds']:.1%}",
            "; ".join(run["failures"]) or "-",
        )
    return out


def line(figures: Figures) -> str:
    """In a line: the folder whole and pruned."""
    runs = ", ".join(f"{name}: {run['seconds']:.1f} s" for name, run in figures["runs"].items())
    return f"{figures['clips']} clips, {runs}"
