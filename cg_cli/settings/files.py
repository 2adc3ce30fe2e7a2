"""Config files: where they are, what they hold, and one to start from."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.settings import look_once
from cg_cli.settings.table import Setting
from cg_cli.util.folders import config_dir
from cg_cli.util.text import closest, short

PROJECT = "cg.yaml"


def user_file() -> Path:
    """Where a user's own config file is, whether or not it exists: ``$XDG_CONFIG_HOME/cg/config.yaml`` on Linux."""
    return config_dir() / "config.yaml"


def project_file() -> Path | None:
    """The nearest cg.yaml, in the current folder or one above it, as far as the home folder or the root of a repository
    (one with .git), these included; None, too, where nobody may look."""
    try:
        here = Path.cwd()
    except OSError:  # the current folder was removed
        return None
    home = Path(os.path.realpath(Path.home()))
    for folder in (here, *here.parents):
        if os.access(folder / PROJECT, os.F_OK):
            return folder / PROJECT
        if folder == home or os.access(folder / ".git", os.F_OK):
            return None
    return None


def config_files(named: Path | None) -> Iterator[tuple[str, Path]]:
    """The config files that count, the weakest first, each with a word for where it is from; ``named`` is that of
    --config, which is obeyed whoever owns it."""
    yield from ((word, path) for word, path in _unnamed_files() if not distrust(path))
    if named:
        yield "--config", named


def skipped_files() -> list[str]:
    """A line for each config file that does not count since others could have written it."""
    return [
        f"{word} {path} is left out: {reason}; name it with --config to use it all the same"
        for word, path in _unnamed_files()
        if (reason := distrust(path))
    ]


def _unnamed_files() -> Iterator[tuple[str, Path]]:
    if os.access(user_file(), os.F_OK):
        yield "user config", user_file()
    if project := project_file():
        yield "project config", project


def distrust(path: Path) -> str:
    """Why a config file that nobody named must not be obeyed, as git's safe.directory has it; "" for one that may be.

    The file, and a link to it, belong to the user or to root; nobody else may write the file (the user's private group
    may: it has no other member), nor put another one in its place (a folder that everybody may write is sticky).
    """
    try:
        link, file, folder = os.lstat(path), os.stat(path), os.stat(path.parent)
    except OSError:
        return ""  # reading it says what is wrong
    for status in (link, file):
        if status.st_uid not in (os.geteuid(), 0):
            return f"it belongs to {_user_name(status.st_uid)}"
    if file.st_mode & stat.S_IWOTH or (file.st_mode & stat.S_IWGRP and not _is_private_group(file.st_gid)):
        return "others may write it (chmod go-w)"
    if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
        return f"others may replace it in {path.parent}"
    return ""


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _is_private_group(gid: int) -> bool:
    """Whether a group is the user's own, of the same name and without another member, or root's."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}


def read(path: Path, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The settings in a YAML file; keys are the long options without dashes in front (``max-frames: 64``).

    Args:
        settings: by name, those that a file may hold. One that is optional may be null, which says nothing.

    Raises:
        UsageError: the file cannot be read, is no YAML mapping, or has an unknown key, one twice, or a value of the
            wrong type; one line, with the key and its line.
    """
    from cg_cli.util.yaml import YamlError, read_yaml, values

    try:
        # Nodes as well as values: only they know their lines, and whether a key is there twice.
        data, root = read_yaml(path)
    except OSError as error:
        raise UsageError(f"config file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"config file {path}: not UTF-8 text") from error
    except YamlError as error:
        line = f", line {error.line}" if error.line else ""
        raise UsageError(f"config file {path}{line}: not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"config file {path}: expected lines such as 'model: nano'")
    settings_data: dict[str, Any] = {}
    for (node, _), value in zip(root.value, values(root), strict=True):
        key, where = str(node.value), f"config file {path}, line {node.start_mark.line + 1}"
        name = key.replace("-", "_")
        if name not in settings:
            known = [setting.key for setting in settings.values()]
            raise UsageError(
                f"{where}: unknown key '{short(key)}'{closest(key.replace('_', '-'), known)}; known: {', '.join(known)}"
            )
        if name in settings_data:
            raise UsageError(f"{where}: {key} is there twice")
        setting = settings[name]
        value = look_once.from_yaml(value) if name == "look_once" else value
        if value is None and setting.optional:
            continue
        if type(value) is not setting.kind and not (setting.kind is float and type(value) is int):
            quote = " (put it in quotes)" if setting.kind is str and isinstance(value, bool | int | float) else ""
            raise UsageError(f"{where}: {key} must be {_WORDS[setting.kind]}, not {short(repr(value))}{quote}")
        settings_data[name] = float(value) if isinstance(value, int) and setting.kind is float else value
    return settings_data


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def write_starter(
    path: Path, defaults: Mapping[str, Any], settings: Mapping[str, Setting], descriptions: Mapping[str, str]
) -> None:
    """Write a config file to start from: every setting, commented out, with its default and what it is.

    Raises:
        UsageError: there is a file already, or it cannot be written.
    """
    import yaml

    lines = [
        "# Settings of cg. A flag beats CG_* in the environment, that a file given with --config, that the nearest",
        "# cg.yaml, that ~/.config/cg/config.yaml, that the preset. `cg config` shows what is in effect, and why.",
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
