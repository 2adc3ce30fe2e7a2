"""A file becomes a Clip. Decoding runs in a worker process that can be killed; this process never imports PyAV.

Importing this package imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cg_cli.media.client import DecodeWorker, decode, probe
    from cg_cli.media.clip import MEDIA_VERSION, SAMPLE_RATE, Clip, DecodeOptions
    from cg_cli.media.metadata import Probe, StreamInfo
    from cg_cli.media.sizes import fit_size

_MODULES = {
    "client": ("DecodeWorker", "decode", "probe"),
    "clip": ("MEDIA_VERSION", "SAMPLE_RATE", "Clip", "DecodeOptions"),
    "metadata": ("Probe", "StreamInfo"),
    "sizes": ("fit_size",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "MEDIA_VERSION",
    "SAMPLE_RATE",
    "Clip",
    "DecodeOptions",
    "DecodeWorker",
    "Probe",
    "StreamInfo",
    "decode",
    "fit_size",
    "probe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
