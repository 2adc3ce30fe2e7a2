"""What choosing the tokens costs beside reading them: a pruner and its predictor against the prefill of the whole clip.

``python -m cg_cli.profiling.overhead`` takes the shapes of Qwen2.5-Omni 7B with random weights and runs as many decoder
layers as it is told (``--layers``), since 28 do not fit everywhere; the time of the whole model is that of those
layers, scaled. FLOPs are of the whole model. What the numbers in the tokens are does not change what they cost.
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
from cg_cli.pruning import registry
from cg_cli.pruning.budget import plan
from cg_cli.pruning.predictor import A2VPredictor, PredictorMetadata
from cg_cli.pruning.stream import TokenStream

LAYERS = 28  # of the 7B model
SHAPE = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
HEADER = 20  # text tokens before the clip, about
AUDIO_A_SECOND = 25


@dataclass(frozen=True)
class Clip:
    """A clip by its sizes: ``grids`` of one second, each of ``rows`` x ``columns`` video tokens."""

    grids: int
    rows: int
    columns: int


def stream_of(clip: Clip, width: int, device: torch.device, dtype: torch.dtype) -> TokenStream:
    """Random tokens [L, width] in the layout that ``clip`` has."""
    layout = prefix_layout(HEADER, MediaShape(clip.grids, clip.rows, clip.columns, AUDIO_A_SECOND * clip.grids, 1.0))
    names = ("modality", "grid", "row", "column", "time_s", "positions")
    return TokenStream(
        embeddings=torch.randn(len(layout.modality), width, dtype=dtype, device=device),
        next_position=layout.next_position,
        **{name: getattr(layout, name).to(device) for name in names},
    )


def decoder(layers: int, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """``layers`` layers of the 7B language model with random weights, and next to no vocabulary."""
    config = Qwen2_5OmniTextConfig(**SHAPE, num_hidden_layers=layers, vocab_size=8, use_sliding_window=False)
    with torch.device(device):
        return Qwen2_5OmniThinkerTextModel(config).to(dtype).eval()


def predictor_of(width: int, device: torch.device) -> A2VPredictor:
    """A predictor with random weights, in the sizes that ``cg train-predictor`` makes."""
    predictor = A2VPredictor(PredictorMetadata("random weights", "none", "none", width)).to(device)
    predictor.basis.copy_(torch.linalg.qr(torch.randn(width, predictor.metadata.components)).Q)
    return predictor.requires_grad_(False).eval()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of ``work``, the device's part included."""
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


@torch.no_grad()
def measure(
    pruner_name: str, keep: float, clip: Clip, layers: int, repeat: int, device: torch.device, dtype: torch.dtype
) -> dict:
    """FLOPs and times of selection and prefill; medians over ``repeat`` runs that take turns, after one to warm up."""
    width = SHAPE["hidden_size"]
    stream, model = stream_of(clip, width, device, dtype), decoder(layers, device, dtype)
    pruner = registry.make(pruner_name)
    pruner = pruner.with_predictor(predictor_of(width, device)) if pruner.needs_predictor else pruner

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
            taken = seconds(run, device)
            times[name] += [taken] if turn else []
    median = {name: statistics.median(values) for name, values in times.items()}
    sizes = replace(cost.TextSizes.from_config(model.config), layers=LAYERS)
    video, audio = clip.grids * clip.rows * clip.columns, AUDIO_A_SECOND * clip.grids
    flops = {
        "select": pruner.flops(budget, audio, video, clip.grids, width),
        "prefill": cost.decoder_flops(sizes, len(stream), 0, 0),
    }
    whole = median["prefill"] * LAYERS / layers
    return {
        "pruner": pruner_name, "keep": keep, "video_tokens": video, "audio_tokens": audio, "kept": budget.count,
        "device": str(device), "dtype": str(dtype).removeprefix("torch."), "threads": torch.get_num_threads(),
        "layers_run": layers, "layers": LAYERS, "flops": flops, "flops_share": flops["select"] / flops["prefill"],
        "seconds": median, "spread_s": {name: [min(v), max(v)] for name, v in times.items()},
        "time_share_of_layers_run": median["select"] / median["prefill"], "time_share": median["select"] / whole,
    }  # fmt: skip


def table(found: dict) -> Table:
    """The figures for people."""
    run, all_layers = found["layers_run"], found["layers"]
    title = f"{found['pruner']} at keep {found['keep']:g}: {found['video_tokens']} video and {found['audio_tokens']} audio tokens, 7B width"
    out = Table(title=title, title_justify="left")
    for name in ("", "selection", "prefill of all tokens", "share"):
        out.add_column(name, justify="left" if not name else "right", no_wrap=True)
    flops, taken = found["flops"], found["seconds"]
    out.add_row(
        f"FLOPs, {all_layers} layers",
        f"{flops['select']:.3g}",
        f"{flops['prefill']:.3g}",
        f"{100 * found['flops_share']:.3f} %",
    )
    shares = {run: found["time_share_of_layers_run"], all_layers: found["time_share"]}
    for layers, share in shares.items():
        how = "measured" if layers == run else "scaled"
        out.add_row(
            f"seconds, {layers} layer{'s' * (layers > 1)}, {how}",
            f"{taken['select']:.3f}",
            f"{taken['prefill'] * layers / run:.2f}",
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
    clip = Clip(options.seconds, *options.tokens)
    found = measure(
        options.pruner, options.keep, clip, options.layers, options.repeat, device, resolve_dtype(options.dtype, device)
    )
    Console(stderr=True).print(table(found))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
