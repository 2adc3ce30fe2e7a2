"""Settings: every choice a user can make, from flag, environment, config file, preset or default, in that order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import models, presets
from .errors import UsageError
from .media.clip import DEFAULT_FPS, DEFAULT_MAX_FRAMES, DEFAULT_MAX_PIXELS, DecodeOptions

if TYPE_CHECKING:
    from .backbones.base import Backbone

NONE = "none"  # the pruner that keeps everything


@dataclass(frozen=True)
class Settings:
    """What one run does. Field names are the long options' names; ``min_frames`` and ``video_pixels`` are set by presets and config
    files alone."""

    model: str = models.AUTO
    preset: str = presets.DEFAULT
    keep: float = 0.0  # always set by `resolve`
    pruner: str = ""
    predictor: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    fps: float = DEFAULT_FPS
    max_frames: int = DEFAULT_MAX_FRAMES
    max_pixels: int = DEFAULT_MAX_PIXELS
    audio: bool = True
    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    offline: bool = False
    decode_timeout: float = 300.0
    min_frames: int = 0
    video_pixels: int = 0
    pruner_options: Mapping[str, Any] = field(default_factory=dict)


_TYPES = {f.name: f.type for f in fields(Settings) if f.name != "pruner_options"}
_PARSERS = {"str": str, "str | None": str, "int": int, "float": float, "bool": bool}


def user_file() -> Path:
    """Where a user's own config file is, whether or not it exists: ``$XDG_CONFIG_HOME/cg/config.yaml``."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "cg" / "config.yaml"


def read_file(path: Path) -> dict[str, Any]:
    """The settings in a YAML file; keys are the long options without dashes in front (``max-frames: 64``).

    Raises:
        UsageError: the file cannot be read, is no YAML mapping, or has an unknown key or a value of the wrong type.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"config file {path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"config file {path}: not valid YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"config file {path}: expected lines such as 'model: nano'")
    out = {}
    for key, value in data.items():
        name = str(key).replace("-", "_")
        if name not in _TYPES:
            known = ", ".join(n.replace("_", "-") for n in _TYPES)
            raise UsageError(f"config file {path}: unknown key '{key}'; known: {known}")
        wanted = _PARSERS[_TYPES[name]]
        whole_for_float = wanted is float and type(value) is int
        if type(value) is not wanted and not whole_for_float:
            raise UsageError(f"config file {path}: {key} must be of type {wanted.__name__}, not {value!r}")
        out[name] = wanted(value)
    return out


def resolve(given: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Settings from what was given on the command line or in the environment (None: not given), the config file (the
    user's own if ``config`` is None), the preset, and the defaults.

    Raises:
        UsageError: a value out of range, or two that cannot go together.
    """
    file = config or user_file()
    layers = read_file(file) if config or file.is_file() else {}
    layers |= {name: value for name, value in given.items() if value is not None}
    preset = presets.load(layers.get("preset", presets.DEFAULT))
    layers["preset"] = preset.name
    from_preset = {"keep": preset.keep, "pruner": preset.pruner, "pruner_options": preset.options, **preset.media}
    if layers.get("pruner", preset.pruner) != preset.pruner:
        from_preset["pruner_options"] = {}  # they are the other pruner's
    if layers.get("pruner") == NONE:
        from_preset["keep"] = 1.0
    settings = replace(Settings(), **{**from_preset, **layers})
    _check(settings)
    return settings


def decode_options(settings: Settings, backbone: Backbone | type[Backbone]) -> DecodeOptions:
    """How a file becomes a Clip that ``backbone`` can read."""
    return DecodeOptions(
        fps=settings.fps,
        max_frames=settings.max_frames,
        max_pixels=settings.max_pixels,
        side_multiple=backbone.side_multiple,
        frame_multiple=backbone.frame_multiple,
        audio=settings.audio,
        timeout_s=settings.decode_timeout,
        min_frames=settings.min_frames,
        video_pixels=settings.video_pixels,
    )


def _check(settings: Settings) -> None:
    rules = [
        (0 < settings.keep <= 1, f"--keep must be above 0 and at most 1, not {settings.keep}"),
        (settings.pruner != NONE or settings.keep == 1, f"--pruner none keeps everything: it cannot go with --keep {settings.keep}"),
        (0 < settings.fps <= 1000, f"--fps must be above 0, not {settings.fps}"),
        (settings.max_frames >= 2, f"--max-frames must be at least 2, not {settings.max_frames}"),
        (
            0 <= settings.min_frames <= settings.max_frames,
            f"min-frames must be between 0 and --max-frames {settings.max_frames}, not {settings.min_frames}",
        ),
        (settings.video_pixels >= 0, f"video-pixels must be 0 (no limit) or more, not {settings.video_pixels}"),
        (settings.max_pixels >= 28 * 28, f"--max-pixels must be at least {28 * 28} (one token), not {settings.max_pixels}"),
        (settings.max_new_tokens >= 1, f"--max-new-tokens must be at least 1, not {settings.max_new_tokens}"),
        (0 <= settings.temperature < 100, f"--temperature must be 0 or more, not {settings.temperature}"),
        (0 <= settings.seed < 2**63, f"--seed must be 0 or more, not {settings.seed}"),
        (settings.decode_timeout > 0, f"--decode-timeout must be above 0, not {settings.decode_timeout}"),
    ]
    for holds, message in rules:
        if not holds:
            raise UsageError(message)
