"""``python -m cg_cli.profiling.memory``: what takes how much memory, by model, length of the video and keep.

Computed from sizes alone: no weights are loaded, nothing is downloaded. What is told of a clip is the least that its
prefill needs beside the weights (``backbones.cost.prefill_bytes``); frameworks and drivers take some hundred MiB more.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

from cg_cli.backbones import cost, qwen_shapes, registry
from cg_cli.media.clip import SAMPLE_RATE, DecodeOptions
from cg_cli.media.sizes import fit_size, frame_count
from cg_cli.pruning import budget
from cg_cli.util.format import duration, size

FAMILY = "qwen2_5_omni"
BYTES = {"bfloat16": 2.0, "int8": 1.0, "int4": 0.5}  # of a weight
LENGTHS_S = (60, 600, 3600)
KEEPS = (1.0, 0.45, 0.25, 0.1)
SOURCE_SIZE = (720, 1280)  # of the video: height, width


def weights(model: str) -> dict[str, float]:
    """Bytes of a thinker's weights in bfloat16, and with its language model's linear layers in int8 or int4."""
    with torch.device("meta"):
        thinker = Thinker._from_config(qwen_shapes.config(model, None), dtype=torch.bfloat16)
    every = sum(parameter.numel() for parameter in thinker.parameters())
    linear = sum(
        parameter.numel() for parameter in thinker.model.language_model.layers.parameters() if parameter.ndim == 2
    )
    return {name: linear * of_one + (every - linear) * BYTES["bfloat16"] for name, of_one in BYTES.items()}


def clips(model: str) -> Iterator[Sequence[str]]:
    """A row for each length and keep: audio and video tokens, those that are kept, their KV cache, and what their
    prefill takes at least."""
    sizes = cost.TextSizes.from_config(qwen_shapes.config(model, None).text_config)
    options = DecodeOptions()
    for length in LENGTHS_S:
        frames = frame_count(Fraction(length), options)
        height, width = fit_size(*SOURCE_SIZE, options.frame_pixels(frames), options.side_multiple)
        grids, video, audio = (
            registry.find(FAMILY).load_class().media_tokens(frames, height, width, length * SAMPLE_RATE)
        )
        for keep in KEEPS:
            kept = budget.split(video, audio, grids, keep).count if keep < 1 else video + audio
            cache = kept * cost.kv_bytes_per_token(sizes, 2)
            need = cost.prefill_bytes(sizes, kept, 2)
            yield duration(length), f"{video + audio:,}", f"{keep:g}", f"{kept:,}", size(cache), size(need)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report() -> str:
    """All tables, in Markdown."""
    models = list(qwen_shapes.SIZES)
    rows = [[f"qwen2.5-omni-{model}", *map(size, weights(model).values())] for model in models]
    parts = [table(["model", "weights, bfloat16", "--quantize int8", "--quantize int4"], rows)]
    for model in models:
        parts.append(f"qwen2.5-omni-{model}, beside its weights, with the default frames:")
        header = ["video", "audio + video tokens", "keep", "kept", "KV cache", "prefill with it"]
        parts.append(table(header, list(clips(model))))
    return "\n\n".join(parts)


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m cg_cli.profiling.memory", description=__doc__.partition("\n")[0]
    ).parse_args()
    print(report())


if __name__ == "__main__":
    main()
