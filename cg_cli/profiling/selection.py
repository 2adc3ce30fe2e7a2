"""``python -m cg_cli.profiling.selection``: what choosing and merging tokens takes, from short clips to hours of video.

Seconds of one CPU thread, whether time a token stays the same as clips get longer, and memory beside the stream. The
tokens are random numbers in the layout of Qwen2.5-Omni, in scenes of ``SCENE_S`` seconds, still but for noise: how long
a scene is decides how many tokens ContextGuard compares.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cg_cli.backbones.device import resolve_dtype
from cg_cli.profiling.overhead import AUDIO_TOKENS_PER_S, ClipShape, random_stream
from cg_cli.profiling.random_predictor import random_predictor
from cg_cli.pruning import registry
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import plan
from cg_cli.pruning.stream import Selection, TokenStream, apply

CPU = torch.device("cpu")
LENGTHS = (5_000, 20_000, 80_000, 500_000)  # 30 s, 2 and 8 minutes, 50 minutes
GRID = (9, 16)  # video tokens of a second: 252 x 448 pixels
SCENE_S = 8
NOISE = 0.3  # of a still token's norm


@dataclass(frozen=True)
class Cost:
    """What a selection took of a stream of ``tokens`` and ``stream_bytes``.

    Attributes:
        seconds: of ``select`` and of ``apply``, medians.
        bytes: the most that tensors took at a time beside the stream, results included, of either.
    """

    pruner: str
    tokens: int
    stream_bytes: int
    seconds: dict[str, float]
    bytes: dict[str, int]

    @property
    def memory_share(self) -> float:
        """The most that either took beside the stream, as a multiple of it."""
        return max(self.bytes.values()) / self.stream_bytes


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is on, as long as they live. What an operation takes for
    itself and gives back is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._counted: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in given:
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._counted:
            self._counted.add(storage)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.live -= size


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that tensors made by ``work`` took at a time, what it returns included."""
    with LiveBytes() as counter:
        result = work()
    del result
    return counter.peak


def scenes(tokens: int, width: int, dtype: torch.dtype) -> TokenStream:
    """About ``tokens`` tokens [L, width] of a video in scenes, and its sound."""
    rows, columns = GRID
    seconds = max(1, round(tokens / (rows * columns + AUDIO_TOKENS_PER_S)))
    stream = random_stream(ClipShape(seconds, rows, columns), width, CPU, dtype)
    still = torch.randn(-(-seconds // SCENE_S), rows * columns, width).to(dtype)
    for scene, picture in enumerate(still):  # scene by scene: the stream may be most of the memory
        video = ((stream.grid >= 0) & (stream.grid // SCENE_S == scene)).nonzero()[:, 0]
        stream.embeddings[video] = NOISE * stream.embeddings[video] + picture.repeat(len(video) // len(picture), 1)
    return stream


def measure(pruner: Pruner, stream: TokenStream, keep: float, repeat: int) -> Cost:
    """Time and memory of ``pruner`` on ``stream``; the time on its own, since counting takes some."""
    budget = plan(stream, keep)
    selection = pruner.select(stream, budget)
    work: dict[str, Callable[[], Selection | TokenStream]] = {
        "select": lambda: pruner.select(stream, budget),
        "apply": lambda: apply(stream, selection),
    }
    seconds = {name: statistics.median(_seconds(run) for _ in range(repeat)) for name, run in work.items()}
    size = {name: peak_bytes(run) for name, run in work.items()}
    return Cost(pruner.name, len(stream), stream.embeddings.nbytes, seconds, size)


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()  # one thread: what other processes take does not count
    work()
    return time.process_time() - started


def pruners() -> list[str]:
    """The bundled pruners that choose before the language model."""
    return [name for name in registry.MANIFEST if name != "none" and registry.make(name).stage == "input"]


def table(costs: Sequence[Cost]) -> Table:
    """One pruner a row: seconds by length, time a token against the shortest, and memory."""
    lengths = sorted({cost.tokens for cost in costs})
    title = "seconds to choose and merge by tokens; time a token, longest : shortest; memory beside the stream"
    out = Table(title=title, title_justify="left")
    for name in ("", *(f"{tokens:,}" for tokens in lengths), "growth", "memory"):
        out.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name in dict.fromkeys(cost.pruner for cost in costs):
        row = sorted((cost for cost in costs if cost.pruner == name), key=lambda cost: cost.tokens)
        total = [sum(cost.seconds.values()) for cost in row]
        growth = total[-1] / row[-1].tokens / (total[0] / row[0].tokens)
        memory = max(cost.memory_share for cost in row)
        out.add_row(name, *(f"{each:.3f}" for each in total), f"{growth:.1f} x", f"{memory:.2f} x")
    return out


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cg_cli.profiling.selection", description=__doc__.partition("\n\n")[2]
    )
    parser.add_argument("--pruners", nargs="+", help="default: all that prune before the language model")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="audio and video tokens, about")
    parser.add_argument("--width", type=int, default=3584, help="of a token (default: that of Qwen2.5-Omni 7B)")
    parser.add_argument("--keep", type=float, default=0.25)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    costs = []
    for tokens in options.lengths:
        torch.manual_seed(0)
        stream = scenes(tokens, options.width, resolve_dtype(options.dtype, CPU))
        for name in options.pruners or pruners():
            pruner = registry.make(name)
            if pruner.needs_predictor:
                pruner = pruner.with_predictor(random_predictor(options.width, CPU))
            costs.append(measure(pruner, stream, options.keep, options.repeat))
    Console(stderr=True).print(table(costs))
    print(json.dumps([asdict(cost) for cost in costs]))


if __name__ == "__main__":
    main()
