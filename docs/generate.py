"""Writes ``docs/reference`` from the code, and ``docs/llms.txt`` from the index: ``python docs/generate.py``. A test
holds them to it."""

from __future__ import annotations

import inspect
import json
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from rich.markup import render

from cg_cli import errors, records
from cg_cli.commands.help import EXAMPLES
from cg_cli.commands.parameters import help_text
from cg_cli.main import app, cg
from cg_cli.settings import presets
from cg_cli.settings.table import SETTINGS

DOCS = Path(__file__).resolve().parent
LINE = 110  # letters
NOTE = "<!-- Written by docs/generate.py: change the code, not this page. -->"
EXIT_CODES = {
    0: "All that was asked was answered, now or by an earlier run.",
    1: "The run failed as a whole: a full disk, a closed pipe, no model, a bug.",
    2: "The command line cannot be carried out. It is said before anything is downloaded, opened or written.",
    3: "The run finished, and something failed or was left out: a file, a row, a folder.",
    4: "There was nothing to do: no question, no video.",
    5: "`cg calibrate` measured, and no keep can be certified: it says why, and what would help.",
    130: "Interrupted (Ctrl-C or SIGTERM), after what was in work was finished and written.",
}


def command_line() -> Iterator[str]:
    """Every command with its options."""
    yield "# Command line"
    yield "Every command and option. `cg COMMAND --help` prints the same for one of them."
    yield (
        "Answers and data go to stdout; progress, tables and warnings go to stderr. Each option of the panels *Model "
        "and run*, *Pruning*, *Reading the video* and *Answering* is a [setting](settings.md): it also comes from the "
        "environment, a config file or a preset. [Exit codes and error types](errors.md)."
    )
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        yield f"## cg {name}"
        first, *others = inspect.cleandoc(plain(command.help)).split("\n\n")
        yield first
        for text in others:
            yield f"```text\n{text.removeprefix(EXAMPLES)}\n```" if text.startswith(EXAMPLES) else text
        context = typer.Context(command, info_name=f"cg {name}")
        yield f"```text\n{' '.join([f'cg {name}', *command.collect_usage_pieces(context)])}\n```"
        panels: dict[str, list[list[str]]] = {}
        for parameter in command.get_params(context):
            if not getattr(parameter, "hidden", False):
                panel = getattr(parameter, "rich_help_panel", None) or (
                    "Arguments" if is_argument(parameter) else "Options"
                )
                panels.setdefault(panel, []).append(row(parameter))
        for panel, rows in panels.items():
            yield f"**{panel}**"
            yield table(["", "value", "what it does"], rows)


def is_argument(parameter: Any) -> bool:
    return parameter.param_type_name == "argument"


def row(parameter: Any) -> list[str]:
    text = plain(parameter.help or "Show this message and exit.")
    if is_argument(parameter):
        return [f"`{parameter.metavar}`", "", text]
    default = parameter.default if type(parameter.default) in (int, float, str) else None
    shown = "" if default in (None, "") or "default" in text else f" (default: {default})"
    flags = ", ".join(f"`{flag}`" for flag in sorted(parameter.opts, key=len, reverse=True))
    return [flags, f"`{parameter.metavar}`" if parameter.metavar else "", text + shown]


def settings() -> Iterator[str]:
    """Every setting and preset."""
    yield "# Settings"
    yield "Every setting: its default, where it can be given, and whether it can change an answer."
    yield (
        "A setting is taken from the first of these that has it: the option, the environment variable, the file that "
        "`--config` names, the nearest `cg.yaml` (here or in a folder above, as far as home or the root of a "
        "repository), `~/.config/cg/config.yaml`, the preset, the default. A preset *named* at one of these levels "
        "counts there, with what it sets: `--preset strong` beats `keep: 0.45` in a file, and `--keep` beats both. A "
        "`cg.yaml` that belongs to somebody else, or that others may write, is left out with a warning. `cg config` "
        "shows what is in effect and why; `cg config --init cg.yaml` writes a commented file to start from."
    )
    yield "```yaml\nmodel: qwen2.5-omni-3b\nkeep: 0.45\nmax-frames: 256\n```"
    rows = []
    for setting in SETTINGS.values():
        default = setting.show_default or ("" if setting.default is None else str(setting.default).lower())
        rows.append(
            [
                f"`{setting.key}`",
                f"`{setting.flag}`, `{setting.variable}`" if setting.flag else "files and presets only",
                default,
                "yes" if setting.answer else "no",
                help_text(setting) if not setting.negated else f"use the sound ({setting.flag}: {setting.help})",
            ]
        )
    yield table(["in a file", "option, variable", "default", "changes answers", "what it is"], rows)
    yield "## Presets"
    yield (
        "A preset sets pruner and keep, and may say how the video is read. It is a YAML file that can be copied and "
        "named by its path: `--preset my.yaml`."
    )
    rows = []
    for name in sorted(presets.names()):
        preset = presets.load(name)
        more = {**preset.options, **preset.media, **preset.model_settings}
        rows.append(
            [f"`{name}`", f"{preset.keep:g}", f"`{preset.pruner}`", ", ".join(f"{k}: {v}" for k, v in more.items())]
        )
    yield table(["preset", "keep", "pruner", "also"], rows)


def record() -> Iterator[str]:
    """Every field of a record."""
    yield "# The record"
    yield (f"Every field of a `{records.SCHEMA}` object, which `cg ask --json` and `cg batch` write for each question.")
    yield (
        "Keys are added, never renamed, and keys of a manifest are passed on into it. Counts come from the tensors "
        'themselves. A question that could not be answered is a record with `"ok": false` and an `error`, never an '
        "empty answer. As JSON Schema: [record.schema.json](record.schema.json)."
    )
    for model, title in ((records.Answer, "An answer"), (records.Failure, "A failure")):
        yield f"## {title}"
        yield table(["field", "type", "what it is"], list(fields(model)))
    yield "## What `cg batch` adds"
    yield (
        "Keys of a manifest's row are passed on into its records; one that records have themselves gets `manifest_` in "
        "front (`manifest_ok`)."
    )
    added = [
        ["`expected`", "string", "The row's `answer`."],
        ["`choices`", "array", "The row's choices."],
        [
            "`correct`",
            "boolean",
            "With choices and an expected answer: whether the answer gives it, by letter or words.",
        ],
        ["`copied_from`", "string", "The video with the same bytes that was answered instead."],
        ["`shown`", "string", "The sheet of what was kept, with `--show-dir`."],
        ["`benchmark`", "object", "With `--benchmark`: annotation file, whose prompt, frames, fps, pixels, length."],
        ["`category`, `groups`", "string, object", "With `--benchmark`: what scores are told by."],
    ]
    yield table(["field", "type", "what it is"], added)


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[list[str]]:
    """The rows of a model and of those in it."""
    if prefix and model.__doc__:
        yield [f"`{prefix.rstrip('.')}`", "object", code(model.__doc__)]
    for name, field in model.model_fields.items():
        inner = next((kind for kind in (field.annotation, *typing.get_args(field.annotation)) if is_model(kind)), None)
        if inner:
            yield from fields(inner, f"{prefix}{name}.")
        else:
            yield [f"`{prefix}{field.alias or name}`", type_words(model, name), code(field.description or "")]


def is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def type_words(model: type[BaseModel], name: str) -> str:
    """The JSON type of a field in words."""
    field = model.model_fields[name]
    schema = model.model_json_schema(mode="serialization")["properties"][field.alias or name]

    def words(part: dict[str, Any]) -> str:
        if "enum" in part:
            return ", ".join(f"`{value}`" for value in part["enum"])
        if "const" in part:
            return f"`{json.dumps(part['const'])}`"
        return " or ".join(map(words, part["anyOf"])) if "anyOf" in part else part.get("type", "any")

    return words(schema)


def exits_and_errors() -> Iterator[str]:
    """Exit codes and error types."""
    yield "# Exit codes and error types"
    yield "What the exit code of a command means, and what the `error.type` of a failed record means and asks for."
    yield "## Exit codes"
    yield table(["code", "what it means"], [[str(code), text] for code, text in EXIT_CODES.items()])
    yield "An error is one line on stderr: what is wrong with which input, and the next step. `CG_DEBUG=1` shows more."
    yield "## Error types"
    yield (
        "A failed record has `error.stage` (`media`, `encode`, `prune`, `prefill` or `decode`), `error.type`, and "
        "`error.message` with the file's name and the next step."
    )
    yield table(["`error.type`", "what it means"], [[f"`{kind}`", text] for kind, text in errors.ERROR_TYPES.items()])
    from cg_cli.batch.job import FOR_GOOD

    yield (
        "`cg batch` tries failures again when the same command runs again, except "
        f"{', '.join(f'`{kind}`' for kind in sorted(FOR_GOOD))} "
        "(set aside: they lie in the file's bytes, and do not count as failed) and `poison`. `--retry` tries all of "
        "them, `--no-retry` none. See [Resume a run](../guides/resume.md)."
    )


def plain(text: str) -> str:
    """Text without Rich's escapes."""
    return render(text).plain if "\\[" in text else text


def code(text: str) -> str:
    """A docstring in one line of Markdown."""
    return " ".join(text.split()).replace("``", "`")


def wrapped(text: str) -> str:
    """A paragraph in lines; tables and blocks as they are."""
    if text.startswith(("|", "```", "#")):
        return text
    return textwrap.fill(text, LINE, break_long_words=False, break_on_hyphens=False)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    clean = lambda cell: " ".join(cell.split()).replace("|", "\\|")
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(clean, line)) + " |" for line in lines)


def pages() -> dict[str, str]:
    """File name -> text."""
    written = {
        "command-line.md": command_line(),
        "settings.md": settings(),
        "record.md": record(),
        "errors.md": exits_and_errors(),
    }
    texts = {}
    for name, parts in written.items():
        title, *rest = parts
        texts[name] = "\n\n".join([title, NOTE, *map(wrapped, rest)]) + "\n"
    texts["record.schema.json"] = json.dumps(records.json_schema(), indent=1) + "\n"
    return {f"reference/{name}": text for name, text in texts.items()} | {"llms.txt": llms()}


def llms() -> str:
    """The index of the pages in the form of llmstxt.org."""
    index = (DOCS / "index.md").read_text(encoding="utf-8").partition("\n## ")
    text = f"# cg\n\n> {cg.__doc__.strip().partition(chr(10))[0]}\n\n## {index[2]}"
    return text.replace("\n* ", "\n- ")


def main() -> None:
    for name, text in pages().items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
