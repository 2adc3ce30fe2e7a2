"""The one table of settings: what each is, its default, its bounds, its help, and whether it can change an answer.

Flags, environment variables, config files, presets, completion, `cg config` and a record's key are all made from it.
A new setting is a new field of Settings. Imports nothing heavy.
"""

from __future__ import annotations

import math
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cg_cli.errors import UsageError
from cg_cli.media import defaults

MODEL, PRUNING, MEDIA, ANSWER = "Model and run", "Pruning", "Reading the video", "Answering"  # panels of the help

NO_PRUNER = "none"  # the pruner that keeps everything

Command = Literal["ask", "batch", "profile", "calibrate", "train", "fetch"]
EVERY_COMMAND: tuple[Command, ...] = ("ask", "batch", "profile", "calibrate", "train")  # that loads a model
QUESTIONS: tuple[Command, ...] = ("ask", "batch", "profile", "calibrate")  # commands that generate answers
BATCH_ALONE: tuple[Command, ...] = ("batch",)


def _setting(
    default: Any,
    help: str,
    panel: str,
    *,
    flag: str | None = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    answer: bool = True,
    commands: Collection[Command] = EVERY_COMMAND,
    complete: str = "",
    show_default: str = "",
    value: str = "",
) -> Any:
    """The field of a setting; the arguments are those of ``Setting``. ``flag`` "" is the long option of the field's
    name, None no option at all; bounds are of numbers."""
    bounds = Bounds(at_least, above, at_most, below)
    metadata = {
        "help": help, "panel": panel, "flag": flag, "bounds": bounds, "answer": answer, "commands": tuple(commands),
        "complete": complete, "show_default": show_default, "value": value,
    }  # fmt: skip
    return field(default=default, metadata={"setting": metadata})


@dataclass(frozen=True)
class Bounds:
    """The numbers that a setting may take; None does not bound."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def hold(self, value: float) -> bool:
        """Whether ``value`` is a finite number within the bounds."""
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """In words, e.g. ``above 0 and at most 1``; "" where nothing bounds."""
        return self.words()

    def words(self, largest: float = math.inf) -> str:
        """The bounds below ``largest`` in words: help does without those that only a machine cares about."""
        named = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        return " and ".join(
            f"{word} {number}" for word, number in named.items() if number is not None and number < largest
        )


@dataclass(frozen=True)
class Settings:
    """What one run does. Made by ``settings.resolve``: the preset sets ``keep``, ``pruner``, ``merge`` and
    ``pruner_options``.

    Field names are the long options' names; ``min_frames``, ``video_pixels`` and ``spread_pixels`` have no option,
    presets and config files set them.
    """

    model: str = _setting(
        "auto",
        "{names}, a hub id or a directory; auto: what fits the GPU",
        MODEL,
        complete="models",
    )
    preset: str = _setting(
        "paper",
        "pruner and keep under a name: {names}, or a .yaml file",
        PRUNING,
        answer=False,
        commands=("ask", "batch", "calibrate"),
        complete="presets",
    )
    keep: float = _setting(
        1.0,
        "share of audio and video tokens that stays",
        PRUNING,
        above=0,
        at_most=1,
        commands=("ask", "batch"),
        show_default="the preset's",
        value="SHARE",
    )
    pruner: str = _setting(
        NO_PRUNER,
        "{names}", PRUNING,
        commands=("ask", "batch"), complete="pruners", show_default="the preset's",
    )  # fmt: skip
    merge: Literal["auto", "none", "nearest"] = _setting(
        "auto",
        "dropped tokens: nearest folds each into the nearest kept one; auto: as the preset or the pruner does",
        PRUNING,
        commands=("ask", "batch", "calibrate"),
    )
    repeats: Literal["keep", "merge"] = _setting(
        "keep",
        "tokens that repeat what was encoded (--look-once): keep ranks them as others; merge folds them into what they "
        "repeat, before anything is ranked",
        PRUNING,
        commands=("ask", "batch", "calibrate"),
    )
    predictor: str = _setting(
        "auto", "audio-to-visual predictor, for pruners that use one: a name (cg fetch-predictor), file, folder, or "
        "hub repository OWNER/NAME[@REVISION]; "
        "auto: the model's default", PRUNING, commands=QUESTIONS, complete="predictors",
    )  # fmt: skip
    device: str = _setting("auto", "auto, cpu, cuda, cuda:1 ... or mps", MODEL, answer=False, complete="devices")
    positions: Literal["auto", "training", "inference"] = _setting(
        "auto",
        "of a family with two published sets of rotary positions (video-SALMONN 2+): which; auto: its usual one",
        MODEL,
    )
    adapter: str | None = _setting(
        None,
        "LoRA adapter to merge into the model: a folder, or OWNER/NAME on the hub (needs cg-cli[lora])",
        MODEL,
        value="FOLDER",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = _setting(
        "auto", "of the weights; auto: bfloat16 on a GPU, float32 on a CPU", MODEL
    )
    quantize: Literal["none", "int8", "int4"] = _setting(
        "none", "quantize the language model's linear layers (needs cg-cli[quantize])", MODEL, commands=QUESTIONS
    )
    fps: float = _setting(defaults.FPS, "frames a second to look at", MEDIA, above=0, at_most=1000)
    max_frames: int = _setting(defaults.MAX_FRAMES, "frames at most, spread over the whole video", MEDIA, at_least=2)
    frames: Literal["uniform", "pairs", "change", "linspace"] = _setting(
        "uniform",
        "which, if max-frames leaves some out: uniform: evenly spaced; pairs: whole grids, evenly spread; "
        "change: half of the grids where the picture changes; linspace: always by number, from the first to the last",
        MEDIA,
    )
    look_once: str = _setting(
        "exact",
        "do not encode frames again that repeat what was encoded: exact; LEVELS of 255 that they may differ; off",
        MEDIA,
        value="LEVELS",
    )
    max_pixels: int = _setting(
        defaults.MAX_PIXELS, "pixels of a frame at most; one token takes 784", MEDIA, at_least=28 * 28
    )
    audio: bool = _setting(True, "leave the sound out", MEDIA, flag="--no-audio", commands=QUESTIONS)
    audio_track: int = _setting(
        0,
        "which sound track, from 1 on; 0: the one that the file presents first",
        MEDIA,
        at_least=0,
        commands=QUESTIONS,
    )
    max_new_tokens: int = _setting(256, "length of an answer at most", ANSWER, at_least=1, commands=QUESTIONS)
    temperature: float = _setting(
        0.0, "0: greedy; above: sample", ANSWER, at_least=0, below=100, commands=("ask", "batch")
    )
    repetition_penalty: float | None = _setting(
        None,
        "divides the logits of tokens that prompt or answer have already, multiplies negative ones; 1: off",
        ANSWER,
        above=0,
        commands=("ask", "batch", "calibrate"),
        show_default="the checkpoint's",
    )
    seed: int = _setting(0, "for sampling, and for pruners that draw", ANSWER, at_least=0, below=2**63)
    offline: bool = _setting(
        False, "use only what is on this machine", MODEL, answer=False, commands=(*EVERY_COMMAND, "fetch")
    )
    decoder: Literal["cpu", "nvdec"] = _setting(
        "cpu",
        "nvdec: on an NVIDIA GPU where that gives the same frames, else on the CPU, with a warning",
        MEDIA,
        answer=False,
    )
    decode_timeout: float = _setting(
        defaults.TIMEOUT_S, "give up on a file after so many seconds", MEDIA, above=0, answer=False, value="SECONDS"
    )
    show_dir: str | None = _setting(
        None,
        "folder for a sheet of what was kept of each video",
        MODEL,
        answer=False,
        commands=BATCH_ALONE,
        value="DIR",
    )
    min_frames: int = _setting(
        0, "frames at least, even if that takes more a second than fps; 0: no such limit", MEDIA, flag=None, at_least=0
    )
    video_pixels: int = _setting(
        0, "pixels of all frames together at most; 0: no such limit", MEDIA, flag=None, at_least=0
    )
    spread_pixels: float = _setting(
        0.0,
        "where fewer than max-frames are read: this share of max-frames x max-pixels is spread over them; "
        "0: max-pixels each",
        MEDIA,
        flag=None,
        at_least=0,
        at_most=1,
    )
    pruner_options: Mapping[str, Any] = field(default_factory=dict)  # of the preset's pruner
    certificate: Mapping[str, Any] | None = None  # of the preset


@dataclass(frozen=True)
class Resolved:
    """Settings, and by name where each is from; a default has no origin. ``skipped``: a line for each config file that
    does not count since others could have written it."""

    settings: Settings
    origins: Mapping[str, str]
    skipped: Sequence[str] = ()


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        name: with underscores; what records and Python call it.
        kind: str, int, float or bool.
        choices: the values that a closed set has; () for an open one.
        default: what it is when nobody says anything.
        help, panel: for people; the text is plain, not markup, and ``{names}`` in it stands for what ``complete``
            knows.
        flag: the long option; None if there is none. One that starts with ``--no-`` says the opposite of the setting.
        bounds: of a number.
        optional: whether null is a value.
        answer: whether it can change an answer, by itself or through what it chooses.
        commands: that have it as an option.
        complete: name of the function in ``commands.completion``, or "".
        show_default: what the help says instead of the default.
        value: what the help calls its value; "" for the name.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    default: Any
    help: str
    panel: str
    flag: str | None
    bounds: Bounds
    optional: bool
    answer: bool
    commands: tuple[Command, ...]
    complete: str
    show_default: str
    value: str

    @property
    def key(self) -> str:
        """Its name in config files: with dashes."""
        return self.name.replace("_", "-")

    @property
    def negated(self) -> bool:
        return (self.flag or "").startswith("--no-")

    @property
    def option(self) -> str:
        """The name of its option as a Python argument, e.g. ``no_audio``."""
        return (self.flag or self.name).removeprefix("--").replace("-", "_")

    @property
    def metavar(self) -> str:
        """What stands for its value in the help; "" for a flag."""
        if self.kind is bool:
            return ""
        return self.value or ("N" if self.kind in (int, float) else self.name.upper())

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"CG_{self.option.upper()}"

    def check(self, value: Any, origin: str = "") -> None:
        """UsageError, which names ``origin`` if there is one, for a value that the setting cannot have."""
        if value is None and self.optional:
            return
        where = f" (from {origin})" if origin else ""
        name = self.flag if self.flag and not self.negated else self.key
        if self.choices and value not in self.choices:
            raise UsageError(f"{name} {value}: give {', '.join(self.choices[:-1])} or {self.choices[-1]}{where}")
        if self.kind in (int, float) and not self.bounds.hold(value):
            raise UsageError(f"{name} must be {self.bounds or 'a finite number'}, not {value}{where}")


def _table() -> dict[str, Setting]:
    hints = get_type_hints(Settings)
    table = {}
    for entry in fields(Settings):
        if "setting" not in entry.metadata:
            continue
        hint, optional = hints[entry.name], False
        if get_origin(hint) in (Union, types.UnionType):
            hint, optional = next(kind for kind in get_args(hint) if kind is not type(None)), True
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        data = dict(entry.metadata["setting"])
        if data["flag"] == "":
            data["flag"] = f"--{entry.name.replace('_', '-')}"
        table[entry.name] = Setting(
            name=entry.name,
            kind=str if choices else hint,
            choices=choices,
            default=entry.default,
            optional=optional,
            **data,
        )
    return table


SETTINGS: dict[str, Setting] = _table()
