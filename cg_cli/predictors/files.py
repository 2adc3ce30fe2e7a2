"""The file of an audio-to-visual predictor: safetensors, with what it was made for as metadata."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cg_cli.errors import UsageError
from cg_cli.pruning.predictor import DIRECTION, KINDS, WORDS, A2VPredictor, PredictorMetadata
from cg_cli.util.atomic import atomic_path
from cg_cli.util.text import first_line, one_line, short

# By kind, each with its version.
FORMATS = {DIRECTION: "cg.a2v/1", WORDS: "cg.a2v-words/1"}
FORMAT_FAMILY = "cg.a2v"  # how the formats of all versions of cg begin
METADATA_KEY = "card"  # of the metadata in the file
MAX_BYTES = 1 << 30  # a predictor takes a few MiB
MAX_SIZE = 1 << 31  # of any number in a card


def save(predictor: A2VPredictor, path: Path) -> None:
    """Write weights and metadata as one safetensors file."""
    header = {"format": FORMATS[predictor.kind], METADATA_KEY: json.dumps(asdict(predictor.metadata))}
    with atomic_path(path) as temporary:
        save_file({key: value.contiguous() for key, value in predictor.state_dict().items()}, temporary, header)


def load(path: Path, name: str = "") -> A2VPredictor:
    """Read a predictor of any kind; ``name`` is what messages call it, if not by its path. UsageError, in one line, if
    the file is none, or one of a kind that is not known here.

    The metadata may lie: nothing is allocated by its sizes, only the tensors that are in the file.
    """
    name = name or str(path)
    try:
        _check_file(path)
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            # Copied, since safetensors maps the file, which may be written anew while this runs.
            state = {key: _weights(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise UsageError(f"no predictor file {name}") from None
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError) as error:  # also dtypes that torch lacks
        reason = getattr(error, "strerror", None) or short(one_line(error), 200)
        raise UsageError(f"predictor {name} cannot be read: {reason}") from error
    written = header.get("format", "")
    if written not in FORMATS.values():
        if written.startswith(FORMAT_FAMILY):
            raise UsageError(
                f"predictor {name} is of a kind that this version of cg does not know ({short(one_line(written), 40)}; "
                f"it knows {', '.join(FORMATS.values())}): update cg, or train one with `cg train-predictor`"
            )
        raise UsageError(f"{name} is no predictor: train one with `cg train-predictor`")
    try:
        metadata = PredictorMetadata(**json.loads(header[METADATA_KEY]))
        _check_card(metadata, written)
        with torch.device("meta"):
            predictor = KINDS[metadata.kind](metadata)
        predictor.load_state_dict(state, assign=True)
        if not all(value.isfinite().all() for value in state.values()):
            raise ValueError("it holds weights that are no numbers")
    except (ValueError, LookupError, TypeError, RuntimeError, ArithmeticError, AttributeError) as error:
        raise UsageError(
            f"predictor {name} is damaged ({short(first_line(error), 200)}): fetch or train it again"
        ) from error
    return predictor.requires_grad_(False).eval()


def is_predictor(path: Path) -> bool:
    """Whether an existing file is one that ``save`` wrote."""
    try:
        _check_file(path)
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") in FORMATS.values()
    except (OSError, SafetensorError):
        return False


def _weights(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in float32. ValueError for anything but floating point numbers."""
    if not tensor.is_floating_point():
        raise ValueError(f"it holds weights of the kind {tensor.dtype}")
    return tensor.to(torch.float32, copy=True)


def _check_file(path: Path) -> None:
    """OSError for what is no regular file, or too large to be a predictor: safetensors would wait for it, or map it."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MAX_BYTES >> 30} GiB", str(path))


def _check_card(metadata: PredictorMetadata, written: str) -> None:
    """ValueError for a card with values that no predictor has, in a file of the format ``written``."""
    if not isinstance(metadata.kind, str) or FORMATS.get(metadata.kind) != written:
        raise ValueError(f"its kind is {short(repr(metadata.kind))}")
    if not isinstance(metadata.verdict, str) or not (metadata.verdict == "" or metadata.verdict.isprintable()):
        raise ValueError("its verdict is no line of text")
    model = (metadata.backbone, metadata.revision, metadata.family)
    if not all(isinstance(text, str) and text.isprintable() for text in model):
        raise ValueError("its card does not say what it was made for")
    sizes = {"width": 1, "hidden": 1, "queries": 1, "components": 1, "clips": 0, "windows": 0}
    for key, least in (sizes | {"words": int(metadata.kind == WORDS)}).items():
        value = getattr(metadata, key)
        if type(value) is not int or not least <= value <= MAX_SIZE:
            raise ValueError(f"its {key} is {short(repr(value))}")
    if metadata.kind != WORDS and metadata.words:
        raise ValueError(f"its words are {metadata.words}, and its kind has none")
    if not _is_number(metadata.window_s) or not 0 < metadata.window_s < math.inf:
        raise ValueError(f"its windows last {short(repr(metadata.window_s))} s")
    validation = metadata.validation
    if not isinstance(validation, dict) or not all(map(_is_number, validation.values())):
        raise ValueError("its validation is no list of figures")


def _is_number(value: object) -> bool:
    """Whether ``value`` is a number that a float can hold."""
    return isinstance(value, float) or (type(value) is int and abs(value) < MAX_SIZE)


def check_fits(predictor: A2VPredictor, backbone: str, revision: str, width: int, name: str) -> None:
    """UsageError unless the predictor was trained on the tokens of this model (its id or its revision, and its
    width)."""
    metadata = predictor.metadata
    if metadata.width != width or (metadata.backbone != backbone and metadata.revision != revision):
        raise UsageError(
            f"predictor {name} was trained for {metadata.backbone} (tokens of {metadata.width}), not for {backbone} "
            f"(tokens of {width}): train one with `cg train-predictor VIDEOS --model {backbone} -o FILE`, or leave "
            "--predictor out"
        )


def weights_sha256(predictor: A2VPredictor) -> str:
    """SHA-256 in hex of the names and bytes of a predictor's tensors, for one that comes from no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(predictor.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
