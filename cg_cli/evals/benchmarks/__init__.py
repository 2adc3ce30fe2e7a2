"""Published benchmarks by name: annotation files and a folder of videos, as their owners hand them out, become items.

A new one is a module with its ``BENCHMARK`` and a line in REGISTRY; another package brings one by an entry point
``name = "module:BENCHMARK"`` of the group ``cg_cli.benchmarks``. Importing this package imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cg_cli.errors import UsageError
from cg_cli.util.plugins import Entry, Registry

if TYPE_CHECKING:
    from cg_cli.evals.benchmarks.base import Benchmark
    from cg_cli.questions import Collected
    from cg_cli.settings.resolve import Settings

REGISTRY = Registry(
    kind="benchmark",
    group="cg_cli.benchmarks",
    bundled={
        "worldsense": Entry(
            "cg_cli.evals.benchmarks.worldsense:BENCHMARK", "sound and picture of everyday videos (arXiv 2502.04326)"
        ),
        "daily-omni": Entry(
            "cg_cli.evals.benchmarks.daily_omni:BENCHMARK", "videos of 30 and 60 s with sound (arXiv 2505.17862)"
        ),
        "video-mme": Entry(
            "cg_cli.evals.benchmarks.video_mme:BENCHMARK", "videos up to an hour, without subtitles (arXiv 2405.21075)"
        ),
        "avut": Entry(
            "cg_cli.evals.benchmarks.avut:BENCHMARK", "what only the sound of a video tells (arXiv 2503.19951)"
        ),
        "omnivideobench": Entry(
            "cg_cli.evals.benchmarks.omnivideobench:BENCHMARK",
            "sound and picture of videos up to half an hour (arXiv 2510.10689)",
        ),
        "video-holmes": Entry(
            "cg_cli.evals.benchmarks.video_holmes:BENCHMARK", "short suspense films (arXiv 2505.21374)"
        ),
    },
)


def find(name: str) -> Benchmark:
    """The benchmark ``name``. UsageError for an unknown one, or a plug-in that is no Benchmark."""
    from cg_cli.evals.benchmarks.base import Benchmark

    entry = REGISTRY.find(name)
    benchmark = entry.load(REGISTRY.kind)
    if not isinstance(benchmark, Benchmark):
        raise UsageError(
            f"{entry.target} of package {entry.package} is not an instance of cg_cli.evals.benchmarks.base.Benchmark"
        )
    return benchmark


def collect(name: str, data: Path | None, settings: Settings) -> Collected:
    """The questions of benchmark ``name``, each with its choices, the letter that is expected, and our set-up.

    Args:
        data: its folder, or one of its annotation files, beside which the videos are.
        settings: go into the set-up.

    Raises:
        UsageError: an unknown name, no annotation file, or one in another layout.
    """
    benchmark = find(name)
    if data is None:
        raise UsageError(
            f"--benchmark {name}: give its folder with --data DIR (from {benchmark.source}, with {benchmark.layout})"
        )
    return benchmark.collect(data, settings)
