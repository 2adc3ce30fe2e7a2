"""Pruners by name: listing imports none of them, nor torch; ``make`` imports the one that is used.

A package outside this one adds a pruner by an entry point ``name = "module:Class"`` of the group ``cg_cli.pruners``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from inspect import get_annotations
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_type_hints

from cg_cli.errors import UsageError
from cg_cli.util import plugins
from cg_cli.util.text import closest

if TYPE_CHECKING:
    from cg_cli.pruning.base import Pruner

GROUP = "cg_cli.pruners"


@dataclass(frozen=True)
class Entry(plugins.Entry):
    """One pruner: where its class is (``module:Class``), what it does in one line, and which package brings it."""

    def load(self, kind: str = "pruner") -> type[Pruner]:
        """Import the class. UsageError when that fails, or when it is no Pruner."""
        from cg_cli.pruning.base import Pruner

        cls = super().load(kind)
        if not (isinstance(cls, type) and issubclass(cls, Pruner)):
            raise UsageError(f"{self.target} of package {self.package} is not a subclass of cg_cli.pruning.base.Pruner")
        return cls


MANIFEST: dict[str, Entry] = {
    "contextguard": Entry(
        "cg_cli.pruning.methods.contextguard:ContextGuard", "what audio cannot say (arXiv 2605.11605)"
    ),
    "contextguard-online": Entry(
        "cg_cli.pruning.methods.contextguard_online:ContextGuardOnline", "the same, causal, for streams"
    ),
    "none": Entry("cg_cli.pruning.methods.none:KeepAll", "keep everything (keep 1 only)"),
    "random": Entry("cg_cli.pruning.methods.random:Random", "random tokens, seeded"),
    "uniform": Entry("cg_cli.pruning.methods.uniform:Uniform", "evenly spaced whole grids"),
    "evs": Entry("cg_cli.pruning.methods.evs:Evs", "video tokens that change over time (arXiv 2510.14624)"),
    "vidcom2": Entry(
        "cg_cli.pruning.methods.vidcom2:VidCom2", "video tokens and grids that stand out (arXiv 2505.14454)"
    ),
    "dycoke": Entry(
        "cg_cli.pruning.methods.dycoke:DyCoke", "every fourth grid, and what changes after it (arXiv 2411.15024)"
    ),
    "divprune": Entry(
        "cg_cli.pruning.methods.divprune:DivPrune", "video tokens far from each other (arXiv 2503.02175)"
    ),
    "visionzip": Entry(
        "cg_cli.pruning.methods.visionzip:VisionZip", "dominant tokens, some to stand for the rest (arXiv 2412.04467)"
    ),
    "omnizip": Entry(
        "cg_cli.pruning.methods.omnizip:OmniZip", "audio spreads the video's budget (arXiv 2511.14582, no attention)"
    ),
    "omnisift": Entry(
        "cg_cli.pruning.methods.omnisift:OmniSift", "details, then changes, of each chunk (arXiv 2602.04804, untrained)"
    ),
    "tome": Entry("cg_cli.pruning.methods.tome:ToMe", "similar tokens merge, pair by pair (arXiv 2210.09461)"),
    "omnidrop": Entry(
        "cg_cli.pruning.methods.omnidrop:OmniDrop",
        "what the question attends to, layer by layer (arXiv 2605.14458; between layers)",
    ),
    "seats": Entry(
        "cg_cli.pruning.methods.seats:Seats",
        "diverse tokens, then what the question attends to (arXiv 2605.20035; between layers)",
    ),
    "fastv": Entry(
        "cg_cli.pruning.methods.fastv:FastV",
        "what the question's last token attends to (arXiv 2403.06764; between layers)",
    ),
}


REGISTRY = plugins.Registry(kind="pruner", group=GROUP, bundled=MANIFEST)


def known() -> dict[str, Entry]:
    """Every pruner by name: the bundled ones, then those of installed packages in alphabetical order.

    UsageError if two of them claim one name: which one an answer came from must not depend on install order.
    """
    return {name: Entry(entry.target, entry.summary, entry.package) for name, entry in REGISTRY.entries().items()}


def find(name: str) -> Entry:
    """The entry of ``name``. UsageError for an unknown one, with the closest and all known names."""
    entry = REGISTRY.find(name)
    return Entry(entry.target, entry.summary, entry.package)


def make(name: str, /, **options: Any) -> Pruner:
    """Build the pruner ``name`` with its ``options``. UsageError for an unknown name, or an unknown or wrong option."""
    cls = find(name).load()
    if cls.name == cls.__name__:  # a plug-in that does not name itself goes by its entry point
        cls.name = name
    allowed = [field.name for field in fields(cls) if field.init]
    for option in options:
        if option not in allowed:
            raise UsageError(
                f"pruner '{name}' has no option '{option}'{closest(option, allowed)}; "
                f"its options: {', '.join(allowed) or 'none'}"
            )
    checked = {option: _typed(name, option, _hint(cls, option), value) for option, value in options.items()}
    try:
        return cls(**checked)
    except (TypeError, ValueError) as error:  # a required option is missing, or the class refuses a value
        raise UsageError(f"pruner '{name}': {error}") from error


def _hint(cls: type, option: str) -> Any:
    """The type of one option. ``get_type_hints`` of the class would evaluate all annotations, those too that name what
    only type checkers import."""
    owner = next(base for base in cls.__mro__ if option in get_annotations(base))
    annotation = SimpleNamespace(__annotations__={option: get_annotations(owner)[option]})
    names = vars(sys.modules[owner.__module__])
    return get_type_hints(annotation, names, dict(vars(owner)), include_extras=True)[option]


def _typed(name: str, option: str, hint: Any, value: Any) -> Any:
    """``value`` as the field's type ``hint`` has it; an int passes for a float, nothing else is converted."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
        raise UsageError(f"pruner '{name}', option {option}={value!r}: {problem}") from error
