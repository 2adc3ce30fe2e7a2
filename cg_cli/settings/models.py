"""Models by name: what ``--model`` accepts besides a directory or a hub id. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_cli.errors import UsageError
from cg_cli.settings import presets
from cg_cli.util.format import size
from cg_cli.util.text import closest, short

if TYPE_CHECKING:
    from collections.abc import Callable

    from cg_cli.backbones.base import Backbone
    from cg_cli.settings.table import Settings

GIB = 1 << 30
AUTO = "auto"
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class KnownModel:
    """An alias: where the weights are, what they weigh, and how much device memory they ask for."""

    source: str  # hub id or directory
    download_gb: float = 0.0  # what is fetched, about
    memory_bytes: int = 0  # weights, plus room for the activations of a few minutes of video
    warning: str = ""  # goes into every record
    shape: str = ""  # family and size, for random weights in the same sizes
    predictor: str = ""  # file of the audio-to-visual predictor that comes with it
    auto: bool = False  # whether ``--model auto`` may choose it

    @property
    def download(self) -> str:
        """For people."""
        return f"about {self.download_gb:g} GB" if self.download_gb else "bundled"


def _read(entry: dict[str, Any]) -> KnownModel:
    """An entry of ``presets/known/models.yaml``."""
    bundled = entry.pop("bundled", None)
    if bundled:
        folder = Path(__file__).parents[1] / bundled
        entry |= {"source": str(folder / "weights"), "predictor": str(folder / "predictor.safetensors")}
    return KnownModel(memory_bytes=int(entry.pop("memory_gib", 0) * GIB), **entry)


KNOWN = {name: _read(entry) for name, entry in presets.known("models")["models"].items()}
NANO = KNOWN["nano"]


def source(name: str) -> str:
    """Where the weights of ``name`` are: an alias's directory or hub id, or else ``name`` itself."""
    known = KNOWN.get(name.lower())
    return known.source if known else name


def check_name(name: str) -> None:
    """UsageError for what can be no model: neither a name here, nor a directory, nor an id on the hub."""
    if name == AUTO or name.lower() in KNOWN or os.path.isdir(os.path.expanduser(name)) or HUB_ID.fullmatch(name):
        return
    raise UsageError(
        f"no model '{short(name)}'{closest(name, (AUTO, *KNOWN))}: give one of {', '.join((AUTO, *KNOWN))}, "
        f"a directory with config.json, or OWNER/NAME on the hub"
    )


def check_machine(settings: Settings) -> None:
    """UsageError for a device, dtype or quantization that does not work on this machine. Imports torch only where the
    settings name something that it has to be asked about."""
    if settings.device in ("auto", "cpu") and settings.quantize == "none":
        return
    from cg_cli import backbones

    backbones.check(settings.device, settings.dtype, settings.quantize)


def fetch(settings: Settings, tell: Callable[[str], None], *, import_torch: bool = True) -> None:
    """Have the model that ``settings`` mean on this machine, before anything else is done; ``tell`` is told of a
    download.

    Args:
        import_torch: without it, "auto" is left to whoever loads the model, since only torch can choose it.

    Raises:
        UsageError: as ``choose`` and ``backbones.fetch``.
    """
    from cg_cli import backbones

    if settings.model == AUTO and not import_torch:
        return
    check_machine(settings)
    name = choose(settings.model, settings.device)
    if not settings.offline:
        backbones.fetch(
            source(name),
            quantize=settings.quantize,
            tell=tell,
            positions=settings.positions,
            adapter=settings.adapter,
        )


def load(
    name: str,
    *,
    device: str,
    dtype: str,
    offline: bool,
    quantize: str = "none",
    positions: str = "auto",
    adapter: str | None = None,
    towers_only: bool = False,
) -> Backbone:
    """The model ``name``, loaded; that name is its id. Arguments and UsageError as for ``backbones.load``."""
    from cg_cli import backbones

    backbone = backbones.load(
        source(name),
        device=device,
        dtype=dtype,
        offline=offline,
        quantize=quantize,
        positions=positions,
        adapter=adapter,
        towers_only=towers_only,
    )
    backbone.id = name
    return backbone


def load_chosen(settings: Settings, *, towers_only: bool = False) -> Backbone:
    """The model that ``settings`` mean, loaded as they say. UsageError as ``choose`` and ``backbones.load``."""
    return load(
        choose(settings.model, settings.device),
        device=settings.device,
        dtype=settings.dtype,
        offline=settings.offline,
        quantize=settings.quantize,
        positions=settings.positions,
        adapter=settings.adapter,
        towers_only=towers_only,
    )


def random_init(name: str, layers: int | None, *, device: str, dtype: str, positions: str = "auto") -> Backbone:
    """A model in the shape of ``name`` with random weights, and at most ``layers`` layers in each of its parts; nothing
    is downloaded. It costs what ``name`` costs, and says nothing that means anything.

    Raises:
        UsageError: a model whose shape is not known here, or one that does not fit the device.
    """
    from cg_cli import backbones

    known = KNOWN.get(name.lower())
    if not known or not known.shape:
        shaped = ", ".join(key for key, model in KNOWN.items() if model.shape)
        raise UsageError(f"--weights random: the shape of {name} is not built in; there are {shaped}")
    family, _, shape = known.shape.partition("/")
    return backbones.random_init(
        family,
        shape,
        layers,
        device=device,
        dtype=dtype,
        tokenizer=Path(NANO.source),
        positions=positions,
    )


def choose(name: str, device: str) -> str:
    """The name of the model to load: ``name`` itself, or for "auto" the largest Qwen2.5-Omni that fits the CUDA device.

    Raises:
        UsageError: "auto" without a CUDA device that a model fits.
    """
    if name != AUTO:
        return name
    memory = _cuda_memory(device)
    usable = sorted((known for known in KNOWN if KNOWN[known].auto), key=lambda known: -KNOWN[known].memory_bytes)
    for known in usable:
        if memory >= KNOWN[known].memory_bytes:
            return known
    device_memory = f"{size(memory)} of GPU memory" if memory else "no CUDA device"
    small = KNOWN[usable[-1]]
    raise UsageError(
        f"no model chosen, and {device_memory} here to choose one for: try `--model nano` (bundled, answers the "
        f"samples at once), or name a real one, e.g. `--model {small.source}` ({small.download} to download)"
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
