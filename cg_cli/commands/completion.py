"""What a shell may complete an open option's value with; closed ones complete themselves. Each imports what it needs
when asked."""

from __future__ import annotations


def names(kind: str) -> list[str]:
    """All names of a kind (a function below), apart from "auto"."""
    values = globals()[kind]("")
    return [name for name in (value if isinstance(value, str) else value[0] for value in values) if name != "auto"]


def models(incomplete: str) -> list[str]:
    from cg_cli.settings.models import AUTO, KNOWN

    return [name for name in (AUTO, *KNOWN) if name.startswith(incomplete)]


def presets(incomplete: str) -> list[str]:
    from cg_cli.settings.presets import names

    return [name for name in names() if name.startswith(incomplete)]


def pruners(incomplete: str) -> list[tuple[str, str]]:
    from cg_cli.pruning.registry import known

    return [(name, entry.summary) for name, entry in known().items() if name.startswith(incomplete)]


def benchmarks(incomplete: str) -> list[tuple[str, str]]:
    from cg_cli.evals.benchmarks import REGISTRY

    return [(name, entry.summary) for name, entry in REGISTRY.entries().items() if name.startswith(incomplete)]


def devices(incomplete: str) -> list[str]:
    return [name for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:1", "mps") if name.startswith(incomplete)]


def predictors(incomplete: str) -> list[str]:
    from cg_cli.predictors import installed, sources

    names = ("auto", *sources.known(), *(predictor.name for predictor in installed.installed_predictors()))
    return [name for name in names if name.startswith(incomplete)]
