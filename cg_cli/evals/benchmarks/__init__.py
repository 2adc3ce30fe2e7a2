"""Published benchmarks by name: annotation files and a folder of videos, as their owners hand them out, become items.

A new one is a file with its ``BENCHMARK`` and its name in NAMES. Importing this package imports nothing heavy.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from cg_cli.errors import UsageError
from cg_cli.questions import Collected
from cg_cli.settings.resolve import Settings
from cg_cli.util.text import closest

NAMES = ("worldsense", "daily-omni", "video-mme", "avut", "omnivideobench", "video-holmes")


def collect(name: str, data: Path | None, settings: Settings) -> Collected:
    """The questions of benchmark ``name``, each with its choices, the letter that is expected, and our set-up.

    Args:
        data: its folder, or one of its annotation files, beside which the videos are.
        settings: go into the set-up.

    Raises:
        UsageError: an unknown name, no annotation file, or one in another layout.
    """
    if name not in NAMES:
        raise UsageError(f"no benchmark '{name}'{closest(name, NAMES)}; known: {', '.join(NAMES)}")
    benchmark = importlib.import_module(f".{name.replace('-', '_')}", __name__).BENCHMARK
    if data is None:
        raise UsageError(
            f"--benchmark {name}: give its folder with --data DIR (from {benchmark.source}, with {benchmark.layout})"
        )
    return benchmark.collect(data, settings)
