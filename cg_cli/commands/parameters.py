"""Parameters that several commands have: the settings, made from their table, and a few more options, once."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer
from rich.markup import escape

from cg_cli.commands import completion
from cg_cli.settings.table import MODEL, SETTINGS, Command, Setting, Settings

CONFIG_HELP = "YAML file with any of these options, before cg.yaml here or above and the user's own config.yaml"


def option(*flags: str, help: str, **more: Any) -> Any:
    """A Typer option whose help is plain text: brackets in it are no markup."""
    return typer.Option(*flags, help=escape(help), show_envvar=False, **more)


def argument(*, metavar: str, help: str) -> Any:
    """A Typer argument whose help is plain text."""
    return typer.Argument(metavar=metavar, help=escape(help))


Config = Annotated[
    Path | None, option("--config", metavar="FILE", help=CONFIG_HELP, rich_help_panel=MODEL, envvar="CG_CONFIG")
]
Show = Annotated[
    list[Path] | None,
    option(
        "--show",
        metavar="FILE",
        help="what was kept: .png a sheet, .mp4 the clip, .html a page, .npz or .json the data; repeat it for more",
    ),
]
Benchmark = Annotated[
    str | None,
    option(
        "--benchmark",
        metavar="NAME",
        autocompletion=completion.benchmarks,
        help="a published benchmark instead of inputs: worldsense, daily-omni, ...",
    ),
]
Data = Annotated[
    Path | None, option("--data", metavar="DIR", help="the benchmark's folder, or one of its annotation files")
]
Json = Annotated[bool, option("--json", help="print one record a line on stdout, and no table")]
Quiet = Annotated[bool, option("--quiet", help="no table, no progress, no warnings on stderr")]
ShortQuiet = Annotated[bool, typer.Option("-q", hidden=True)]
Verbose = Annotated[bool, option("-v", "--verbose", help="also print the settings in effect")]


def with_settings(
    command: Command | None, *, check_machine: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command the options of all settings that ``command`` has (None: every setting), and
    calls it with what they come to, as its argument ``settings``, or, if it has an argument ``resolved``, with their
    sources.

    Args:
        check_machine: refuse devices, dtypes and quantization that this machine does not have.
    """
    table = {name: s for name, s in SETTINGS.items() if s.flag and (command is None or command in s.commands)}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]
        own = [p for p in own if p.name not in ("settings", "resolved")]
        # -q is the question of these; elsewhere scripts may have it for --quiet, and the help does not offer it.
        short_quiet = command not in ("batch", "calibrate") and any(p.name == "quiet" for p in own)
        if short_quiet:
            own.append(inspect.Parameter("q", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=ShortQuiet))

        @functools.wraps(function)
        def run(context: typer.Context, **arguments: Any) -> None:
            from cg_cli.settings import models
            from cg_cli.settings.resolve import resolve_with_sources

            mine = {parameter.name: arguments.pop(parameter.name) for parameter in own}
            if short_quiet:
                mine["quiet"] |= mine.pop("q")
            resolved = resolve_with_sources(_levels(context, arguments, table), arguments["config"])
            if resolved.skipped and not mine.get("quiet"):
                from cg_cli.console.reporter import Reporter

                for line in resolved.skipped:
                    Reporter().line("warning", line)
            if check_machine:
                models.check_machine(resolved.settings)
            _set_environment(resolved.settings, bool(mine.get("quiet")))
            function(**mine, **({"resolved": resolved} if "resolved" in hints else {"settings": resolved.settings}))

        added = [
            inspect.Parameter(s.option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(s))
            for s in table.values()
        ]
        added.append(inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Config))
        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [context, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *added]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def help_text(setting: Setting) -> str:
    """What the help says of a setting: what it is, its range and its default."""
    bounds = setting.bounds.words(largest=1e6)
    facts = [bounds] if bounds else []
    if setting.choices:
        facts.append(f"{', '.join(setting.choices[:-1])} or {setting.choices[-1]}")
    if setting.show_default or not (setting.negated or setting.optional or setting.kind is bool):
        default = f"{setting.default:g}" if isinstance(setting.default, float) else str(setting.default)
        facts.append(f"default: {setting.show_default or default}")
    text = setting.help
    if "{names}" in text:
        text = text.format(names=", ".join(completion.names(setting.complete)))
    return f"{text} ({'; '.join(facts)})" if facts else text


def _annotation(setting: Setting) -> Any:
    kind: Any = Literal[setting.choices] if setting.choices else setting.kind
    complete = getattr(completion, setting.complete) if setting.complete else None
    more = {"autocompletion": complete} if complete else {}
    return Annotated[
        kind | None,
        option(
            setting.flag or "",
            metavar=setting.metavar,
            help=help_text(setting),
            rich_help_panel=setting.panel,
            envvar=setting.variable,
            **more,
        ),
    ]


def _levels(context: typer.Context, arguments: Mapping[str, Any], table: Mapping[str, Setting]) -> list[Any]:
    """What the environment and the flags say, in this order."""
    from cg_cli.settings.resolve import ENVIRONMENT, FLAG, Level

    values: dict[str, dict[str, Any]] = {ENVIRONMENT: {}, FLAG: {}}
    origins: dict[str, dict[str, str]] = {ENVIRONMENT: {}, FLAG: {}}
    for name, setting in table.items():
        value = arguments[setting.option]
        if value is None:
            continue
        source = context.get_parameter_source(setting.option)
        place = ENVIRONMENT if source is not None and source.name == "ENVIRONMENT" else FLAG
        values[place][name] = not value if setting.negated else value
        origins[place][name] = f"{ENVIRONMENT} {setting.variable}" if place == ENVIRONMENT else f"{FLAG} {setting.flag}"
    return [Level(values[place], origins[place]) for place in (ENVIRONMENT, FLAG)]


def _set_environment(settings: Settings, quiet: bool) -> None:
    """What huggingface_hub reads once, when it is imported, here or in a worker."""
    if settings.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
