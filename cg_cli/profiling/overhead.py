"""The overhead of token selection: FLOPs and time of a pruner and its predictor, against prefill of the whole clip.

``python -m cg_cli.profiling.overhead`` takes the shapes of Qwen2.5-Omni 7B with random weights and runs ``--layers``
decoder layers, since 28 do not fit everywhere; the time of the whole model is that of those layers, scaled. FLOPs are
of the whole model. The values in the tokens do not change the costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerTextModel

from cg_cli.backbones import cost
from cg_cli.backbones.device import resolve_device, resolve_dtype, synchronize
from cg_cli.backbones.qwen2_5_omni.layout import MediaShape, prefix_layout
from cg_cli.profiling.random_predictor import random_predictor
from cg_cli.pruning import registry
from cg_cli.pruning.budget import plan
from cg_cli.pruning.stream import TokenStream

LAYERS = 28  # of the 7B model
SHAPE = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
HEADER = 20  # text tokens before the clip, about
AUDIO_TOKENS_PER_S = 25


@dataclass(frozen=True)
class ClipShape:
    """``grids`` of one second, each of ``rows`` x ``columns`` video tokens."""

    grids: int
    rows: int
    columns: int


def random_stream(shape: ClipShape, width: int, device: torch.device, dtype: torch.dtype) -> TokenStream:
    """Random tokens [L, width] in the layout of a clip of ``shape``."""
    audio = AUDIO_TOKENS_PER_S * shape.grids
    layout = prefix_layout(HEADER, MediaShape(shape.grids, shape.rows, shape.columns, audio, 1.0))
    names = ("modality", "grid", "row", "column", "time_s", "positions")
    return TokenStream(
        embeddings=torch.randn(len(layout.modality), width, dtype=dtype, device=device),
        next_position=layout.next_position,
        **{name: getattr(layout, name).to(device) for name in names},
    )


def random_decoder(layers: int, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """``layers`` layers of the 7B language model with random weights, and next to no vocabulary."""
    config = Qwen2_5OmniTextConfig(**SHAPE, num_hidden_layers=layers, vocab_size=8, use_sliding_window=False)
    with torch.device(device):
        return Qwen2_5OmniThinkerTextModel(config).to(dtype).eval()


def wall_time(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of ``work`` on host and device."""
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


@torch.no_grad()
def measure(
    pruner_name: str, keep: float, shape: ClipShape, layers: int, repeat: int, device: torch.device, dtype: torch.dtype
) -> dict:
    """FLOPs and seconds of selection and prefill; medians over ``repeat`` alternating runs, after a warm-up."""
    width = SHAPE["hidden_size"]
    stream, model = random_stream(shape, width, device, dtype), random_decoder(layers, device, dtype)
    pruner = registry.make(pruner_name)
    pruner = pruner.with_predictor(random_predictor(width, device)) if pruner.needs_predictor else pruner

    def prefill() -> Tensor:
        cache = DynamicCache(config=model.config)
        return model(
            inputs_embeds=stream.embeddings[None],
            position_ids=stream.positions[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    budget = plan(stream, keep)
    work = {"select": lambda: pruner.select(stream, budget), "prefill": prefill}
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeat + 1):
        for name, run in work.items():
            elapsed = wall_time(run, device)
            times[name] += [elapsed] if turn else []
    median = {name: statistics.median(values) for name, values in times.items()}
    sizes = replace(cost.TextSizes.from_config(model.config), layers=LAYERS)
    video, audio = shape.grids * shape.rows * shape.columns, AUDIO_TOKENS_PER_S * shape.grids
    flops = {
        "select": pruner.flops(budget, audio, video, shape.grids, width),
        "prefill": cost.decoder_flops(sizes, len(stream), 0, 0),
    }
    all_layers_s = median["prefill"] * LAYERS / layers
    return {
        "pruner": pruner_name,
        "keep": keep,
        "video_tokens": video,
        "audio_tokens": audio,
        "kept": budget.count,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "layers_run": layers,
        "layers": LAYERS,
        "flops": flops,
        "flops_share": flops["select"] / flops["prefill"],
        "seconds": median,
        "spread_s": {name: [min(v), max(v)] for name, v in times.items()},
        "time_share_of_layers_run": median["select"] / median["prefill"],
        "time_share": median["select"] / all_layers_s,
    }


def table(overhead: dict) -> Table:
    """The result of ``measure`` for a terminal."""
    run, all_layers = overhead["layers_run"], overhead["layers"]
    counts = f"{overhead['video_tokens']} video and {overhead['audio_tokens']} audio tokens"
    title = f"{overhead['pruner']} at keep {overhead['keep']:g}: {counts}, 7B width"
    out = Table(title=title, title_justify="left")
    for name in ("", "selection", "prefill of all tokens", "share"):
        out.add_column(name, justify="left" if not name else "right", no_wrap=True)
    flops, seconds = overhead["flops"], overhead["seconds"]
    out.add_row(
        f"FLOPs, {all_layers} layers",
        f"{flops['select']:.3g}",
        f"{flops['prefill']:.3g}",
        f"{100 * overhead['flops_share']:.3f} %",
    )
    shares = {run: overhead["time_share_of_layers_run"], all_layers: overhead["time_share"]}
    for layers, share in shares.items():
        how = "measured" if layers == run else "scaled"
        out.add_row(
            f"seconds, {layers} layer{'s' * (layers > 1)}, {how}",
            f"{seconds['select']:.3f}",
            f"{seconds['prefill'] * layers / run:.2f}",
            f"{100 * share:.2f} %",
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.profiling.overhead", description=__doc__)
    parser.add_argument("--pruner", default="contextguard")
    parser.add_argument("--keep", type=float, default=0.45)
    parser.add_argument("--seconds", type=int, default=30, help="of the clip, at 2 frames a second")
    parser.add_argument(
        "--tokens",
        type=int,
        nargs=2,
        default=(9, 16),
        metavar=("ROWS", "COLUMNS"),
        help="of a grid (default 9 16: 252 x 448 pixels)",
    )
    parser.add_argument("--layers", type=int, default=1, help=f"decoder layers that are run, of {LAYERS}")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    device = resolve_device(options.device)
    shape = ClipShape(options.seconds, *options.tokens)
    overhead = measure(
        options.pruner,
        options.keep,
        shape,
        options.layers,
        options.repeat,
        device,
        resolve_dtype(options.dtype, device),
    )
    Console(stderr=True).print(table(overhead))
    print(json.dumps(overhead))


if __name__ == "__main__":
    main()
