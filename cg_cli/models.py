"""Models by name: what ``--model`` accepts besides a directory or a hub id. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UsageError

if TYPE_CHECKING:
    from .backbones.base import Backbone

GIB = 1 << 30


@dataclass(frozen=True)
class KnownModel:
    """An alias: where the weights are, what they weigh, and how much device memory they ask for."""

    source: str  # hub id or directory
    download: str  # for people; the weights of the Thinker in bfloat16
    memory_bytes: int  # weights, plus room for the activations of a few minutes of video
    warning: str = ""  # goes into every record
    shape: str = ""  # family and size, for random weights in the same sizes
    predictor: str = ""  # file of the audio-to-visual predictor that comes with it


NANO = KnownModel(
    source=str(Path(__file__).parent / "nano" / "weights"),
    download="bundled",
    memory_bytes=0,
    warning="nano is a toy model that knows only the clips this project generates; its answers about real video mean nothing",
    predictor=str(Path(__file__).parent / "nano" / "predictor.safetensors"),
)
KNOWN = {
    "nano": NANO,
    "qwen2.5-omni-3b": KnownModel("Qwen/Qwen2.5-Omni-3B", "about 9.4 GB", 14 * GIB, shape="qwen2_5_omni/3b"),
    "qwen2.5-omni-7b": KnownModel("Qwen/Qwen2.5-Omni-7B", "about 18 GB", 24 * GIB, shape="qwen2_5_omni/7b"),
    "qwen3-omni-30b": KnownModel("Qwen/Qwen3-Omni-30B-A3B-Instruct", "about 64 GB", 76 * GIB, shape="qwen3_omni/30b-a3b"),
    "video-salmonn2-3b": KnownModel("tsinghua-ee/video-SALMONN2_plus_3B_full", "about 9.4 GB", 16 * GIB, shape="video_salmonn2/3b"),
    "video-salmonn2-7b": KnownModel("tsinghua-ee/video-SALMONN2_plus_7B_full", "about 18 GB", 26 * GIB, shape="video_salmonn2/7b"),
}
AUTO = "auto"
_AUTO_ORDER = ("qwen2.5-omni-7b", "qwen2.5-omni-3b")


def source(name: str) -> str:
    """Where the weights of ``name`` are: an alias's directory or hub id, or else ``name`` itself."""
    known = KNOWN.get(name.lower())
    return known.source if known else name


def load(name: str, *, device: str, dtype: str, offline: bool) -> Backbone:
    """The model ``name``, loaded; that name is its id. UsageError as for ``backbones.load``."""
    from . import backbones

    backbone = backbones.load(source(name), device=device, dtype=dtype, offline=offline)
    backbone.id = name
    return backbone


def imagine(name: str, layers: int | None, *, device: str, dtype: str) -> Backbone:
    """A model in the shape of ``name`` with random weights, and at most ``layers`` layers in each of its parts; nothing is
    downloaded. It costs what ``name`` costs, and says nothing that means anything.

    Raises:
        UsageError: a model whose shape is not known here, or one that does not fit the device.
    """
    from . import backbones

    known = KNOWN.get(name.lower())
    if not known or not known.shape:
        shaped = ", ".join(key for key, model in KNOWN.items() if model.shape)
        raise UsageError(f"--weights random: the shape of {name} is not built in; there are {shaped}")
    family, _, size = known.shape.partition("/")
    return backbones.imagine(family, size, layers, device=device, dtype=dtype)


def choose(name: str, device: str) -> str:
    """The name of the model to load: ``name`` itself, or for "auto" the largest Qwen2.5-Omni that fits the CUDA device.

    Raises:
        UsageError: "auto" without a CUDA device that a model fits.
    """
    if name != AUTO:
        return name
    memory = _cuda_memory(device)
    for known in _AUTO_ORDER:
        if memory >= KNOWN[known].memory_bytes:
            return known
    seen = f"{memory / GIB:.0f} GiB of GPU memory" if memory else "no CUDA device"
    small = KNOWN["qwen2.5-omni-3b"]
    raise UsageError(
        f"no model chosen, and {seen} here to choose one for: try `--model nano` (bundled, answers the samples at once), "
        f"or name a real one, e.g. `--model {small.source}` ({small.download} to download)"
    )


def _cuda_memory(device: str) -> int:
    """Bytes on the CUDA device that ``--device`` means; 0 if it means none."""
    if device not in ("auto", "cuda") and not device.startswith("cuda:"):
        return 0
    import torch

    if not torch.cuda.is_available():
        return 0
    index = int(device.partition(":")[2] or 0) if device != "auto" else 0
    if index >= torch.cuda.device_count():
        return 0
    return torch.cuda.get_device_properties(index).total_memory
