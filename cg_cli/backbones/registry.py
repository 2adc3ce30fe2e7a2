"""Model families by name, and by the config.json of a checkpoint. Imports nothing heavy.

A package outside this one adds a family by an entry point ``name = "module:FAMILY"`` of the group ``cg_cli.backbones``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cg_cli.backbones.family import Family
from cg_cli.errors import UsageError
from cg_cli.util.plugins import Entry, Registry

KIND = "backbone"
REGISTRY = Registry(
    kind=KIND,
    group="cg_cli.backbones",
    bundled={
        "qwen2_5_omni": Entry("cg_cli.backbones.qwen2_5_omni:FAMILY", "Qwen2.5-Omni, 3B and 7B"),
        "qwen3_omni": Entry("cg_cli.backbones.qwen3_omni:FAMILY", "Qwen3-Omni, 30B-A3B"),
        "video_salmonn2": Entry("cg_cli.backbones.video_salmonn2:FAMILY", "video-SALMONN 2+, 3B and 7B"),
    },
)


def find(name: str) -> Family:
    """The family ``name``. UsageError for an unknown one."""
    return _load(REGISTRY.find(name))


def families() -> Iterator[Family]:
    """All of them, the bundled ones first. UsageError for one that cannot be imported."""
    return map(_load, REGISTRY.entries().values())


def match(config: Mapping[str, Any]) -> Family:
    """The family of a config.json.

    Raises:
        UsageError: there is none; the message names what is supported.
    """
    known = []
    for family in families():
        if family.matches(config):
            return family
        known.append(family)
    model_type = str(config.get("model_type", ""))
    without = " without sound" if any(model_type in family.model_types for family in known) else ""
    supported = ", ".join(family.supported for family in known)
    raise UsageError(f"model type {model_type or '(none)'}{without} is not supported; supported are: {supported}")


def _load(entry: Entry) -> Family:
    family = entry.load(KIND)
    if not isinstance(family, Family):
        raise UsageError(f"{entry.target} of package {entry.package} is not a cg_cli.backbones.family.Family")
    return family
