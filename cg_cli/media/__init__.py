"""A file becomes a Clip. Decoding runs in a worker process that can be killed; this process never imports PyAV.

Importing this package imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cg_cli.media.client import DecodeWorker, decode, probe
    from cg_cli.media.clip import SAMPLE_RATE, Clip, DecodeOptions
    from cg_cli.media.facts import Probe, StreamFacts
    from cg_cli.media.sizes import fit_size

_MODULES = {
    "DecodeWorker": "client", "decode": "client", "probe": "client", "SAMPLE_RATE": "clip", "Clip": "clip", "DecodeOptions": "clip",
    "Probe": "facts", "StreamFacts": "facts", "fit_size": "sizes",
}  # fmt: skip

__all__ = [
    "SAMPLE_RATE",
    "Clip",
    "DecodeOptions",
    "DecodeWorker",
    "Probe",
    "StreamFacts",
    "decode",
    "fit_size",
    "probe",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
