"""Made-up token streams in the layout of Qwen2.5-Omni: text, then 2 s chunks of grids and audio, then text."""

from __future__ import annotations

import torch
from torch import Tensor

from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, TokenStream

GRIDS_PER_CHUNK = 2
SECONDS_PER_GRID = 1.0
SECONDS_PER_CHUNK = GRIDS_PER_CHUNK * SECONDS_PER_GRID


def make_stream(
    grids: int = 6,
    height: int = 3,
    width: int = 4,
    audio_per_chunk: int = 10,
    text: tuple[int, int] = (3, 2),
    dim: int = 16,
    dtype: torch.dtype = torch.float32,
    video: Tensor | None = None,
    seed: int = 0,
) -> TokenStream:
    """A stream of ``grids`` grids of ``height`` x ``width`` tokens, or of one chunk of audio when there is no grid.

    ``video`` [grids * height * width, D] replaces the random rows of the video tokens.
    """
    rows: list[tuple[int, int, int, int, float]] = [(TEXT, -1, -1, -1, -1.0)] * text[0]
    for start in range(0, max(grids, 1), GRIDS_PER_CHUNK):
        for grid in range(start, min(start + GRIDS_PER_CHUNK, grids)):
            time = grid * SECONDS_PER_GRID
            rows += [(VIDEO, grid, y, x, time) for y in range(height) for x in range(width)]
        begin = start * SECONDS_PER_GRID
        step = SECONDS_PER_CHUNK / max(audio_per_chunk, 1)
        rows += [(AUDIO, -1, -1, -1, begin + i * step) for i in range(audio_per_chunk)]
    rows += [(TEXT, -1, -1, -1, -1.0)] * text[1]

    columns = list(zip(*rows, strict=True))
    modality, grid, row, column = (torch.tensor(column, dtype=torch.int64) for column in columns[:4])
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(rows), dim if video is None else video.shape[1], generator=generator)
    if video is not None:
        embeddings[modality == VIDEO] = video.to(torch.float32)
    return TokenStream(
        embeddings=embeddings.to(dtype),
        modality=modality,
        grid=grid,
        row=row,
        column=column,
        time_s=torch.tensor(columns[4], dtype=torch.float32),
        positions=torch.arange(3 * len(rows)).view(3, -1),
        next_position=len(rows) + 7,
        carry={"deepstack": torch.randn(len(rows), 2, 5, generator=generator).to(dtype)},
    )


SHAPES: dict[str, dict[str, object]] = {
    "audio and video": {},
    "odd grids": {"grids": 5, "height": 1, "width": 7},
    "no audio": {"audio_per_chunk": 0},
    "no video": {"grids": 0},
    "one grid": {"grids": 1},
    "no text": {"text": (0, 0)},
    "text only": {"grids": 0, "audio_per_chunk": 0},
}
