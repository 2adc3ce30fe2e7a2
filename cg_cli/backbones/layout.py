"""Order, places, times and positions of a clip's tokens in a prompt: what the layouts of all families share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO

# In TokenStream.carry: [L, layers, D], added to the rows after the first layers (arXiv 2406.04334).
DEEPSTACK = "deepstack"


@dataclass(frozen=True)
class MediaShape:
    """Token counts of a clip: ``grids`` x ``rows`` x ``columns`` video tokens and ``audio`` audio tokens.

    ``seconds_per_grid`` is the time one grid really covers, which is not 1 s when the frames were capped. Where
    ``grid_starts`` are given, in seconds, ascending, grids are not evenly spaced and start then.
    """

    grids: int
    rows: int
    columns: int
    audio: int
    seconds_per_grid: float
    grid_starts: tuple[float, ...] | None = None

    @property
    def video(self) -> int:
        """Video tokens in all."""
        return self.grids * self.rows * self.columns

    def starts(self) -> Tensor:
        """When each grid starts, seconds [grids] float32."""
        if self.grid_starts is not None:
            return torch.tensor(self.grid_starts, dtype=torch.float32)
        # In float32 like the originals: a grid's time may fall just below a whole position.
        return torch.arange(self.grids).to(torch.float32) * torch.tensor(self.seconds_per_grid, dtype=torch.float32)


@dataclass(frozen=True)
class Layout:
    """The prefix, one entry a token, on the CPU; the fields mean what they mean in ``TokenStream``."""

    modality: Tensor
    grid: Tensor
    row: Tensor
    column: Tensor
    time_s: Tensor
    positions: Tensor
    next_position: int | float


def nested(
    shape: MediaShape, vision: tuple[str, str], audio: tuple[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Special tokens that open and close the media, of the kinds that there are: ``vision`` outside, ``audio``
    inside."""
    kinds = [names for count, names in ((shape.video, vision), (shape.audio, audio)) if count]
    return tuple(names[0] for names in kinds), tuple(names[1] for names in reversed(kinds))


def raster(shape: MediaShape) -> Tensor:
    """Grid, row and column of the video tokens in raster order [3, V] int64."""
    return torch.cartesian_prod(*map(torch.arange, (shape.grids, shape.rows, shape.columns))).reshape(-1, 3).T


def compose(
    shape: MediaShape, order: Tensor, positions: Tensor, before: Tensor, after: Tensor, audio_s: Tensor
) -> Layout:
    """Put the media between the text.

    Args:
        order: [V + A] int64, the media tokens as they follow each other: video tokens in raster order count from 0,
            audio tokens from V.
        positions: [3, V + A], of the media tokens as they follow each other.
        before, after: positions of the text in front of and behind the media; at least one behind, and the question's
            first position is one more than its last.
        audio_s: [A] float32, when each audio token starts, seconds.
    """
    grid, row, column = raster(shape)
    blank = torch.full((shape.audio,), -1)
    kind = torch.cat([torch.full((shape.video,), VIDEO), torch.full((shape.audio,), AUDIO)])

    def rows(media: Tensor, text: float = -1) -> Tensor:
        return torch.cat([media.new_full(before.shape, text), media[order], media.new_full(after.shape, text)])

    return Layout(
        modality=rows(kind, TEXT),
        grid=rows(torch.cat([grid, blank])),
        row=rows(torch.cat([row, blank])),
        column=rows(torch.cat([column, blank])),
        time_s=rows(torch.cat([shape.starts()[grid], audio_s])),
        positions=torch.cat([before.expand(3, -1), positions, after.expand(3, -1)], dim=1),
        next_position=after[-1].item() + 1,
    )
