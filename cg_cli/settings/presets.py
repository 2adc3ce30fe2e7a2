"""Presets: a pruner and how much it keeps, under a name, in a YAML file that a person can read and copy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.pruning import registry
from cg_cli.settings import certificates, look_once
from cg_cli.settings.table import MEDIA, SETTINGS
from cg_cli.util.bounded import read_bounded
from cg_cli.util.bundled import bundled_folder
from cg_cli.util.text import closest, short
from cg_cli.util.yaml import MAX_BYTES, YamlError, parse_yaml, read_yaml

DEFAULT = "paper"
PACKAGE = Path(__file__).parents[1]
FOLDERS = (PACKAGE / "preset_files", PACKAGE.parent / "presets")  # in an installed wheel, in a source tree
SUFFIXES = (".yaml", ".yml")
# Settings about how a video is read that a preset may set, by their long options.
MEDIA_SETTINGS = {
    setting.key: setting
    for setting in SETTINGS.values()
    if setting.panel == MEDIA and setting.answer and setting.kind is not bool
}


@dataclass(frozen=True)
class Preset:
    """One preset file; its keys are these fields.

    Attributes:
        name: what ``--preset`` and the record call it.
        keep: share of audio and video tokens that stays, in (0, 1].
        pruner: a name that ``pruning.registry`` knows.
        description: for people.
        merge: what becomes of dropped tokens, as the setting.
        options: of the pruner; checked when it is made.
        media: how the video is read, for a model that was made for other frames than most; long options, see
            MEDIA_SETTINGS. Their ranges are checked with the settings.
        positions, repetition_penalty, adapter: as the settings, for a model that was made for others than the usual.
        certificate: of ``cg calibrate``: how far answers may differ from those of the whole clip, and under which
            conditions that was measured.
    """

    name: str
    keep: float
    pruner: str
    description: str = ""
    merge: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    media: Mapping[str, Any] = field(default_factory=dict)
    positions: str | None = None
    repetition_penalty: float | None = None
    adapter: str | None = None
    certificate: Mapping[str, Any] | None = None

    @property
    def model_settings(self) -> dict[str, Any]:
        """Of positions, repetition penalty and adapter, those that it sets."""
        values = {name: getattr(self, name) for name in ("positions", "repetition_penalty", "adapter")}
        return {name: value for name, value in values.items() if value is not None}


def names() -> list[str]:
    """The bundled presets, in alphabetical order."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load(name_or_path: str) -> Preset:
    """Read a bundled preset by name, or any preset file by a path that ends in .yaml or .yml.

    Raises:
        UsageError: one line: no such preset or file, broken YAML, or a key or value that a preset cannot have.
    """
    is_path = name_or_path.endswith(SUFFIXES)
    if not is_path and name_or_path not in names():
        raise UsageError(
            f"no preset '{name_or_path}'{closest(name_or_path, names())}; "
            f"known: {', '.join(names())}, or the path of a .yaml file"
        )
    path = Path(name_or_path) if is_path else _folder() / f"{name_or_path}.yaml"
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"preset {path}: {reason}; bundled presets: {', '.join(names())}") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Preset:
    """The preset in the YAML ``text``; ``source`` names it in messages. UsageError as for ``load``."""
    try:
        data, _ = parse_yaml(text)
    except YamlError as error:
        line = f", line {error.line}" if error.line else ""
        raise UsageError(f"preset {source}{line}: broken YAML: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"preset {source}: expected keys and values such as 'keep: 0.45'")
    _check_keys(data, source)
    _check_types(data, source)
    keep = data["keep"]
    if not 0 < keep <= 1:
        raise UsageError(f"preset {source}: keep must be above 0 and at most 1, not {keep}")
    try:
        registry.find(data["pruner"])
    except UsageError as error:
        raise UsageError(f"preset {source}: {error}") from error
    SETTINGS["merge"].check(data.get("merge", "auto"), f"preset {source}")
    media = {key.replace("-", "_"): value for key, value in data.get("media", {}).items()}
    if "look_once" in media:
        media["look_once"] = look_once.from_yaml(media["look_once"])
    values = {_field(key): value for key, value in data.items()}
    return Preset(**{**values, "keep": float(keep), "media": media})


def known(what: str) -> Any:
    """What is in ``known/WHAT.yaml`` beside the presets: things that have a name here. UsageError as for
    ``_folder``."""
    return read_yaml(_folder() / "known" / f"{what}.yaml")[0]


def _folder() -> Path:
    """Where the bundled presets are. UsageError if the installation lost them."""
    return bundled_folder(FOLDERS, "presets")


def _field(key: str) -> str:
    return key.replace("-", "_")


def _check_keys(data: dict[Any, Any], source: str) -> None:
    known = [entry.name.replace("_", "-") for entry in fields(Preset)]
    for key in data:
        if key not in known:
            hint = closest(str(key), known)
            raise UsageError(f"preset {source}: unknown key '{short(str(key))}'{hint}; known: {', '.join(known)}")
    for entry in fields(Preset):
        required = entry.default is MISSING and entry.default_factory is MISSING
        if required and entry.name not in data:
            raise UsageError(f"preset {source}: the key '{entry.name}' is missing")


def _check_types(data: dict[str, Any], source: str) -> None:
    expected: dict[str, Any] = {
        "keep": (int, float), "options": dict, "media": dict, "repetition-penalty": (int, float), "certificate": dict
    }  # fmt: skip
    words = {
        "keep": "a number", "options": "keys and values", "media": "keys and values", "repetition-penalty": "a number",
        "certificate": "keys and values",
    }  # fmt: skip
    for key, value in data.items():
        # A bool is an int to Python, but "keep: yes" is no number.
        if not isinstance(value, expected.get(key, str)) or isinstance(value, bool):
            raise UsageError(f"preset {source}: {key} must be {words.get(key, 'text')}, not {short(repr(value))}")
    for option, value in data.get("options", {}).items():
        if not isinstance(option, str):
            raise UsageError(f"preset {source}: an option's name must be text, not {short(repr(option))}")
        if not _is_json(value):
            raise UsageError(f"preset {source}: option {short(option)} cannot be {short(repr(value))}")
    if (certificate := data.get("certificate")) is not None:
        certificates.check(certificate, f"preset {source}")
        if not _is_json(certificate):
            raise UsageError(f"preset {source}: its certificate has values that no record can hold: calibrate again")
    for key, value in data.get("media", {}).items():
        if key not in MEDIA_SETTINGS:
            hint = closest(str(key), MEDIA_SETTINGS)
            raise UsageError(
                f"preset {source}: unknown key '{short(str(key))}' in media{hint}; known: {', '.join(MEDIA_SETTINGS)}"
            )
        if MEDIA_SETTINGS[key].kind is str:
            text = look_once.from_yaml(value) if key == "look-once" else value
            if not isinstance(text, str):
                raise UsageError(f"preset {source}: {key} must be text, not {short(repr(value))}")
            continue
        whole = MEDIA_SETTINGS[key].kind is int
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (whole and not isinstance(value, int)):
            raise UsageError(f"preset {source}: {key} must be a {'whole ' * whole}number, not {short(repr(value))}")


def _is_json(value: Any) -> bool:
    """Whether a record can hold ``value``: YAML also has dates, bytes, sets, and numbers that are none."""
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(inner) for key, inner in value.items())
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
