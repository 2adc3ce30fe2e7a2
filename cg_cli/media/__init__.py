"""A file becomes a Clip. Decoding runs in a worker process that can be killed; this process never imports PyAV."""

from cg_cli.media.client import DecodeWorker, decode, probe
from cg_cli.media.clip import MEDIA_VERSION, SAMPLE_RATE, Clip, DecodeOptions
from cg_cli.media.metadata import Probe, StreamInfo
from cg_cli.media.sizes import fit_size

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
