"""Objects by name: those of this package from a table, those of other packages from entry points.

Listing imports none of them; ``load`` imports the one that is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from cg_cli.errors import UsageError
from cg_cli.util.text import closest


@dataclass(frozen=True)
class Entry:
    """One plug-in: where its object is (``module:name``), what it is in one line, and which package brings it."""

    target: str
    summary: str
    package: str = "cg-cli"

    def load(self, kind: str) -> Any:
        """Import the object. UsageError, which calls it a ``kind``, when that fails."""
        try:
            return metadata.EntryPoint(name="", value=self.target, group="").load()
        except (ImportError, AttributeError) as error:
            raise UsageError(f"{kind} {self.target} of package {self.package} cannot be imported: {error}") from error


@dataclass(frozen=True)
class Registry:
    """The plug-ins of one kind.

    Attributes:
        kind: what one is called in messages, e.g. ``pruner``.
        group: of the entry points.
        bundled: by name, those of this package.
    """

    kind: str
    group: str
    bundled: Mapping[str, Entry]

    def entries(self) -> dict[str, Entry]:
        """All by name: the bundled ones, then those of installed packages in alphabetical order.

        UsageError if two of them claim one name: which one an answer came from must not depend on install order.
        """
        entries = dict(self.bundled)
        for point in sorted(metadata.entry_points(group=self.group), key=lambda point: point.name):
            package = point.dist.name if point.dist else "(unknown)"
            if point.name in entries:
                first = entries[point.name].package
                raise UsageError(
                    f"packages {first} and {package} both bring a {self.kind} '{point.name}': uninstall one"
                )
            entries[point.name] = Entry(point.value, f"from package {package}", package)
        return entries

    def find(self, name: str) -> Entry:
        """The entry of ``name``. UsageError for an unknown one, with the closest and all known names."""
        entries = self.entries()
        if name not in entries:
            raise UsageError(f"no {self.kind} '{name}'{closest(name, entries)}; known: {', '.join(entries)}")
        return entries[name]
