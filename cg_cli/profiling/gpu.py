"""Everything that only a GPU can tell, in one run of a few minutes.

``python -m cg_cli.profiling.gpu`` takes real models' shapes with random weights, for which nothing is downloaded, and
measures what the card does at best; what pruning saves of prefill and to the first token, against what the FLOPs
promise; tokens a second with several clips in flight; the towers; and a folder of clips from file to answers. Every
section begins with a warm-up, waits for the device, and takes medians.

Time on a borrowed card is short: the run ends with ``--budget``. A section that no longer fits is left out, one that
runs over is broken off and keeps what it has, one that fails costs the others nothing, and all of that is said. After
each section ``--out`` has what was measured so far. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console, RenderableType
from rich.table import Table

from cg_cli import __version__
from cg_cli.backbones.base import Backbone
from cg_cli.backbones.device import resolve_device, resolve_dtype
from cg_cli.engine import memory
from cg_cli.engine.metrics import device_name, dtype_name
from cg_cli.profiling import gpu_folder, gpu_model
from cg_cli.profiling.roofline import roofline
from cg_cli.settings import models
from cg_cli.util.atomic import write_atomic
from cg_cli.util.format import count, duration
from cg_cli.util.text import one_line

T = TypeVar("T")

# Seconds without which a section is not begun: about half of what it takes at full size on a large card.
LEAST_S = {"roofline": 2, "load": 10, "prefill": 15, "decode": 10, "towers": 3, "folder": 15}
MODEL_SECTIONS = {
    "prefill": (gpu_model.prefill, gpu_model.prefill_table),
    "decode": (gpu_model.decode, gpu_model.decode_table),
}
# Of the first model alone: the others' towers are much the same.
FIRST_SECTIONS = {"towers": (gpu_model.towers, gpu_model.towers_table)}
WIDTH = 120  # columns of what is printed


class OutOfTime(BaseException):
    """The budget is used up. No Exception, or a stage of the pipeline would take it for a fault of a clip."""


class Check:
    """The sections of one run, and what they found.

    Attributes:
        result: the JSON document; ``sections`` are the figures of each that was begun, and ``left_out`` says why those
            are missing or not whole that are.
    """

    def __init__(self, budget_s: float, out: Path, facts: dict[str, Any]):
        self.ends = time.monotonic() + budget_s
        self.out = out
        self.console = Console(width=WIDTH, record=True)
        self.result: dict[str, Any] = {**facts, "budget_s": budget_s, "sections": {}, "left_out": {}}

    def section(
        self,
        name: str,
        least_s: float,
        work: Callable[[dict[str, Any]], T],
        show: Callable[[dict[str, Any]], RenderableType],
    ) -> T | None:
        """What ``work`` returns; None if it was not begun, broken off, or failed.

        Args:
            work: fills the figures it is given as it goes, so that those count which it had when it was broken off.
            show: the figures for people.
        """
        left = self.ends - time.monotonic()
        if left < least_s:
            self.leave_out(name, f"left out: takes {least_s:g} s or more, and {max(left, 0):.1f} s are left")
            return None
        figures: dict[str, Any] = {}
        self.result["sections"][name] = figures
        done, began = None, time.monotonic()
        try:
            with _alarm(left):
                done = work(figures)
        except OutOfTime:
            self.leave_out(name, "broken off: the budget is used up")
        except Exception as error:
            traceback.print_exc()  # a card may be gone before anybody can look again
            self.leave_out(name, f"failed: {type(error).__name__}: {one_line(error)}")
        self.console.print(f"\n{name}: {duration(time.monotonic() - began)}", highlight=False)
        if figures:
            self.console.print(show(figures), highlight=False)
        self.save()
        return done

    def leave_out(self, name: str, why: str) -> None:
        """Say that there is nothing, or not all, of a section."""
        self.result["left_out"][name] = why
        self.console.print(f"\n{name}: {why}", highlight=False, soft_wrap=True)
        self.save()

    def save(self) -> None:
        """Have everything so far on the disk."""
        write_atomic(self.out / "gpu.json", json.dumps(self.result, indent=1) + "\n")
        write_atomic(self.out / "gpu.txt", self.console.export_text(clear=False))


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """OutOfTime in the block, once it has taken so many seconds."""

    def ring(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def facts(device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    cuda = device.type == "cuda"
    return {
        "card": device_name(device),
        "card_bytes": torch.cuda.get_device_properties(device).total_memory if cuda else None,
        "dtype": dtype_name(resolve_dtype("auto", device)),
        "layers": options.layers,
        "clip_s": options.seconds,
        "repeat": options.repeat,
        "versions": {
            "cg": __version__,
            "cuda": torch.version.cuda,
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        },
    }


def load(name: str, layers: int | None, device: torch.device) -> Backbone:
    """Random weights in the shape of ``name``, with at most ``layers`` layers in each part; the bundled model as it
    is."""
    how: dict[str, Any] = {"device": str(device), "dtype": "auto"}
    if models.KNOWN[name].shape:
        return models.random_init(name, layers, **how)
    return models.load(name, offline=True, **how)


def check_model(check: Check, name: str, options: argparse.Namespace, device: torch.device, *, first: bool) -> None:
    """The sections of one model, which is gone afterwards; the ``first`` one has more of them."""

    def timed_load(figures: dict[str, Any]) -> Backbone:
        began = time.perf_counter()
        backbone = load(name, options.layers, device)
        figures["seconds"] = time.perf_counter() - began
        return backbone

    backbone = check.section(f"{name} load", LEAST_S["load"], timed_load, lambda figures: "ready")
    if backbone is None:
        return
    sections = MODEL_SECTIONS | FIRST_SECTIONS if first else MODEL_SECTIONS
    for section, (measure, show) in sections.items():
        work = partial(measure, backbone, options.seconds, options.repeat)
        check.section(f"{name} {section}", LEAST_S[section], work, show)
        memory.release(device)
    if not first:
        return
    why = gpu_folder.missing()
    if why:
        check.leave_out(f"{name} folder", why)
        return
    work = partial(gpu_folder.folder, backbone, options.seconds, options.clips)
    check.section(f"{name} folder", LEAST_S["folder"], work, gpu_folder.table)


def roofline_line(figures: dict[str, Any]) -> str:
    """For people."""
    matrix, copy = count(figures["flops_per_s"], "FLOP/s"), count(figures["bytes_per_s"], "B/s")
    return f"matrix product {matrix}, copy {copy}"


def summary(result: dict[str, Any]) -> Table:
    """One line a section, for the end."""
    sections = result["sections"]
    table = Table(title=f"{result['card']}, {result['dtype']}", title_justify="left", show_header=False)
    lines = {"prefill": gpu_model.prefill_line, "decode": gpu_model.decode_line, "towers": gpu_model.towers_line}
    lines |= {"folder": gpu_folder.line, "roofline": roofline_line}
    for name, figures in sections.items():
        line = lines.get(name.rpartition(" ")[2])
        if line and figures:
            table.add_row(name, line(figures))
    for name, why in result["left_out"].items():
        table.add_row(name, why)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.profiling.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=240.0, help="seconds in all")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder of gpu.json and gpu.txt")
    parser.add_argument("--model", nargs="+", default=["qwen2.5-omni-7b", "qwen2.5-omni-3b"], choices=models.KNOWN)
    parser.add_argument("--layers", type=int, help="of each part, at most; not of nano, which has its own weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a clip")
    parser.add_argument("--clips", type=int, default=8, help="of the folder")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    options = parser.parse_args()
    device = resolve_device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    check = Check(options.budget, options.out, facts(device, options))
    check.console.print(f"{check.result['card']}, {check.result['dtype']}", highlight=False)
    dtype = resolve_dtype("auto", device)
    check.section(
        "roofline", LEAST_S["roofline"], lambda figures: figures.update(roofline(device, dtype)), roofline_line
    )
    memory.release(device)
    for number, name in enumerate(options.model):
        check_model(check, name, options, device, first=number == 0)
        memory.release(device)
    check.result["seconds"] = time.monotonic() - began
    check.console.print()
    check.console.print(summary(check.result), highlight=False)
    check.save()
    print(json.dumps(check.result))


if __name__ == "__main__":
    main()
