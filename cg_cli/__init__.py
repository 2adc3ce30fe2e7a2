"""cg: video question answering with an Omni-LLM that reads only part of the audio and video tokens.

    import cg_cli as cg
    model = cg.load("nano")
    clip = model.read("samples/drum.mp4", fps=2)
    context = model.prefill(clip, pruner=cg.ContextGuard(), keep=0.45)
    print(context.ask("What is happening?").answer)

Importing this package imports nothing heavy: each name below is imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cg_cli.engine.kept import TokenTable
    from cg_cli.engine.model import Context, Model, load
    from cg_cli.errors import CgError, ItemError, UsageError
    from cg_cli.media.clip import Clip, DecodeOptions
    from cg_cli.pruning.base import ModalityPruner, Pruner
    from cg_cli.pruning.budget import Budget
    from cg_cli.pruning.decoder import DecoderPruner, LayerView
    from cg_cli.pruning.methods.contextguard import ContextGuard
    from cg_cli.pruning.methods.contextguard_online import ContextGuardOnline
    from cg_cli.pruning.methods.divprune import DivPrune
    from cg_cli.pruning.methods.dycoke import DyCoke
    from cg_cli.pruning.methods.evs import Evs
    from cg_cli.pruning.methods.fastv import FastV
    from cg_cli.pruning.methods.none import KeepAll
    from cg_cli.pruning.methods.omnidrop import OmniDrop
    from cg_cli.pruning.methods.omnisift import OmniSift
    from cg_cli.pruning.methods.omnizip import OmniZip
    from cg_cli.pruning.methods.random import Random
    from cg_cli.pruning.methods.seats import Seats
    from cg_cli.pruning.methods.uniform import Uniform
    from cg_cli.pruning.methods.vidcom2 import VidCom2
    from cg_cli.pruning.methods.visionzip import VisionZip
    from cg_cli.pruning.stream import Merge, Selection, TokenStream
    from cg_cli.records import Answer, Failure

_MODULES = {
    "engine.kept": ("TokenTable",),
    "engine.model": ("Context", "Model", "load"),
    "errors": ("CgError", "ItemError", "UsageError"),
    "media.clip": ("Clip", "DecodeOptions"),
    "pruning.base": ("ModalityPruner", "Pruner"),
    "pruning.budget": ("Budget",),
    "pruning.decoder": ("DecoderPruner", "LayerView"),
    "pruning.methods.contextguard": ("ContextGuard",),
    "pruning.methods.contextguard_online": ("ContextGuardOnline",),
    "pruning.methods.divprune": ("DivPrune",),
    "pruning.methods.dycoke": ("DyCoke",),
    "pruning.methods.evs": ("Evs",),
    "pruning.methods.fastv": ("FastV",),
    "pruning.methods.none": ("KeepAll",),
    "pruning.methods.omnidrop": ("OmniDrop",),
    "pruning.methods.omnisift": ("OmniSift",),
    "pruning.methods.omnizip": ("OmniZip",),
    "pruning.methods.random": ("Random",),
    "pruning.methods.seats": ("Seats",),
    "pruning.methods.uniform": ("Uniform",),
    "pruning.methods.vidcom2": ("VidCom2",),
    "pruning.methods.visionzip": ("VisionZip",),
    "pruning.stream": ("Merge", "Selection", "TokenStream"),
    "records": ("Answer", "Failure"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Answer",
    "Budget",
    "CgError",
    "Clip",
    "Context",
    "ContextGuard",
    "ContextGuardOnline",
    "DecodeOptions",
    "DecoderPruner",
    "DivPrune",
    "DyCoke",
    "Evs",
    "Failure",
    "FastV",
    "ItemError",
    "KeepAll",
    "LayerView",
    "Merge",
    "ModalityPruner",
    "Model",
    "OmniDrop",
    "OmniSift",
    "OmniZip",
    "Pruner",
    "Random",
    "Seats",
    "Selection",
    "TokenStream",
    "TokenTable",
    "Uniform",
    "UsageError",
    "VidCom2",
    "VisionZip",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
