"""The vision tower of the Qwen families: from frames to video tokens, some grids at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cg_cli.backbones import cost, qwen_inputs


def encode_video(
    model: Any, frames: np.ndarray, sources: np.ndarray, sizes: cost.VisionSizes, norm: qwen_inputs.PixelNorm
) -> tuple[Tensor, Tensor | None]:
    """Video features [V, D] of frames [N, H, W, 3] uint8, grid by grid in raster order, and deepstack rows [V, layers,
    D] where the tower has some. Grids that repeat others, by ``sources`` [G], are not encoded: no attention of the
    tower reaches across grids.

    Args:
        model: with ``get_video_features``, as transformers has it.
        sources: the grid that each one is encoded in, its own or an earlier one.
        norm: of pixels.
    """
    height, width = frames.shape[1] // sizes.patch, frames.shape[2] // sizes.patch
    frames = qwen_inputs.even_frames(frames, sizes.temporal_patch)
    by_grid = frames.reshape(-1, sizes.temporal_patch, *frames.shape[1:])
    looked_at, place = np.unique(sources, return_inverse=True)
    features, deepstack = [], []
    for start, stop in qwen_inputs.grid_pieces(len(looked_at), height * width):
        some = looked_at[start:stop]
        # Side by side they are taken as they are; a list of numbers would copy.
        whole = some[-1] - some[0] + 1 == len(some)
        piece = by_grid[some[0] : some[-1] + 1] if whole else by_grid[some]
        pixels = qwen_inputs.patchify(
            torch.tensor(piece.reshape(-1, *frames.shape[1:]), device=model.device),
            norm,
            patch=sizes.patch,
            merge=sizes.merge,
            temporal=sizes.temporal_patch,
        )
        grid_thw = torch.tensor([[stop - start, height, width]], device=model.device)
        output = model.get_video_features(pixels, grid_thw, return_dict=True)
        features += output.pooler_output
        if layers := getattr(output, "deepstack_features", None):
            deepstack.append(torch.stack([rows for (rows,) in layers], dim=1))
    index = None if len(looked_at) == len(sources) else torch.from_numpy(place).to(model.device)

    def all_grids(rows: list[Tensor]) -> Tensor:
        each = torch.cat(rows)
        return each if index is None else each.unflatten(0, (len(looked_at), -1))[index].flatten(0, 1)

    return all_grids(features), all_grids(deepstack) if deepstack else None
