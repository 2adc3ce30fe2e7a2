"""A file becomes a Clip. Decoding runs in a worker process that can be killed; this process never imports PyAV."""

from .client import DecodeWorker, decode, probe
from .clip import SAMPLE_RATE, Clip, DecodeOptions
from .facts import Probe, StreamFacts
from .sizes import fit_size

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
