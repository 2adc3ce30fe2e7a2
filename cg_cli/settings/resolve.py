"""From flags, environment, config files, preset and defaults to one Settings, and where each value is from.

A stronger level beats a weaker one: flag, environment, ``--config`` file, the project's cg.yaml, the user's own config
file, preset, default. A preset that is *named* at a level counts, with what it sets, as said at that level: ``--preset
strong`` beats ``keep: 0.45`` in a file, and ``--keep`` beats both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cg_cli.errors import UsageError
from cg_cli.pruning import registry
from cg_cli.settings import files, look_once, models, presets
from cg_cli.settings.table import NO_PRUNER, SETTINGS, Resolved, Settings

if TYPE_CHECKING:
    from cg_cli.backbones.base import Backbone
    from cg_cli.media.clip import DecodeOptions

FLAG, ENVIRONMENT, PRESET = "flag", "environment", "preset"


@dataclass(frozen=True)
class Level:
    """What was said in one place.

    Attributes:
        values: of settings, by name.
        origins: by name, the place in words, e.g. ``flag --keep``.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str]

    @classmethod
    def of(cls, values: Mapping[str, Any], origin: str) -> Level:
        return cls(values, dict.fromkeys(values, origin))


def resolve_settings(
    overrides: Mapping[str, Any], config: Path | None = None, *, config_files: bool = True
) -> Settings:
    """The settings that ``overrides`` (by name; None: not said) come to, over config files, preset and defaults.

    Args:
        config: a config file that was named.
        config_files: whether the project's and the user's own count.

    Raises:
        UsageError: a value out of range, a file that cannot be read, or two values that cannot go together.
    """
    values = {name: value for name, value in overrides.items() if value is not None}
    return resolve_with_sources([Level.of(values, FLAG)], config, config_files=config_files).settings


def resolve_with_sources(levels: Sequence[Level], config: Path | None = None, *, config_files: bool = True) -> Resolved:
    """As ``resolve_settings``, from ``levels`` above the config files, the weakest first, and with where each value is
    from."""
    below = []
    for word, path in files.config_files(config) if config_files else ():
        below.append(Level.of(files.read(path, SETTINGS), f"{word} {path}"))
    resolved = _combine([*below, *levels])
    return replace(resolved, skipped=files.skipped_files()) if config_files else resolved


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """``settings`` with other ``values``, by name. UsageError as for ``resolve_settings``."""
    for name, value in values.items():
        SETTINGS[name].check(value)
    out = replace(settings, **values)
    _check_together(out, {})
    return out


def defaults() -> dict[str, Any]:
    """Every setting as it is when nothing is said about it."""
    settings = asdict(resolve_settings({}, config_files=False))
    return {name: settings[name] for name in SETTINGS}


def _combine(levels: Sequence[Level]) -> Resolved:
    naming = [number for number, level in enumerate(levels) if level.values.get("preset") is not None]
    preset = presets.load(levels[naming[-1]].values["preset"] if naming else presets.DEFAULT)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if not naming:
        _apply_preset(preset, values, origins)
    for number, level in enumerate(levels):
        if naming and number == naming[-1]:
            _apply_preset(preset, values, origins)
        _apply_level(level, values, origins)
    values["preset"], values["certificate"] = preset.name, preset.certificate
    for name, value in values.items():
        if name in SETTINGS:
            SETTINGS[name].check(value, _elsewhere(origins.get(name, "")))
    settings = replace(Settings(), **values)
    _check_together(settings, origins)
    return Resolved(settings, origins)


def _apply_preset(preset: presets.Preset, values: dict[str, Any], origins: dict[str, str]) -> None:
    pruning = {"keep": preset.keep, "pruner": preset.pruner, "merge": preset.merge}
    data = {**pruning, "pruner_options": dict(preset.options), **preset.media, **preset.model_settings}
    values.update(data)
    origins.update(dict.fromkeys(data, f"{PRESET} {preset.name}"))


def _apply_level(level: Level, values: dict[str, Any], origins: dict[str, str]) -> None:
    pruner = level.values.get("pruner")
    if pruner is not None and pruner != values.get("pruner"):
        values["pruner_options"] = {}  # those of another pruner
        if origins.get("merge", "").startswith(PRESET):
            values["merge"] = "auto"
        if pruner == NO_PRUNER and "keep" not in level.values:
            values["keep"], origins["keep"] = 1.0, level.origins["pruner"]
    values.update(level.values)
    origins.update(level.origins)


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    """What one value alone cannot tell."""
    registry.find(settings.pruner)
    models.check_name(settings.model)
    look_once.levels(settings.look_once)
    where = f" (from {origin})" if (origin := _elsewhere(origins.get("keep", ""))) else ""
    if settings.pruner == NO_PRUNER and settings.keep != 1:
        raise UsageError(f"--pruner none keeps everything: it cannot go with --keep {settings.keep}{where}")
    if settings.min_frames > settings.max_frames:
        raise UsageError(
            f"min-frames must be between 0 and --max-frames {settings.max_frames}, not {settings.min_frames}"
        )


def _elsewhere(origin: str) -> str:
    """``origin`` where it has to be said: not of a flag, which the message names."""
    return "" if origin.startswith(FLAG) else origin


def decode_options(settings: Settings, backbone: Backbone | type[Backbone]) -> DecodeOptions:
    """How a file becomes a Clip that ``backbone`` can read."""
    from cg_cli.media.clip import DecodeOptions

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
        audio_track=settings.audio_track,
        frames=settings.frames,
        look_once=look_once.levels(settings.look_once),
        decoder=settings.decoder,
        spread_pixels=settings.spread_pixels,
        audio_on_clock=backbone.audio_on_clock,
        stereo_gain=backbone.stereo_gain,
    )
