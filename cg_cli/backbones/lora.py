"""Merging a LoRA adapter into a loaded model (arXiv 2106.09685), by peft.

An adapter names weights as the model did that it was trained on: as the published code, or as any release of
transformers. A family says how such a name becomes one of the model that was loaded.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from cg_cli.backbones.adapter import Adapter
from cg_cli.errors import CgError, UsageError
from cg_cli.util.text import first_line, short

ROOT = "base_model.model."  # before every name in a file of peft's
LOW_RANK = re.compile(r"(.+)\.(lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?:\.default)?(\.weight|\.bias)?")
WRAPPERS = re.compile(r"\.(modules_to_save(\.default)?|base_layer)(?=\.|$)")
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
# Of a config: what says more about merging than ranks, scales and weights do.
NOT_MERGED = (
    "alora_invocation_tokens", "arrow_config", "layer_replication", "target_parameters", "trainable_token_indices",
    "use_bdlora", "use_qalora",
)  # fmt: skip
SPOKEN = ("talker.", "token2wav.", "code2wav.")  # parts of an omni model that are never run
PARTS = ("visual", "audio_tower", "language_model")
Rename = Callable[[str], str | None]
LowRank = Mapping[str, Mapping[str, Tensor]]  # by module, and by part and ending as peft has them in a model


def qwen_name(name: str) -> str | None:
    """The name in transformers' model of a weight ``name`` in any layout of a Qwen omni or VL checkpoint: with or
    without the thinker's prefix, the language model flat or a part of its own. None for parts that are never run."""
    if name.startswith(SPOKEN):
        return None
    name = name.removeprefix("thinker.")
    first, _, rest = name.partition(".")
    if first in PARTS:
        return f"model.{name}"
    if first == "model" and rest.partition(".")[0] not in PARTS:
        return f"model.language_model.{rest}"
    return name


def merge(model: nn.Module, adapter: Adapter, rename: Rename) -> None:
    """Merge ``adapter`` into ``model``, in place: low-rank changes by peft; whole weights (``modules_to_save``) replace
    those of the model.

    Args:
        rename: from an adapter's name of a weight to that in ``model``; None for what is never run.

    Raises:
        UsageError: tensors that are missing, have no place in the model or are of another shape; or another kind of
            adapter.
    """
    if other := [name for name in NOT_MERGED if adapter.config.get(name)]:
        raise UsageError(f"adapter {adapter.id} has {', '.join(other)}, which cannot be merged")
    try:
        low_rank, alphas, whole = _read(adapter, rename)
        _check_places(adapter, model, low_rank, whole)
        _check_complete(adapter, model, low_rank, whole)
        _merge_low_rank(adapter, model, low_rank, alphas)
    except CgError:
        raise
    except Exception as error:  # files of somebody else's can make peft raise anything
        raise UsageError(f"cannot merge adapter {adapter.id} ({first_line(error)}); fetch it again") from error
    for name, weight in whole.items():
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        old = getattr(module, last)
        # A new parameter: an embedding that was tied to the head does not change with it.
        setattr(module, last, nn.Parameter(weight.to(old.device, old.dtype), requires_grad=False))


def _read(adapter: Adapter, rename: Rename) -> tuple[LowRank, dict[str, float], dict[str, Tensor]]:
    """By names of the model: the low-rank parts of its modules, their alpha, and whole weights."""
    low_rank: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    alphas: dict[str, float] = {}
    whole: dict[str, Tensor] = {}
    with safe_open(adapter.weights, "pt") as file:
        for key in file.keys():  # noqa: SIM118
            name = key.removeprefix(ROOT)
            match = LOW_RANK.fullmatch(name)
            module, part, ending = match.groups() if match else (WRAPPERS.sub("", name), None, None)
            ours = rename(module)
            if ours is None or ".original_module." in name:
                continue
            if part is None:
                whole[ours] = file.get_tensor(key)
            else:
                if part == "lora_magnitude_vector":
                    ending = ".weight"  # which older files leave out
                low_rank[ours][f"{part}.default{ending or ''}"] = file.get_tensor(key)
                alphas[ours] = _alpha(adapter.config, module)
    if not low_rank and not whole:
        raise UsageError(f"adapter {adapter.id} has no weights for this model")
    return dict(low_rank), alphas, whole


def _alpha(config: Mapping[str, Any], module: str) -> float:
    """The numerator of the scale of ``module``, by the adapter's own name of it."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    own = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
    return next(own, config.get("lora_alpha", 8))


def _check_places(adapter: Adapter, model: nn.Module, low_rank: LowRank, whole: Mapping[str, Tensor]) -> None:
    """UsageError for tensors that have no place, or not of their shape."""
    weights = model.state_dict()
    unused = [name for name in low_rank if f"{name}.weight" not in weights]
    unused += [name for name in whole if name not in weights]
    if unused:
        raise UsageError(
            f"adapter {adapter.id} does not fit: the model has no place for {len(unused)} of its weights, e.g. "
            f"{unused[0]}"
        )
    for name, parts in low_rank.items():
        shapes = {part.split(".")[0]: tuple(tensor.shape) for part, tensor in parts.items() if "bias" not in part}
        place: tuple[int, ...] = tuple(weights[f"{name}.weight"].shape)
        first, second = shapes.get("lora_B"), shapes.get("lora_A")
        if "lora_embedding_A" in shapes:
            place, first, second = place[::-1], shapes.get("lora_embedding_B"), shapes["lora_embedding_A"]
        if first is None or second is None:
            raise UsageError(f"adapter {adapter.id} is incomplete: of {name} it has but one half; fetch it again")
        if (first[0], second[1]) != place or first[1] != second[0]:
            raise UsageError(f"adapter {adapter.id} does not fit: {first} x {second} for {place} of {name}")
    for name, tensor in whole.items():
        if tensor.shape != weights[name].shape:
            raise UsageError(
                f"adapter {adapter.id} does not fit: {tuple(tensor.shape)} for {tuple(weights[name].shape)} of {name}"
            )


def _check_complete(adapter: Adapter, model: nn.Module, low_rank: LowRank, whole: Mapping[str, Tensor]) -> None:
    """UsageError where a layer lacks what others have, or there is nothing of a module that the config names."""
    config = adapter.config
    missing: list[str] = []
    if not any(config.get(key) is not None for key in ("layers_to_transform", "exclude_modules", "layers_pattern")):
        alike = {NUMBER.sub("*", name) for name in low_rank}
        missing = [
            name
            for name, _ in model.named_modules()
            if name not in low_rank and NUMBER.search(name) and NUMBER.sub("*", name) in alike
        ]
    targets = config.get("target_modules")
    named = [*(targets if isinstance(targets, list) else ()), *(config.get("modules_to_save") or ())]
    there = [*low_rank, *whole]
    missing += [entry for entry in map(str, named) if not any(_is_of(entry, name) for name in there)]
    if missing:
        raise UsageError(
            f"adapter {adapter.id} is incomplete: {len(missing)} weights are missing, e.g. {missing[0]}; fetch it again"
        )


def _is_of(module: str, name: str) -> bool:
    """Whether a weight ``name`` is of what a config calls ``module``, by its last part."""
    return module.rpartition(".")[2] in name.split(".")


def _merge_low_rank(adapter: Adapter, model: nn.Module, low_rank: LowRank, alphas: Mapping[str, float]) -> None:
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    if not low_rank:
        return
    config = adapter.config
    ranks: dict[str, int] = {}
    weights: dict[str, Tensor] = {}
    for name, parts in low_rank.items():
        first = parts.get("lora_A.default.weight", parts.get("lora_embedding_A.default"))
        assert first is not None
        ranks[re.escape(name)] = first.shape[0]
        weights |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    with warnings.catch_warnings(action="ignore"):
        plan = LoraConfig(
            target_modules=list(low_rank),  # whole names, so that no module of another part is meant
            rank_pattern=ranks,
            alpha_pattern={re.escape(name): alpha for name, alpha in alphas.items()},
            inference_mode=True,
            **{key: bool(config.get(key)) for key in ("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias")},
        )
        tuner = LoraModel(model, plan, "default")
        result = model.load_state_dict(weights, strict=False)
        if result.unexpected_keys:
            raise UsageError(f"adapter {adapter.id} has {short(result.unexpected_keys[0])}, which cannot be merged")
        with torch.no_grad():
            tuner.merge_and_unload()
