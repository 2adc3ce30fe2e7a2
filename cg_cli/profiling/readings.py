"""Ways to read a clip, from the options of the command line: other frames, other sizes, looking once.

Between them a number of frames, a number of pixels and a keep ratio are one budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.settings import look_once, resolve
from cg_cli.settings.table import MEDIA, SETTINGS, Settings
from cg_cli.util.text import closest, short

OWN = ""  # the name of the settings' own reading
JOIN = "+"  # between the settings of one reading: no shell minds it
KEYS = {setting.key: setting for setting in SETTINGS.values() if setting.panel == MEDIA and setting.answer}


def readings(texts: Sequence[str], settings: Settings) -> dict[str, Settings]:
    """Ways to read a clip by name: ``settings`` themselves as OWN, then each of ``texts`` that reads it otherwise than
    all before it.

    Args:
        texts: ``SETTING=VALUE`` with a key and a value as in config files, or several with JOIN between them.

    Raises:
        UsageError: what is no such text, or values that cannot be or cannot go together.
    """
    out = {OWN: settings}
    for text in texts:
        try:
            read_so = resolve.changed(settings, _values(text))
        except UsageError as error:
            raise UsageError(f"--reading {short(text)}: {error}") from None
        if _meaning(read_so) not in map(_meaning, out.values()):
            out[_name(settings, read_so)] = read_so
    return out


def sampling(settings: Settings) -> dict[str, Any]:
    """The settings that decide what of a file a model sees and hears, by name."""
    return {setting.name: getattr(settings, setting.name) for setting in KEYS.values()}


def _meaning(settings: Settings) -> dict[str, Any]:
    return sampling(settings) | {"look_once": look_once.levels(settings.look_once)}


def _name(settings: Settings, read_so: Settings) -> str:
    """What ``read_so`` changes in ``settings``, in the order of the table."""
    word = lambda value: f"{value:g}" if isinstance(value, float) else str(value).lower()
    own, other = sampling(settings), sampling(read_so)
    return JOIN.join(f"{key}={word(other[s.name])}" for key, s in KEYS.items() if other[s.name] != own[s.name])


def _values(text: str) -> dict[str, Any]:
    """The values of settings, by name, that a text says."""
    out: dict[str, Any] = {}
    for part in text.split(JOIN):
        key, equals, word = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            raise UsageError(f"give SETTING=VALUE, or several with {JOIN} between them")
        if key not in KEYS:
            raise UsageError(f"no setting '{key}'{closest(key, KEYS)} of how a clip is read: give {', '.join(KEYS)}")
        setting = KEYS[key]
        if setting.name in out:
            raise UsageError(f"{key} is there twice")
        try:
            out[setting.name] = _KINDS[setting.kind](word)
        except (ValueError, KeyError):
            raise UsageError(f"{key} must be {_WORDS[setting.kind]}, not {word!r}") from None
    return out


_KINDS: dict[type, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: lambda word: {"true": True, "false": False}[word],
}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false"}
