"""The options that every command with a model has, once. Each also reads ``CG_<NAME>`` from the environment."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cg_cli.settings import completion

if TYPE_CHECKING:
    from cg_cli.settings.resolve import Resolved, Settings

PRUNING, MEDIA, ANSWER, RUN = "Pruning", "Reading the video", "Answering", "Model and run"


def _option(name: str, text: str, panel: str, **more):
    return typer.Option(
        f"--{name}", help=text, rich_help_panel=panel, envvar=f"CG_{name.upper().replace('-', '_')}", **more
    )


Model = Annotated[
    str | None,
    _option(
        "model",
        "nano, qwen2.5-omni-3b, qwen2.5-omni-7b, qwen3-omni-30b, video-salmonn2-3b, video-salmonn2-7b, a hub id or a directory; auto: what fits the GPU (default: auto)",
        RUN,
        autocompletion=completion.models,
    ),
]
Preset = Annotated[
    str | None,
    _option(
        "preset",
        "full, light, paper, strong, extreme, online, video-salmonn2, or a .yaml file (default: paper)",
        PRUNING,
        autocompletion=completion.presets,
    ),
]
Keep = Annotated[float | None, _option("keep", "share of audio and video tokens that stays, above 0 up to 1", PRUNING)]
Pruner = Annotated[
    str | None,
    _option(
        "pruner",
        "contextguard, contextguard-online, random, evs, vidcom2 and more (README), none, or one that a package brings",
        PRUNING,
        autocompletion=completion.pruners,
    ),
]
Predictor = Annotated[
    str | None,
    _option(
        "predictor",
        "audio-to-visual predictor, for pruners that use one: a name (cg fetch-predictor), file, folder, or hub repository OWNER/NAME[@REVISION]; "
        "auto: the one that fits the model (default: auto)",
        PRUNING,
        autocompletion=completion.predictors,
    ),
]
Device = Annotated[
    str | None, _option("device", "auto, cpu, cuda, cuda:1 ... (default: auto)", RUN, autocompletion=completion.devices)
]
Dtype = Annotated[
    str | None,
    _option("dtype", "auto, float32, bfloat16 or float16 (default: auto)", RUN, autocompletion=completion.dtypes),
]
Quantize = Annotated[
    str | None,
    _option(
        "quantize",
        "none, int8 or int4: round the language model's weights (needs cg-cli[quantize]; default: none)",
        RUN,
        autocompletion=completion.quantize,
    ),
]
Offline = Annotated[bool | None, _option("offline", "use only what is on this machine", RUN)]
Config = Annotated[
    Path | None,
    _option(
        "config", "YAML file with any of these options, before cg.yaml here or above and ~/.config/cg/config.yaml", RUN
    ),
]
Fps = Annotated[float | None, _option("fps", "frames a second to look at (default: 2)", MEDIA)]
MaxFrames = Annotated[
    int | None, _option("max-frames", "frames at most, spread over the whole video (default: 128)", MEDIA)
]
MaxPixels = Annotated[int | None, _option("max-pixels", "pixels of a frame at most (default: 100352)", MEDIA)]
NoAudio = Annotated[bool | None, _option("no-audio", "leave the sound out", MEDIA)]
DecodeTimeout = Annotated[
    float | None, _option("decode-timeout", "give up on a file after this many seconds (default: 300)", MEDIA)
]
MaxNewTokens = Annotated[int | None, _option("max-new-tokens", "length of an answer at most (default: 256)", ANSWER)]
Temperature = Annotated[
    float | None, _option("temperature", "0: always the likeliest word; above: draw (default: 0)", ANSWER)
]
Seed = Annotated[int | None, _option("seed", "for drawing, and for pruners that draw (default: 0)", ANSWER)]
Show = Annotated[
    list[Path] | None,
    typer.Option(
        "--show",
        metavar="FILE",
        help="draw what was kept: .png a sheet, .mp4 the clip, .html a page; repeat it for more",
    ),
]
ShowDir = Annotated[str | None, _option("show-dir", "folder for a sheet of what was kept of each video", RUN)]
Benchmark = Annotated[
    str | None,
    typer.Option(
        "--benchmark",
        metavar="NAME",
        autocompletion=completion.benchmarks,
        help="worldsense, daily-omni, video-mme, avut, omnivideobench or video-holmes, instead of inputs",
    ),
]
Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="the benchmark's folder, or one of its annotation files")
]
Json = Annotated[bool, typer.Option("--json", help="print one record a line on stdout, and no table")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="no table, no progress, no warnings on stderr")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="also print the settings in effect")]


# By the name of the setting; ``audio`` is told by ``--no-audio``.
SETTINGS: dict[str, Any] = {
    "model": Model, "preset": Preset, "keep": Keep, "pruner": Pruner, "predictor": Predictor, "device": Device, "dtype": Dtype, "quantize": Quantize, "fps": Fps,
    "max_frames": MaxFrames, "max_pixels": MaxPixels, "audio": NoAudio, "max_new_tokens": MaxNewTokens, "temperature": Temperature, "seed": Seed,
    "offline": Offline, "decode_timeout": DecodeTimeout, "show_dir": ShowDir,
}  # fmt: skip

# Of settings without an option: presets and config files set them.
UNLISTED = {
    "min_frames": "frames at least, even if that takes more a second than fps; 0: no such limit",
    "video_pixels": "pixels of all frames together at most; 0: no such limit",
}


def help_of(setting: str) -> str:
    """What the help says of a setting."""
    return UNLISTED[setting] if setting in UNLISTED else SETTINGS[setting].__metadata__[0].help


def resolve_settings(options: Mapping[str, Any], leave_out: Collection[str] = ()) -> Settings:
    """The settings that a command's options come to; under ``--offline``, nothing imported later goes to the network.

    Args:
        options: the command's ``locals()``; what is no setting is passed over.
        leave_out: options that mean something else to this command.

    Raises:
        UsageError: as ``config.explain``.
    """
    settings = resolve_with_sources(options, leave_out).settings
    if settings.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it once, when it is imported, here or in a worker
    if options.get("quiet"):
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return settings


def resolve_with_sources(
    options: Mapping[str, Any], leave_out: Collection[str] = (), context: typer.Context | None = None
) -> Resolved:
    """As ``resolve_settings``, with where each setting is from; ``context``, the command's, tells flags from the environment."""
    from cg_cli.settings.resolve import Settings, explain

    names = {field.name for field in fields(Settings)} - set(leave_out)
    given = {name: value for name, value in options.items() if name in names}
    if options.get("no_audio") is not None:
        given["audio"] = not options["no_audio"]
    said = {}
    for name in given if context else ():
        option = "no_audio" if name == "audio" else name
        source = context.get_parameter_source(option)
        said[name] = (
            f"environment CG_{option.upper()}"
            if source and source.name == "ENVIRONMENT"
            else f"flag --{option.replace('_', '-')}"
        )
    return explain(given, options["config"], said)
