"""Omni-LLM families, a folder each, found by a checkpoint's config.json.

A new family is a ``Family`` (``family``) and its ``Backbone`` (``base``), in a folder here and the table of
``registry``, or in a package with an entry point. Importing this package imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cg_cli.backbones import registry
from cg_cli.errors import UsageError

if TYPE_CHECKING:
    from cg_cli.backbones.base import Backbone
    from cg_cli.backbones.family import Family


def load(
    path_or_id: str, *, device: str, dtype: str, offline: bool, revision: str | None = None, quantize: str = "none"
) -> Backbone:
    """Load a model.

    Args:
        path_or_id: a local directory, or ``owner/name`` on the Hugging Face hub.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1" ...
        dtype: "auto" (bfloat16 on CUDA, float32 elsewhere), "float32", "bfloat16" or "float16".
        offline: use only what is on this machine.
        revision: hub branch, tag or commit.
        quantize: "none", or "int8" or "int4" for the language model's weights (bitsandbytes).

    Raises:
        UsageError: no such model, an unsupported one, an incomplete one, or one that does not fit the device; what
            cannot work is refused before weights are fetched.
    """
    from cg_cli.backbones import checkpoint

    check(device, dtype, quantize)
    files = checkpoint.find(
        path_or_id, offline=offline, revision=revision, check=lambda family: _check_quantizable(family, quantize)
    )
    from cg_cli.backbones.loading import quiet_transformers

    with quiet_transformers():
        return registry.match(files.config).load_class().load(files, device=device, dtype=dtype, quantize=quantize)


def fetch(path_or_id: str, *, quantize: str, tell: Callable[[str], None]) -> None:
    """Have what ``load`` needs on this machine; imports no torch. UsageError as for ``load``, and for want of room.

    Args:
        tell: told how much is downloaded, and to where, before that begins.
    """
    from cg_cli.backbones import checkpoint

    checkpoint.fetch(path_or_id, check=lambda family: _check_quantizable(family, quantize), tell=tell)


def check(device: str, dtype: str, quantize: str) -> None:
    """UsageError for what no model can be loaded with on this machine."""
    from cg_cli.backbones.device import check_quantize, resolve_device, resolve_dtype

    resolve_dtype(dtype, resolve_device(device))
    check_quantize(quantize, device)


def _check_quantizable(family: Family, quantize: str) -> None:
    """UsageError where ``quantize`` is nothing for ``family``."""
    if quantize != "none" and family.not_quantizable:
        raise UsageError(f"--quantize {quantize}: {family.not_quantizable}; leave it out")


def find_class(path_or_id: str, *, offline: bool) -> type[Backbone]:
    """The class of a model, for which no weights are read. UsageError as for ``load``."""
    from cg_cli.backbones import checkpoint

    return registry.match(checkpoint.find_config(path_or_id, offline=offline)).load_class()


def inspect_config(path_or_id: str, *, offline: bool, revision: str | None = None) -> tuple[type[Backbone], str]:
    """The class and the revision of a model, from its config.json alone. UsageError as for ``load``."""
    from cg_cli.backbones import checkpoint

    config, commit = checkpoint.inspect_config(path_or_id, offline=offline, revision=revision)
    return registry.match(config).load_class(), commit


def random_init(family: str, size: str, layers: int | None, *, device: str, dtype: str, tokenizer: Path) -> Backbone:
    """A model of ``family`` in a built-in size with random weights, with at most ``layers`` layers in each part.

    Args:
        tokenizer: directory of a tokenizer for it; special tokens that it lacks are added.

    Raises:
        UsageError: no such family, or it does not fit the device.
    """
    from cg_cli.backbones.loading import quiet_transformers

    with quiet_transformers():
        backbone_class = registry.find(family).load_class()
        backbone = backbone_class.random_init(size, layers, device=device, dtype=dtype, tokenizer=tokenizer)
    backbone.id = f"random {family} {size}"
    backbone.revision = f"random-{family}-{size}-{layers or 'all'}"
    return backbone
