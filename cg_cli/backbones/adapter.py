"""LoRA adapters (arXiv 2106.09685) by name: a folder or a repository on the hub, with the adapter's config and weights
as peft saves them. ``lora`` merges them into a model. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cg_cli.backbones.checkpoint import ADAPTER, content_hash, read_config
from cg_cli.errors import UsageError
from cg_cli.util.hub import hub_errors
from cg_cli.util.text import short

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """An adapter's files: ``config`` is its adapter_config.json, ``revision`` a commit of the hub or a content hash."""

    id: str
    weights: Path
    config: Mapping[str, Any]
    revision: str

    @property
    def base(self) -> str | None:
        """The model that it was trained on, as its config names it."""
        base = self.config.get("base_model_name_or_path")
        return base if isinstance(base, str) and base else None

    def warnings(self, model: str) -> tuple[str, ...]:
        """A line if it was trained on another model than ``model``; of paths only the last part counts."""
        if self.base is None or _last_part(self.base) == _last_part(model):
            return ()
        return (f"adapter {self.id} was made for {short(self.base)}, not for {model}: answers may be useless",)


def check(adapter: str | None, quantize: str) -> None:
    """UsageError, before anything is fetched, for an adapter that cannot be merged here."""
    if adapter is None:
        return
    if quantize != "none":
        raise UsageError(
            f"--adapter cannot go with --quantize {quantize}: it is merged into weights that are not quantized; leave "
            "one of them out"
        )
    missing = [module for module in ("peft", "accelerate") if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(f"--adapter needs {' and '.join(missing)}: pip install 'cg-cli[lora]'")


def find(name: str, *, offline: bool) -> Adapter:
    """Find or fetch an adapter.

    Raises:
        UsageError: there is none of that name, or it is no LoRA adapter in safetensors.
    """
    folder = Path(os.path.expanduser(name))
    if os.path.isdir(folder):
        config, weights, revision = folder / ADAPTER, folder / WEIGHTS, None
        if not config.exists():
            raise UsageError(f"{name} is no adapter: it has no {ADAPTER}")
        if not weights.exists():
            raise _no_weights(name)
    elif re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        config, weights = _fetch(name, offline)
        revision = config.parent.name  # .../snapshots/<commit>/<file> in the hub's cache
    else:
        raise UsageError(f"no adapter {short(name)}: give a folder with {ADAPTER}, or OWNER/NAME on the hub")
    settings = read_config(config)
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise UsageError(f"adapter {name} is of type {short(str(kind))}: only LoRA adapters can be merged")
    return Adapter(name, weights, settings, revision or content_hash(folder))


def _fetch(name: str, offline: bool) -> tuple[Path, Path]:
    """Config and weights of an adapter on the hub, of one commit."""
    from huggingface_hub import hf_hub_download

    commit, paths = None, []
    for file in (ADAPTER, WEIGHTS):
        try:
            with hub_errors(f"adapter {name}", file, offline=offline, otherwise="give a local folder"):
                paths.append(Path(hf_hub_download(name, file, revision=commit, local_files_only=offline)))
        except FileNotFoundError:
            raise (_no_weights(name) if paths else UsageError(f"{name} is no adapter: it has no {ADAPTER}")) from None
        commit = paths[0].parent.name
    return paths[0], paths[1]


def _no_weights(name: str) -> UsageError:
    return UsageError(f"adapter {name} has no {WEIGHTS}: only safetensors are taken")


def _last_part(name: str) -> str:
    return PurePosixPath(name.rstrip("/\\").replace("\\", "/")).name.lower()
