"""How the help of commands looks: examples first, paragraphs that fill the terminal, no types of flags."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rich.markup import escape
from typer.core import TyperArgument, TyperCommand, TyperGroup

EXAMPLES = "\b\n"  # begins a paragraph whose lines stay as they are
ENVIRONMENT = (
    "Most options also come from the environment (CG_MAX_FRAMES=64 for --max-frames 64), from a cg.yaml, or from a "
    "preset: `cg config` shows what is in effect and why."
)


class Command(TyperCommand):
    """A command whose flags and arguments show no type, but for what an option calls its value."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _untyped(super().get_params(ctx))


class Group(TyperGroup):
    """The commands together, shown as a ``Command`` is."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _untyped(super().get_params(ctx))


def help_of(command: Callable[..., Any]) -> str:
    """The help in a command's docstring: what it does, its examples, and then the rest."""
    first, *others = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    examples = [text for text in others if text.startswith(EXAMPLES)]
    rest = [" ".join(text.split()) for text in others if not text.startswith(EXAMPLES)]
    return escape("\n\n".join([" ".join(first.split()), *examples, *rest]))


def _untyped(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if isinstance(parameter, TyperArgument):
            # Its name says it; Typer has no option for this.
            parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
        elif parameter.is_flag and parameter.metavar is None:
            parameter.metavar = ""
    return parameters
