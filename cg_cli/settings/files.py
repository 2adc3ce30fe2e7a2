"""Config files: where they are, what they hold, and one to start from."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.util.text import closest

PROJECT = "cg.yaml"


def user_file() -> Path:
    """Where a user's own config file is, whether or not it exists: ``$XDG_CONFIG_HOME/cg/config.yaml``."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "cg" / "config.yaml"


def project_file() -> Path | None:
    """The nearest cg.yaml, in the current folder or one above it; None, too, where nobody may look."""
    try:
        here = Path.cwd()
    except OSError:  # the current folder was removed
        return None
    return next((folder / PROJECT for folder in (here, *here.parents) if os.access(folder / PROJECT, os.F_OK)), None)


def found(config: Path | None) -> Iterator[tuple[str, Path]]:
    """The config files that count, the weakest first, each with a word for where it is from; ``config`` is the one that
    was named."""
    if user_file().is_file():
        yield "user config", user_file()
    if project := project_file():
        yield "project config", project
    if config:
        yield "--config", config


def read(path: Path, types: Mapping[str, type], empty: Collection[str] = ()) -> dict[str, Any]:
    """The settings in a YAML file; keys are the long options without dashes in front (``max-frames: 64``).

    Args:
        types: of each setting, by its name with underscores.
        empty: settings that may be null, which says nothing.

    Raises:
        UsageError: the file cannot be read, is no YAML mapping, or has an unknown key, one twice, or a value of the
            wrong type; one line, with the key and its line.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        # Nodes rather than values: only they know their lines, and whether a key is there twice.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"config file {path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"config file {path}: not valid YAML: {' '.join(str(error).split())}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"config file {path}: expected lines such as 'model: nano'")
    out: dict[str, Any] = {}
    for node, value in zip((key for key, _ in root.value), _values(root, yaml), strict=True):
        key, where = str(node.value), f"config file {path}, line {node.start_mark.line + 1}"
        name = key.replace("-", "_")
        if name not in types:
            known = [n.replace("_", "-") for n in types]
            raise UsageError(
                f"{where}: unknown key '{key}'{closest(key.replace('_', '-'), known)}; known: {', '.join(known)}"
            )
        if name in out:
            raise UsageError(f"{where}: {key} is there twice")
        if value is None and name in empty:
            continue
        wanted = types[name]
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise UsageError(f"{where}: {key} must be {_WORDS[wanted]}, not {value!r}")
        out[name] = wanted(value)
    return out


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _values(root: Any, yaml: Any) -> list[Any]:
    """The values of a mapping's node, in order."""
    loader = yaml.SafeLoader("")
    return [loader.construct_object(value, deep=True) for _, value in root.value]


def starter(path: Path, settings: Mapping[str, tuple[Any, str]]) -> None:
    """Write a config file to start from: every setting, commented out, with its default and what it is.

    Args:
        settings: by name with underscores, default and help.

    Raises:
        UsageError: there is a file already, or it cannot be written.
    """
    import yaml

    lines = [
        "# Settings of cg. A flag beats CG_* in the environment, that a file given with --config, that the nearest cg.yaml,",
        "# that ~/.config/cg/config.yaml, that the preset. `cg config` shows what is in effect, and why.",
    ]
    for name, (default, text) in settings.items():
        shown = yaml.safe_dump({name.replace("_", "-"): default}, default_flow_style=False, width=1000).strip()
        lines += ["", f"# {text}", f"# {shown}"]
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except FileExistsError:
        raise UsageError(f"{path} is there already: edit it, or name another file") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
