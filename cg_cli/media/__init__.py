"""A file becomes a Clip. Decoding runs in a worker process that can be killed; this process never imports PyAV."""

from cg_cli.media.client import DecodeWorker, decode, probe
from cg_cli.media.clip import SAMPLE_RATE, Clip, DecodeOptions
from cg_cli.media.facts import Probe, StreamFacts
from cg_cli.media.sizes import fit_size

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
