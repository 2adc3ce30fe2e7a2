"""Omni-LLM families, a folder each, found by a checkpoint's config.json.

A new family is a ``Family`` (``family``) and its ``Backbone`` (``base``), in a folder here and the table of
``registry``, or in a package with an entry point. Importing this package imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cg_cli.backbones import registry
from cg_cli.errors import UsageError

if TYPE_CHECKING:
    from cg_cli.backbones.base import Backbone
    from cg_cli.backbones.family import Family


def load(
    path_or_id: str,
    *,
    device: str,
    dtype: str,
    offline: bool,
    revision: str | None = None,
    quantize: str = "none",
    positions: str = "auto",
    adapter: str | None = None,
    towers_only: bool = False,
) -> Backbone:
    """Load a model.

    Args:
        path_or_id: a local directory, or ``owner/name`` on the Hugging Face hub.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1" ...
        dtype: "auto" (bfloat16 on CUDA, float32 elsewhere), "float32", "bfloat16" or "float16".
        offline: use only what is on this machine.
        revision: hub branch, tag or commit.
        quantize: "none", or "int8" or "int4" for the language model's weights (bitsandbytes).
        positions: one of ``Family.positions``, or "auto" for the family's usual set.
        adapter: a LoRA adapter to merge into it: a directory, or ``owner/name`` on the hub (peft).
        towers_only: for ``encode`` alone: the layers of the language model are not loaded; not with ``adapter``.

    Raises:
        UsageError: no such model, an unsupported one, an incomplete one, or one that does not fit the device; what
            cannot work is refused before weights are fetched.
    """
    from cg_cli.backbones import adapter as adapters
    from cg_cli.backbones import checkpoint

    adapters.check(adapter, quantize)
    check(device, dtype, quantize)
    merged = None if adapter is None else adapters.find(adapter, offline=offline)
    files = checkpoint.find(
        path_or_id, offline=offline, revision=revision, check=lambda family: _check(family, quantize, positions)
    )
    from cg_cli.backbones.loading import quiet_transformers

    family = registry.match(files.config)
    files = files.with_adapter(merged) if merged else replace(files, towers_only=towers_only)
    with quiet_transformers():
        backbone = family.load_class().load(files, device=device, dtype=dtype, quantize=quantize)
    backbone.positions = family.choose_positions(positions)
    if merged:
        if backbone.adapter is None:
            raise UsageError(f"--adapter: {family.name} merges no adapters; use a checkpoint that has it merged")
        backbone.warnings = (*backbone.warnings, *merged.warnings(path_or_id))
    return backbone


def fetch(
    path_or_id: str, *, quantize: str, tell: Callable[[str], None], positions: str = "auto", adapter: str | None = None
) -> None:
    """Have what ``load`` needs on this machine; imports no torch. UsageError as for ``load``, and for want of room.

    Args:
        tell: told how much is downloaded, and to where, before that begins.
    """
    from cg_cli.backbones import adapter as adapters
    from cg_cli.backbones import checkpoint

    adapters.check(adapter, quantize)
    if adapter is not None:
        adapters.find(adapter, offline=False)
    checkpoint.fetch(path_or_id, check=lambda family: _check(family, quantize, positions), tell=tell)


def check(device: str, dtype: str, quantize: str) -> None:
    """UsageError for what no model can be loaded with on this machine."""
    from cg_cli.backbones.device import check_quantize, resolve_device, resolve_dtype

    resolve_dtype(dtype, resolve_device(device))
    check_quantize(quantize, device)


def _check(family: Family, quantize: str, positions: str) -> None:
    """UsageError where ``quantize`` or ``positions`` is nothing for ``family``."""
    if quantize != "none" and family.not_quantizable:
        raise UsageError(f"--quantize {quantize}: {family.not_quantizable}; leave it out")
    family.choose_positions(positions)


def find_class(path_or_id: str, *, offline: bool) -> type[Backbone]:
    """The class of a model, for which no weights are read. UsageError as for ``load``."""
    from cg_cli.backbones import checkpoint

    return registry.match(checkpoint.find_config(path_or_id, offline=offline)).load_class()


def inspect_config(
    path_or_id: str, *, offline: bool, revision: str | None = None, adapter: str | None = None
) -> tuple[type[Backbone], str]:
    """The class and the revision of a model with ``adapter``, from its config.json alone. UsageError as for
    ``load``."""
    from cg_cli.backbones import adapter as adapters
    from cg_cli.backbones import checkpoint

    config, commit = checkpoint.inspect_config(path_or_id, offline=offline, revision=revision)
    if adapter is not None:
        commit = checkpoint.joint_revision(commit, adapters.find(adapter, offline=offline))
    return registry.match(config).load_class(), commit


def inspect_answering(path_or_id: str, *, offline: bool, positions: str) -> tuple[float, str | None]:
    """The repetition penalty that a model answers with, and which set of positions "auto" or another name of one means
    for it; no weights are read. UsageError as for ``load``."""
    from cg_cli.backbones import checkpoint

    family = registry.match(checkpoint.find_config(path_or_id, offline=offline))
    settings = checkpoint.inspect_generation(path_or_id, offline=offline)
    return settings.repetition_penalty, family.choose_positions(positions)


def random_init(
    family: str,
    size: str,
    layers: int | None,
    *,
    device: str,
    dtype: str,
    tokenizer: Path,
    positions: str = "auto",
) -> Backbone:
    """A model of ``family`` in a built-in size with random weights, with at most ``layers`` layers in each part.

    Args:
        tokenizer: directory of a tokenizer for it; special tokens that it lacks are added.

    Raises:
        UsageError: no such family, or it does not fit the device.
    """
    from cg_cli.backbones.loading import quiet_transformers

    with quiet_transformers():
        found = registry.find(family)
        chosen, backbone_class = found.choose_positions(positions), found.load_class()
        backbone = backbone_class.random_init(size, layers, device=device, dtype=dtype, tokenizer=tokenizer)
    backbone.positions = chosen
    backbone.id = f"random {family} {size}"
    backbone.revision = f"random-{family}-{size}-{layers or 'all'}"
    return backbone
