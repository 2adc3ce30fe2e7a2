"""Tokens a second when the answers of several clips are generated together, against one clip after another.

``python -m cg_cli.profiling.decoding`` takes the shape of a real model with random weights and ``--layers`` layers, and
prefixes of different lengths with merged tokens, as pruned clips leave them. Numbers of clips take turns in each round,
so that drift hits all alike; ratios are medians of rounds. Random weights say nothing that means anything, and next to
never end an answer before ``--tokens``. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from cg_cli.backbones.base import Backbone, Prefix
from cg_cli.backbones.device import synchronize
from cg_cli.engine.metrics import device_name
from cg_cli.pruning.stream import VIDEO, TokenStream
from cg_cli.settings import models

QUESTION = "What is happening?"
LONGER = 1.5  # times the shortest prefix is the longest


def make_prefixes(backbone: Backbone, rows: int, count: int) -> list[Prefix]:
    """Prefixes of ``rows`` to LONGER times as many random tokens, every fourth of which stands for three."""
    prefixes = []
    for number in range(count):
        length = round(rows * (1 + (LONGER - 1) * number / max(1, count - 1)))
        none = torch.full((length,), -1, device=backbone.device)
        merge_size = torch.ones(length, device=backbone.device)
        merge_size[::4] = 3
        rows_of_clip = torch.randn(length, backbone.hidden_size, device=backbone.device, dtype=backbone.dtype)
        stream = TokenStream(
            embeddings=rows_of_clip * 0.02,
            modality=torch.full_like(none, VIDEO),
            grid=none,
            row=none,
            column=none,
            time_s=none.float(),
            positions=torch.arange(length, device=backbone.device).expand(3, -1),
            next_position=length,
            merge_size=merge_size,
        )
        prefixes.append(backbone.prefill(stream))
    return prefixes


def seconds(backbone: Backbone, prefixes: Sequence[Prefix], together: int, tokens: int) -> tuple[float, int]:
    """Seconds for a question on each clip, ``together`` clips at a time, and the tokens that were generated."""
    began, made = time.perf_counter(), 0
    for start in range(0, len(prefixes), together):
        group = prefixes[start : start + together]
        if together == 1:
            made += len(backbone.answer(group[0], QUESTION, max_new_tokens=tokens).token_ids)
            continue
        asked = [(number, QUESTION) for number in range(len(group))]
        made += sum(len(g.token_ids) for _, g, _ in backbone.answer_batch(group, asked, max_new_tokens=tokens))
    synchronize(backbone.device)
    return time.perf_counter() - began, made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cg_cli.profiling.decoding", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="qwen2.5-omni-7b")
    parser.add_argument("--layers", type=int, default=2, help="of each part, at most")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", type=int, default=2000, help="tokens of the shortest prefix")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--together", type=int, nargs="+", default=[1, 2, 4, 8], help="clips decoded together")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    options = parser.parse_args()
    backbone = models.random_init(options.model, options.layers, device=options.device, dtype=options.dtype)
    prefixes = make_prefixes(backbone, options.rows, max(options.together))
    rounds = []
    for _ in range(options.repeat + 1):  # the first one warms up
        rates = {}
        for count in options.together:
            took, made = seconds(backbone, prefixes, count, options.tokens)
            rates[count] = made / took
        rounds.append(rates)
    first = options.together[0]
    result = {
        "model": options.model,
        "layers": options.layers,
        "device": device_name(backbone.device),
        "dtype": options.dtype,
        "rows": options.rows,
        "tokens": options.tokens,
        "faster": {
            count: statistics.median(rates[count] / rates[first] for rates in rounds[1:]) for count in options.together
        },
    }
    table = Table(
        title=f"{options.model}, {options.layers} layers, random weights, {result['device']}, {options.dtype}: "
        f"answers of {options.tokens} tokens",
        title_justify="left",
    )
    for name in ("clips together", f"tokens a second, against {first}", "spread of rounds"):
        table.add_column(name, justify="right")
    for count in options.together:
        ratios = [rates[count] / rates[first] for rates in rounds[1:]]
        table.add_row(str(count), f"{statistics.median(ratios):.2f} x", f"{min(ratios):.2f}-{max(ratios):.2f}")
    Console(width=100).print(table)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
