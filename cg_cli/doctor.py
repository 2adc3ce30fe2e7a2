"""``cg doctor``: what a bug report needs, and whether the way from a file to an answer works on this machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from cg_cli import __version__
from cg_cli.errors import CgError
from cg_cli.settings import files
from cg_cli.settings.resolve import resolve_settings
from cg_cli.util.format import size

LIBRARIES = ("torch", "transformers", "huggingface_hub", "tokenizers", "safetensors", "av", "numpy", "typer", "rich")
EXTRAS = ("ray", "pyarrow", "bitsandbytes", "peft", "flash-attn")
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "GOMP_SPINCOUNT",
)
SECRETS = ("HF_TOKEN", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")  # whether they are set, and no more


@dataclass(frozen=True)
class SelfTest:
    """One clip, made here, through the bundled model: what it took, or the line that says what failed."""

    ok: bool
    seconds: float
    message: str


def facts() -> dict[str, Any]:
    """Everything but the self test, in sections: names and what to show."""
    return {
        "versions": _versions(),
        "machine": _machine(),
        "devices": _devices(),
        "places": _places(),
        "models": _models(),
        "settings": _settings(),
    }


def self_test() -> SelfTest:
    """Write a clip, and have nano answer a question about it. Never raises."""
    from cg_cli.engine.setup import open_session

    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "self-test.mp4"
            write_clip(path)
            overrides = {"model": "nano", "device": "cpu", "offline": True, "max_new_tokens": 8}
            session = open_session(resolve_settings(overrides, config_files=False))
            (record,) = session.answer(str(path), ["What is seen?"])
    except Exception as error:  # whatever it is, it belongs in the report
        return SelfTest(False, time.perf_counter() - started, f"{type(error).__name__}: {' '.join(str(error).split())}")
    took = time.perf_counter() - started
    if not record.ok:
        return SelfTest(False, took, f"{record.error.stage}: {record.error.message}")
    tokens = record.tokens
    return SelfTest(
        True,
        took,
        f"{tokens.video_kept + tokens.audio_kept} of {tokens.video + tokens.audio} tokens kept, "
        f"answer {record.answer!r}",
    )


def write_clip(path: Path) -> None:
    """Two seconds of a moving square and a tone, as H.264 and AAC in an MP4."""
    import av

    rate, fps, side = 16_000, 8, 112
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        picture.width = picture.height = side
        picture.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=rate, layout="mono")
        for number in range(2 * fps):
            image = np.full((side, side, 3), 30, np.uint8)
            image[40:72, 4 * number : 4 * number + 32] = (200, 40, 40)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        wave = (0.2 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)).astype(np.float32)
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
            frame.rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(sound.encode(frame))
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))


def _versions() -> dict[str, str]:
    out = {"cg": __version__, "python": platform.python_version()}
    for name in LIBRARIES + EXTRAS:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name in LIBRARIES:
                out[name] = "MISSING"
    return out


def _machine() -> dict[str, str]:
    import torch

    from cg_cli.backbones.device import free_bytes
    from cg_cli.engine.metrics import device_name

    out = {
        "system": platform.platform(),
        "processor": f"{device_name(torch.device('cpu'))}, {os.cpu_count()} cores, "
        f"torch uses {torch.get_num_threads()}",
    }
    free = free_bytes(torch.device("cpu"))
    if free is not None:
        out["memory"] = f"{size(free)} of {size(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))} available"
    return out


def _devices() -> dict[str, str]:
    import torch

    out = {"CUDA in torch": torch.version.cuda or "none (a CPU build)"}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        free = torch.cuda.mem_get_info(index)[0]
        out[f"cuda:{index}"] = (
            f"{properties.name}, {size(free)} of {size(properties.total_memory)} free, "
            f"compute {properties.major}.{properties.minor}"
        )
    if torch.backends.mps.is_available():
        out["mps"] = "available"
    return out


def _places() -> dict[str, str]:
    from huggingface_hub import constants

    from cg_cli.util.folders import cache_dir

    out = {}
    for name, place in (("hub cache", Path(constants.HF_HUB_CACHE)), ("cg cache", cache_dir())):
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        out[name] = f"{place} ({size(shutil.disk_usage(there).free)} free)"
    return out


def _models() -> dict[str, str]:
    """Which of the known models are on this machine, and which predictor each would get."""
    from cg_cli.backbones import checkpoint
    from cg_cli.predictors import lookup
    from cg_cli.settings import models

    out = {}
    for name, known in models.KNOWN.items():
        try:
            checkpoint.find(known.source, offline=True, check=lambda family: None)
            here = "here"
        except CgError:
            here = f"not here ({known.download} to download)"
        predictor = lookup.locate_predictor(None, name, "", offline=True)
        out[name] = f"{here}; predictor: {predictor.name if predictor else 'none'}"
    return out


def _settings() -> dict[str, str]:
    out = {word: str(path) for word, path in files.config_files(None)}
    out |= {f"left out {number}": line for number, line in enumerate(files.skipped_files(), 1)}
    try:
        resolve_settings({})
    except CgError as error:
        out["broken"] = str(error)
    variables = sorted(name for name in os.environ if name.startswith("CG_")) + [
        name for name in VARIABLES if name in os.environ
    ]
    out |= {name: os.environ[name] for name in variables}
    return out | {name: "set" for name in SECRETS if name in os.environ}
