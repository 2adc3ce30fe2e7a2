"""The preset that a calibration writes, with its certificate, and what tells such files from others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cg_cli.errors import CgError
from cg_cli.settings.certificates import SCHEMA
from cg_cli.settings.presets import MEDIA_SETTINGS
from cg_cli.settings.table import SETTINGS, Settings
from cg_cli.util.atomic import write_atomic
from cg_cli.util.bounded import read_bounded
from cg_cli.util.yaml import MAX_BYTES, read_yaml

PLOT_MARK = f"<!-- {SCHEMA} -->"  # ends a plot


def write(path: Path, settings: Settings, certificate: Mapping[str, Any]) -> None:
    """Write ``path`` at once. CgError if it cannot be written."""
    try:
        write_atomic(path, text(path.stem, settings, certificate))
    except OSError as error:
        raise CgError(f"cannot write {path}: {error.strerror}") from error


def text(name: str, settings: Settings, certificate: Mapping[str, Any]) -> str:
    """The YAML of a preset with all that a preset can say of ``settings``, so that a run with it and nothing else reads
    and prunes as the calibration did."""
    import yaml

    risk, confidence = (f"{100 * certificate[key]:.3g} %" for key in ("risk", "confidence"))
    media = {key: _plain(getattr(settings, setting.name)) for key, setting in MEDIA_SETTINGS.items()}
    media = {key: value for key, value in media.items() if value != SETTINGS[key.replace("-", "_")].default}
    data: dict[str, Any] = {
        "name": name,
        "description": f"calibrated: answers change in at most {risk}, with confidence {confidence}",
        "keep": settings.keep,
        "pruner": settings.pruner,
        "merge": settings.merge,
        "options": dict(settings.pruner_options),
    }
    data |= {"media": media} if media else {}
    data |= {"positions": settings.positions} if settings.positions != "auto" else {}
    if settings.repetition_penalty is not None:
        data["repetition-penalty"] = settings.repetition_penalty
    data |= {"adapter": settings.adapter} if settings.adapter else {}
    data["certificate"] = dict(certificate)
    comment = "# Written by cg calibrate. A run that differs from the certificate's conditions says so.\n"
    return comment + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def is_ours(path: Path) -> bool:
    """Whether a file is a preset with a certificate. OSError and ValueError as ``read_yaml``."""
    data = read_yaml(path)[0]
    return isinstance(data, dict) and isinstance(data.get("certificate"), dict)


def is_our_plot(path: Path) -> bool:
    """Whether a file is a plot of a calibration. OSError if it cannot be read."""
    return read_bounded(path, MAX_BYTES).rstrip().endswith(PLOT_MARK.encode())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
