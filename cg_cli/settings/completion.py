"""What a shell may complete an option's value with. Each imports what it needs only when asked."""

from __future__ import annotations


def models(incomplete: str) -> list[str]:
    from cg_cli.settings.models import AUTO, KNOWN

    return [name for name in (AUTO, *KNOWN) if name.startswith(incomplete)]


def presets(incomplete: str) -> list[str]:
    from cg_cli.settings.presets import names

    return [name for name in names() if name.startswith(incomplete)]


def pruners(incomplete: str) -> list[tuple[str, str]]:
    from cg_cli.pruning.registry import known

    return [(name, entry.summary) for name, entry in known().items() if name.startswith(incomplete)]


def benchmarks(incomplete: str) -> list[str]:
    from cg_cli.evals.benchmarks import NAMES

    return [name for name in NAMES if name.startswith(incomplete)]


def devices(incomplete: str) -> list[str]:
    return [name for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:1", "mps") if name.startswith(incomplete)]


def dtypes(incomplete: str) -> list[str]:
    return [name for name in ("auto", "float32", "bfloat16", "float16") if name.startswith(incomplete)]


def predictors(incomplete: str) -> list[str]:
    from cg_cli.predictors import installed, sources

    names = ("auto", *sources.known(), *(predictor.name for predictor in installed.installed_predictors()))
    return [name for name in names if name.startswith(incomplete)]


def quantize(incomplete: str) -> list[str]:
    return [name for name in ("none", "int8", "int4") if name.startswith(incomplete)]
