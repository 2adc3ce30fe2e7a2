"""From a checkpoint's files, or from nothing, to a transformers model with its tokenizer, or to one line that says why
not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, BitsAndBytesConfig, WhisperFeatureExtractor
from transformers.utils import logging as transformers_logging

from cg_cli.backbones import qwen_inputs
from cg_cli.backbones.checkpoint import Checkpoint, read_config, unmerged
from cg_cli.backbones.device import INT8, NONE, resolve_device, resolve_dtype
from cg_cli.errors import UsageError
from cg_cli.media.clip import SAMPLE_RATE
from cg_cli.settings.models import NANO

PREPROCESSOR = "preprocessor_config.json"
# What is never rounded, in any family; full paths, or transformers passes over them in silence.
EXACT = ["lm_head", "model.visual", "model.audio_tower"]


def load(cls: type, checkpoint: Checkpoint, *, device: str, dtype: str, quantize: str) -> tuple[Any, Any]:
    """Load ``checkpoint`` as transformers' model ``cls``: the model and its tokenizer.

    Args:
        quantize: "int8" or "int4" rounds the language model's linear layers; the towers and the head stay as they are.

    Raises:
        UsageError: files that cannot be read, an adapter, weights missing or of another shape, or too little memory.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    place = resolve_device(device)
    kind = resolve_dtype(dtype, place)
    directory = str(checkpoint.directory)

    def read() -> tuple[Any, dict[str, Any], Any]:
        if any(".lora_" in key for _, keys in weight_files(checkpoint) for key in keys):
            raise unmerged(checkpoint.id)
        rounding = (
            {"quantization_config": _rounding(quantize, kind), "device_map": {"": place}} if quantize != NONE else {}
        )
        model, report = cls.from_pretrained(
            directory,
            dtype=kind,
            attn_implementation="sdpa",
            output_loading_info=True,
            local_files_only=True,
            **rounding,
        )
        return (
            model if rounding else model.to(place),
            report,
            AutoTokenizer.from_pretrained(directory, local_files_only=True),
        )

    model, report, tokenizer = reading(checkpoint, place, kind, read)
    for problem in ("missing_keys", "mismatched_keys"):
        # transformers only warns and goes on with random weights.
        if report[problem]:
            raise incomplete(checkpoint, problem.removesuffix("_keys"), report[problem])
    return model, tokenizer


def _rounding(quantize: str, kind: torch.dtype) -> BitsAndBytesConfig:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of each layer of each token
    common = {"llm_int8_skip_modules": EXACT}  # of either width, for all its name
    if quantize == INT8:
        return BitsAndBytesConfig(load_in_8bit=True, **common)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=kind, **common)


def weight_files(checkpoint: Checkpoint) -> Iterator[tuple[Any, list[str]]]:
    """Each safetensors file of ``checkpoint``, opened, and the names of its weights."""
    for path in sorted(checkpoint.directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            yield file, list(file.keys())


def reading(checkpoint: Checkpoint, place: torch.device, kind: torch.dtype, read: Callable[[], Any]) -> Any:
    """What ``read`` returns; a UsageError if it does not get through."""
    try:
        return read()
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{checkpoint.id} does not fit {place} in {kind}; use a smaller model or --device cpu"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(f"cannot load {checkpoint.id} ({reason}); check its files or fetch them again") from error


def incomplete(checkpoint: Checkpoint, what: str, keys: Sequence[Any]) -> UsageError:
    """The error for weights ``keys`` that are ``what``: missing or mismatched."""
    names = sorted(map(str, keys))
    return UsageError(f"{checkpoint.id} is incomplete: {len(names)} {what} weights, e.g. {names[0]}; fetch it again")


def pixel_norm(checkpoint: Checkpoint, usual: qwen_inputs.PixelNorm) -> tuple[qwen_inputs.PixelNorm, tuple[str, ...]]:
    """The pixel norm of preprocessor_config.json; without one, the family's ``usual`` one and a warning."""
    path = checkpoint.directory / PREPROCESSOR
    if not path.exists():
        return usual, (f"{checkpoint.id} has no {PREPROCESSOR}; the family's usual settings were used",)
    config = read_config(path)
    mean, std = (tuple(config.get(f"image_{name}", getattr(usual, name))) for name in ("mean", "std"))
    return qwen_inputs.PixelNorm(mean, std), ()


def mel_extractor(checkpoint: Checkpoint, mel_bins: int) -> WhisperFeatureExtractor:
    """The extractor of preprocessor_config.json; without one, that of the Qwen omni models. UsageError if it does not
    fit."""
    path = checkpoint.directory / PREPROCESSOR
    if not path.exists():
        return WhisperFeatureExtractor(feature_size=mel_bins, **qwen_inputs.OMNI_EXTRACTOR)
    extractor = WhisperFeatureExtractor.from_pretrained(str(checkpoint.directory), local_files_only=True)
    given = (extractor.feature_size, extractor.sampling_rate, extractor.hop_length, extractor.n_fft)
    if given != (mel_bins, SAMPLE_RATE, qwen_inputs.HOP, qwen_inputs.N_FFT):
        raise UsageError(f"{path} does not fit the audio tower: mel bins, rate, hop and window are {given}")
    return extractor


def random_init(
    build: Callable[[torch.dtype], Any], size: str, special_tokens: Sequence[str], *, device: str, dtype: str
) -> tuple[Checkpoint, Any, Any]:
    """A checkpoint that is nowhere, what ``build`` makes in a dtype, and nano's tokenizer; see ``backbones.random_init``.

    Args:
        special_tokens: special tokens that the tokenizer has to know.
    """
    place = resolve_device(device)
    kind = resolve_dtype(dtype, place)
    checkpoint = Checkpoint("random", Path(NANO.source), {}, "random")
    tokenizer = AutoTokenizer.from_pretrained(NANO.source, local_files_only=True)
    tokenizer.add_tokens([mark for mark in special_tokens if mark not in tokenizer.get_vocab()], special_tokens=True)
    try:
        with torch.device(place):
            return checkpoint, build(kind), tokenizer
    except torch.OutOfMemoryError as error:
        raise UsageError(f"{size} in {dtype} does not fit {place}: fewer --layers, or a smaller model") from error
