"""Whether a clip fits the device's memory, and what to give up where it does not."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from cg_cli.backbones.base import Backbone
from cg_cli.backbones.device import free_bytes
from cg_cli.errors import ItemError
from cg_cli.media.clip import Clip
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.stream import TokenStream
from cg_cli.util.format import size

OUT_OF_MEMORY = "out_of_memory"  # the kind of such an error
SHRINK = 0.5  # of the budget, for the one retry after an error of that kind
MARGIN = 0.9  # of what is free, for advice: estimates leave things out
SELECTION = 0.5  # of the stream: what ContextGuard takes beside it (``python -m cg_cli.profiling.selection``)
KEEPS_ALL = "none"  # the pruner that cannot keep less


def needed_bytes(backbone: Backbone, stream: TokenStream, tokens: int) -> int:
    """Bytes that it takes at least, beside ``stream`` itself, to choose ``tokens`` of its rows and to read these: the
    pruned stream and its prefill or, at ratios of a few percent, the choice. All rows are neither chosen nor copied."""
    if tokens >= len(stream):
        return backbone.prefill_bytes(tokens)
    size = stream.embeddings.nbytes + sum(rows.nbytes for rows in stream.carry.values())
    return max(int(SELECTION * size), size * tokens // len(stream) + backbone.prefill_bytes(tokens))


def check_fits(
    backbone: Backbone,
    clip: Clip,
    stream: TokenStream,
    tokens: int,
    full: Mapping[str, int],
    keep: float,
    pruner: Pruner,
) -> None:
    """Say before it fails that to choose ``tokens`` rows of ``stream`` and to read them will not fit what is free on
    the device.

    Args:
        stream: the clip unpruned, which is on the device already.
        full: its video, audio and text tokens; ``keep`` of the first two are read.

    Raises:
        ItemError: stage "prefill", kind OUT_OF_MEMORY, with the options that would make it fit. What is counted is the
            least that is needed, so nothing is refused that would have fitted.
    """
    free, need = free_bytes(backbone.device), needed_bytes(backbone, stream, tokens)
    if free is None or need <= free:
        return
    room = MARGIN * free / need * tokens - full["text"]  # for audio and video tokens
    less_keep = math.floor(100 * room / (full["video"] + full["audio"])) / 100
    ways = [f"--keep {less_keep:g}"] if pruner.name != KEEPS_ALL and less_keep > 0 else []
    frames = 0
    if full["video"] and clip.frames is not None:
        frames = int((room / keep - full["audio"]) / full["video"] * len(clip.frames))
    ways += [f"--max-frames {frames}"] if frames >= 2 else []
    advice = f"{' or '.join(ways)} would fit" if ways else "take a smaller model"
    message = (
        f"reading {tokens:,} tokens takes {size(need)} at least, and {size(free)} are free on "
        f"{backbone.device}: {advice}"
    )
    raise ItemError("prefill", message, OUT_OF_MEMORY)


def shrink_after_oom(clip: Clip, keep: float, pruner: Pruner, stage: str) -> tuple[Clip, float, str] | None:
    """A smaller budget after running out of memory in ``stage``: fewer tokens kept, or, where pruning comes too late or
    not at all, fewer frames. The clip, the keep ratio, and both in words; None where nothing can be less."""
    if (stage != "encode" and pruner.name != KEEPS_ALL) or clip.frames is None or len(clip.frames) < 2:
        if pruner.name == KEEPS_ALL:
            return None
        return clip, keep * SHRINK, f"keep {keep * SHRINK:g} instead of {keep:g}"
    assert clip.frame_times is not None
    step = round(1 / SHRINK)
    if clip.grid_starts is not None and len(clip.grid_starts) > 1:  # the frames of a grid belong together
        fewer = clip.with_grids(range(0, len(clip.grid_starts), step))
    else:
        frames, times = clip.frames[::step], clip.frame_times[::step]
        slot = clip.seconds_per_frame * len(clip.frames) / len(frames)
        fewer = replace(clip, frames=frames, frame_times=times, seconds_per_frame=slot)
    assert fewer.frames is not None
    return fewer, keep, f"{len(fewer.frames)} frames instead of {len(clip.frames)}"


def release(device: torch.device) -> None:
    """Give back what tensors that are gone have left."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
