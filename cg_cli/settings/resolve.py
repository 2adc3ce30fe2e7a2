"""Settings: every choice a user can make, from flag, environment, config file, preset or default, in that order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_cli.errors import UsageError
from cg_cli.media.clip import DEFAULT_FPS, DEFAULT_MAX_FRAMES, DEFAULT_MAX_PIXELS, DecodeOptions
from cg_cli.pruning import registry
from cg_cli.settings import models, presets

if TYPE_CHECKING:
    from cg_cli.backbones.base import Backbone

NONE = "none"  # the pruner that keeps everything
GIVEN = "flag or environment"


@dataclass(frozen=True)
class Settings:
    """What one run does. Field names are the long options' names; ``min_frames`` and ``video_pixels`` are set by
    presets and config files alone."""

    model: str = models.AUTO
    preset: str = presets.DEFAULT
    keep: float = 0.0  # always set by `resolve`
    pruner: str = ""
    predictor: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    quantize: str = "none"
    fps: float = DEFAULT_FPS
    max_frames: int = DEFAULT_MAX_FRAMES
    max_pixels: int = DEFAULT_MAX_PIXELS
    audio: bool = True
    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    offline: bool = False
    decode_timeout: float = 300.0
    show_dir: str | None = None
    min_frames: int = 0
    video_pixels: int = 0
    pruner_options: Mapping[str, Any] = field(default_factory=dict)


_PARSERS = {"str": str, "str | None": str, "int": int, "float": float, "bool": bool}
TYPES: dict[str, type] = {f.name: _PARSERS[f.type] for f in fields(Settings) if f.name != "pruner_options"}
EMPTY = [f.name for f in fields(Settings) if f.type == "str | None"]  # may be nothing at all


@dataclass(frozen=True)
class Resolved:
    """Settings, and by name where each is from."""

    settings: Settings
    origins: Mapping[str, str]


def defaults() -> dict[str, Any]:
    """Every setting as it is when nothing is said about it."""
    settings = asdict(explain({}, files=False).settings)
    return {name: settings[name] for name in TYPES}


def resolve(given: Mapping[str, Any], config: Path | None = None) -> Settings:
    """The settings of ``explain``."""
    return explain(given, config).settings


def explain(
    given: Mapping[str, Any], config: Path | None = None, said: Mapping[str, str] | None = None, files: bool = True
) -> Resolved:
    """Settings from what was given on the command line or in the environment (None: not given), the config file
    ``config``, the project's, the user's own, the preset, and the defaults, the first that has one.

    Args:
        said: where values of ``given`` are from, by name; else "flag or environment".
        files: whether config files count.

    Raises:
        UsageError: a value out of range, or two that cannot go together.
    """
    layers: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for word, path in files.found(config) if files else ():
        read = files.read(path, TYPES, EMPTY)
        layers |= read
        origins |= dict.fromkeys(read, f"{word} {path}")
    for name, value in given.items():
        if value is not None:
            layers[name], origins[name] = value, (said or {}).get(name, GIVEN)
    preset = presets.load(layers.get("preset", presets.DEFAULT))
    layers["preset"] = preset.name
    from_preset = {"keep": preset.keep, "pruner": preset.pruner, "pruner_options": preset.options, **preset.media}
    if layers.get("pruner", preset.pruner) != preset.pruner:
        from_preset["pruner_options"] = {}  # they are the other pruner's
    if layers.get("pruner") == NONE:
        from_preset["keep"] = 1.0
    settings = replace(Settings(), **{**from_preset, **layers})
    origins = dict.fromkeys(from_preset, f"preset {preset.name}") | origins
    _check(settings, origins)
    return Resolved(settings, origins)


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


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    registry.find(settings.pruner)
    rules = [
        ("keep", 0 < settings.keep <= 1, f"--keep must be above 0 and at most 1, not {settings.keep}"),
        (
            "keep",
            settings.pruner != NONE or settings.keep == 1,
            f"--pruner none keeps everything: it cannot go with --keep {settings.keep}",
        ),
        ("fps", 0 < settings.fps <= 1000, f"--fps must be above 0, not {settings.fps}"),
        ("max_frames", settings.max_frames >= 2, f"--max-frames must be at least 2, not {settings.max_frames}"),
        (
            "min_frames",
            0 <= settings.min_frames <= settings.max_frames,
            f"min-frames must be between 0 and --max-frames {settings.max_frames}, not {settings.min_frames}",
        ),
        (
            "video_pixels",
            settings.video_pixels >= 0,
            f"video-pixels must be 0 (no limit) or more, not {settings.video_pixels}",
        ),
        (
            "max_pixels",
            settings.max_pixels >= 28 * 28,
            f"--max-pixels must be at least {28 * 28} (one token), not {settings.max_pixels}",
        ),
        (
            "max_new_tokens",
            settings.max_new_tokens >= 1,
            f"--max-new-tokens must be at least 1, not {settings.max_new_tokens}",
        ),
        (
            "temperature",
            0 <= settings.temperature < 100,
            f"--temperature must be 0 or more, not {settings.temperature}",
        ),
        ("seed", 0 <= settings.seed < 2**63, f"--seed must be 0 or more, not {settings.seed}"),
        (
            "decode_timeout",
            settings.decode_timeout > 0,
            f"--decode-timeout must be above 0, not {settings.decode_timeout}",
        ),
    ]
    for name, holds, message in rules:
        if not holds:
            origin = origins.get(name, GIVEN)
            raise UsageError(message if origin == GIVEN else f"{message} (from {origin})")
