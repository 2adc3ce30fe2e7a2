"""Config files: where they are, what they hold, and one to start from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.settings.table import Setting
from cg_cli.util.folders import config_dir
from cg_cli.util.text import closest, one_line

PROJECT = "cg.yaml"


def user_file() -> Path:
    """Where a user's own config file is, whether or not it exists: ``$XDG_CONFIG_HOME/cg/config.yaml`` on Linux."""
    return config_dir() / "config.yaml"


def project_file() -> Path | None:
    """The nearest cg.yaml, in the current folder or one above it; None, too, where nobody may look."""
    try:
        here = Path.cwd()
    except OSError:  # the current folder was removed
        return None
    return next((folder / PROJECT for folder in (here, *here.parents) if os.access(folder / PROJECT, os.F_OK)), None)


def config_files(named: Path | None) -> Iterator[tuple[str, Path]]:
    """The config files that count, the weakest first, each with a word for where it is from; ``named`` is that of --config."""
    if user_file().is_file():
        yield "user config", user_file()
    if project := project_file():
        yield "project config", project
    if named:
        yield "--config", named


def read(path: Path, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The settings in a YAML file; keys are the long options without dashes in front (``max-frames: 64``).

    Args:
        settings: by name, those that a file may hold. One that is optional may be null, which says nothing.

    Raises:
        UsageError: the file cannot be read, is no YAML mapping, or has an unknown key, one twice, or a value of the wrong
            type; one line, with the key and its line.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        # Nodes rather than values: only they know their lines, and whether a key is there twice.
        root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"config file {path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"config file {path}: not valid YAML: {one_line(error)}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"config file {path}: expected lines such as 'model: nano'")
    values: dict[str, Any] = {}
    for node, value in zip((key for key, _ in root.value), _values(root, yaml), strict=True):
        key, where = str(node.value), f"config file {path}, line {node.start_mark.line + 1}"
        name = key.replace("-", "_")
        if name not in settings:
            known = [setting.key for setting in settings.values()]
            raise UsageError(
                f"{where}: unknown key '{key}'{closest(key.replace('_', '-'), known)}; known: {', '.join(known)}"
            )
        if name in values:
            raise UsageError(f"{where}: {key} is there twice")
        setting = settings[name]
        if value is None and setting.optional:
            continue
        if type(value) is not setting.kind and not (setting.kind is float and type(value) is int):
            raise UsageError(f"{where}: {key} must be {_WORDS[setting.kind]}, not {value!r}")
        values[name] = float(value) if isinstance(value, int) and setting.kind is float else value
    return values


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _values(root: Any, yaml: Any) -> list[Any]:
    """The values of a mapping's node, in order."""
    loader = yaml.SafeLoader("")
    return [loader.construct_object(value, deep=True) for _, value in root.value]


def write_starter(
    path: Path, defaults: Mapping[str, Any], settings: Mapping[str, Setting], descriptions: Mapping[str, str]
) -> None:
    """Write a config file to start from: every setting, commented out, with its default and what it is.

    Raises:
        UsageError: there is a file already, or it cannot be written.
    """
    import yaml

    lines = [
        "# Settings of cg. A flag beats CG_* in the environment, that a file given with --config, that the nearest cg.yaml,",
        "# that ~/.config/cg/config.yaml, that the preset. `cg config` shows what is in effect, and why.",
    ]
    for name, setting in settings.items():
        line = yaml.safe_dump({setting.key: defaults[name]}, default_flow_style=False, width=1000).strip()
        lines += ["", f"# {descriptions[name]}", f"# {line}"]
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except FileExistsError:
        raise UsageError(f"{path} is there already: edit it, or name another file") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
