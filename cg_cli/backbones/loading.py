"""From a checkpoint's files, or from nothing, to a transformers model with its tokenizer, or to one line that says why
not."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import utils as hub_utils
from safetensors import safe_open
from transformers import AutoTokenizer, BitsAndBytesConfig, GenerationConfig, WhisperFeatureExtractor
from transformers.utils import logging as transformers_logging

from cg_cli.backbones import qwen_inputs
from cg_cli.backbones.checkpoint import Checkpoint, adapter_error, checkpoint_generation, read_config
from cg_cli.backbones.device import INT8, NONE, resolve_device, resolve_dtype
from cg_cli.backbones.generation import GenerationSettings, is_whole
from cg_cli.errors import CgError, UsageError
from cg_cli.media.clip import SAMPLE_RATE
from cg_cli.util.text import first_line

PREPROCESSOR = "preprocessor_config.json"
META = "meta"  # torch's device of tensors that have a shape alone
Loaded = TypeVar("Loaded")


def load(
    model_class: Any,
    checkpoint: Checkpoint,
    *,
    device: str,
    dtype: str,
    quantize: str,
    not_quantized: Sequence[str],
) -> tuple[Any, Any]:
    """Load ``checkpoint`` as transformers' ``model_class``: the model and its tokenizer.

    Args:
        quantize: "int8" or "int4" quantizes linear layers.
        not_quantized: full paths of the modules that stay as they are; transformers ignores other names in silence.

    Raises:
        UsageError: files that cannot be read, an adapter, weights missing or of another shape, or too little memory.
    """
    torch_device = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    directory = str(checkpoint.directory)
    quantization: dict[str, Any] = {}
    if quantize != NONE:
        quantization = {
            "quantization_config": _quantization_config(quantize, torch_dtype, not_quantized),
            "device_map": {"": torch_device},
        }
    settings = quantization | ({"config": _without_layers(model_class, directory)} if checkpoint.towers_only else {})

    def read() -> tuple[Any, dict[str, Any], Any]:
        if any(".lora_" in key for _, keys in weight_files(checkpoint) for key in keys):
            raise adapter_error(checkpoint.id)
        model, report = model_class.from_pretrained(
            directory,
            dtype=torch_dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
            use_safetensors=True,  # never a pickle
            local_files_only=True,
            trust_remote_code=False,
            **settings,
        )
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        return model if quantization else model.to(torch_device), report, tokenizer

    model, report, tokenizer = read_or_explain(checkpoint, torch_device, torch_dtype, read)
    for problem in ("missing_keys", "mismatched_keys"):
        # transformers only warns and goes on with random weights.
        if report[problem]:
            raise incomplete(checkpoint, problem.removesuffix("_keys"), report[problem])
    return model, tokenizer


def _without_layers(model_class: Any, directory: str) -> Any:
    """The config of a model whose language model has embeddings and head alone; transformers leaves the weights of its
    layers where they are."""
    config = model_class.config_class.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    text = config.text_config
    text.num_hidden_layers = 0
    if getattr(text, "layer_types", None) is not None:
        text.layer_types = []
    return config


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers logs nothing below an error and shows no progress bars meanwhile."""
    verbosity = transformers_logging.get_verbosity()
    bars, hub_bars = transformers_logging.is_progress_bar_enabled(), not hub_utils.are_progress_bars_disabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()  # the hub's as well, as does its counterpart
    try:
        with quiet_bitsandbytes():
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        if hub_bars:
            hub_utils.enable_progress_bars()
        else:
            hub_utils.disable_progress_bars()


@contextlib.contextmanager
def quiet_bitsandbytes() -> Iterator[None]:
    """bitsandbytes logs nothing below an error meanwhile: it warns of each layer of each token."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _quantization_config(quantize: str, dtype: torch.dtype, not_quantized: Sequence[str]) -> BitsAndBytesConfig:
    common = {"llm_int8_skip_modules": list(not_quantized)}  # of either width, for all its name
    if quantize == INT8:
        return BitsAndBytesConfig(load_in_8bit=True, **common)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, **common)


def weight_files(checkpoint: Checkpoint) -> Iterator[tuple[Any, list[str]]]:
    """Each safetensors file of ``checkpoint``, opened, and the names of its weights."""
    for path in sorted(checkpoint.directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            yield file, list(file.keys())


def read_or_explain(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, read: Callable[[], Loaded]
) -> Loaded:
    """What ``read`` returns; a UsageError if it does not get through."""
    try:
        return read()
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{checkpoint.id} does not fit {device} in {dtype}; use a smaller model or --device cpu"
        ) from error
    except CgError:
        raise
    except Exception as error:  # files of somebody else's can make transformers raise anything
        if "trust_remote_code" in str(error):  # its advice, which nobody can follow here
            raise UsageError(
                f"{checkpoint.id} comes with code of its own, which cg never runs, and cannot be loaded without it: "
                "use a checkpoint that transformers knows by itself"
            ) from error
        raise UsageError(
            f"cannot load {checkpoint.id} ({first_line(error)}); check its files or fetch them again"
        ) from error


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


def generation_settings(checkpoint: Checkpoint, model: Any) -> GenerationSettings:
    """What ``checkpoint`` says about choosing tokens. ``model`` is left with the ``generation_config`` that it has
    inside of its own whole model."""
    if is_whole(checkpoint.config):
        model.generation_config = GenerationConfig.from_model_config(model.config)
    return checkpoint_generation(checkpoint.directory, checkpoint.config, checkpoint.id)


def mel_extractor(checkpoint: Checkpoint, mel_bins: int) -> WhisperFeatureExtractor:
    """The extractor of preprocessor_config.json; without one, that of the Qwen omni models. UsageError if it does not
    fit."""
    path = checkpoint.directory / PREPROCESSOR
    if not path.exists():
        return WhisperFeatureExtractor(feature_size=mel_bins, **qwen_inputs.OMNI_EXTRACTOR)
    extractor = WhisperFeatureExtractor.from_pretrained(
        str(checkpoint.directory), local_files_only=True, trust_remote_code=False
    )
    settings = (extractor.feature_size, extractor.sampling_rate, extractor.hop_length, extractor.n_fft)
    if settings != (mel_bins, SAMPLE_RATE, qwen_inputs.HOP, qwen_inputs.N_FFT):
        raise UsageError(f"{path} does not fit the audio tower: mel bins, rate, hop and window are {settings}")
    return extractor


def random_init(
    build: Callable[[torch.dtype], Loaded],
    size: str,
    special_tokens: Sequence[str],
    *,
    device: str,
    dtype: str,
    tokenizer: Path,
) -> tuple[Checkpoint, Loaded, Any]:
    """A checkpoint without weights, what ``build`` makes in a dtype, and the tokenizer; see ``backbones.random_init``.

    Args:
        special_tokens: special tokens that the tokenizer has to know.
    """
    torch_device = torch.device(device) if device == META else resolve_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    checkpoint = Checkpoint("random", tokenizer, {}, "random")
    tokens = AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True, trust_remote_code=False)
    tokens.add_tokens([token for token in special_tokens if token not in tokens.get_vocab()], special_tokens=True)
    try:
        with torch.device(torch_device):
            return checkpoint, build(torch_dtype), tokens
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{size} in {dtype} does not fit {torch_device}: fewer --layers, or a smaller model"
        ) from error
