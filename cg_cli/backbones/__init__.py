"""Omni-LLM families, one file each, found by the ``model_type`` in a checkpoint's config.json.

A new family is a file with ``load(checkpoint, *, device, dtype, quantize) -> Backbone``, ``random_init(size, layers, *,
device, dtype) -> Backbone``, its class as ``BACKBONE``, and its name in FAMILIES. Importing this package imports
nothing heavy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cg_cli.errors import UsageError

if TYPE_CHECKING:
    from cg_cli.backbones.base import Backbone

# The model_type of each family, and the part of config.json that tells it from others of that type.
FAMILIES = {
    "qwen2_5_omni": ("qwen2_5_omni", None),
    "qwen3_omni": ("qwen3_omni_moe", None),
    "video_salmonn2": ("qwen2_5_vl", "audio_config"),
}
# Families whose weights bitsandbytes cannot round, and why.
NOT_QUANTIZABLE = {
    "qwen3_omni": "the experts of this family are no linear layers, which is all that bitsandbytes rounds"
}
# Whole checkpoints for those who have come upon adapters, which are not loaded.
MERGED = ("tsinghua-ee/video-SALMONN2_plus_3B_full", "tsinghua-ee/video-SALMONN2_plus_7B_full")
PART_SUFFIX = "_thinker"  # a thinker saved alone says so in its model_type


def family(config: Mapping[str, Any]) -> str:
    """The module for a config.json, by its ``model_type``.

    Raises:
        UsageError: there is none; the message names those there are.
    """
    model_type = str(config.get("model_type", ""))
    for module, (known, part) in FAMILIES.items():
        if model_type.removesuffix(PART_SUFFIX) == known and (part is None or config.get(part)):
            return module
    supported = ", ".join(
        f"{known} with {part}" if part else f"{known}, {known}{PART_SUFFIX}" for known, part in FAMILIES.values()
    )
    bare = any(model_type == known for known, _ in FAMILIES.values())
    what = f"{model_type or '(none)'}{' without sound' if bare else ''}"
    raise UsageError(f"model type {what} is not supported; supported are: {supported}")


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
    found = checkpoint.find(
        path_or_id, offline=offline, revision=revision, check=lambda config: _check(config, quantize)
    )
    module = importlib.import_module(f".{family(found.config)}.model", __name__)
    return module.load(found, device=device, dtype=dtype, quantize=quantize)


def fetch(path_or_id: str, *, quantize: str, tell: Callable[[str], None]) -> None:
    """Have what ``load`` needs on this machine; imports no torch. UsageError as for ``load``, and for want of room.

    Args:
        tell: told how much is downloaded, and to where, before that begins.
    """
    from cg_cli.backbones import checkpoint

    checkpoint.fetch(path_or_id, check=lambda config: _check(config, quantize), tell=tell)


def check(device: str, dtype: str, quantize: str) -> None:
    """UsageError for what no model can be loaded with on this machine."""
    from cg_cli.backbones.device import check_quantize, resolve_device, resolve_dtype

    resolve_dtype(dtype, resolve_device(device))
    check_quantize(quantize, device)


def _check(config: Mapping[str, Any], quantize: str) -> None:
    """UsageError for a config.json that cannot be loaded."""
    module = family(config)
    if module in NOT_QUANTIZABLE and quantize != "none":
        raise UsageError(f"--quantize {quantize}: {NOT_QUANTIZABLE[module]}; leave it out")


def inspect_config(path_or_id: str, *, offline: bool, revision: str | None = None) -> tuple[type[Backbone], str]:
    """The class and the revision of a model, from its config.json alone. UsageError as for ``load``."""
    from cg_cli.backbones import checkpoint

    config, found = checkpoint.inspect_config(path_or_id, offline=offline, revision=revision)
    return importlib.import_module(f".{family(config)}.model", __name__).BACKBONE, found


def random_init(family: str, size: str, layers: int | None, *, device: str, dtype: str) -> Backbone:
    """A model of ``family`` in a built-in size with random weights, with at most ``layers`` layers in each part.

    Raises:
        UsageError: it does not fit the device.
    """
    made = importlib.import_module(f".{family}.model", __name__).random_init(size, layers, device=device, dtype=dtype)
    made.id = f"random {family} {size}"
    made.revision = f"random-{family}-{size}-{layers or 'all'}"
    return made
