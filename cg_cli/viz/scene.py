"""What there is to draw of a clip and the pruners that were run on it: plain numpy, no model.

Pictures of every kind are made from a Scene, so that they show the same cells, whatever the pruner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from cg_cli.media.clip import Clip
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.stream import AUDIO, VIDEO, Selection, TokenStream
from cg_cli.records import Record


@dataclass(frozen=True)
class Cells:
    """The video tokens of a clip [V] under one pruner.

    Attributes:
        grid, row, column: [V] int, where each is.
        kept: [V] float, share of the language model's layers that read it: 1 or 0 for a pruner before the language
            model.
        into: [V] int, which of these took a dropped one in; -1 for none.
        score: [V] float, NaN where there is none.
        reason: [V] int, places in ``Run.reasons``.
    """

    grid: np.ndarray
    row: np.ndarray
    column: np.ndarray
    kept: np.ndarray
    into: np.ndarray
    score: np.ndarray
    reason: np.ndarray


@dataclass(frozen=True)
class Sounds:
    """The audio tokens of a clip [A] under one pruner: start in seconds, and as in ``Cells``."""

    time_s: np.ndarray
    kept: np.ndarray
    into: np.ndarray


@dataclass(frozen=True)
class Run:
    """One pruner on the clip.

    Attributes:
        keep: that was asked for.
        recoverable: [G] float, 0..1, how far sound tells each grid's picture; None if the pruner does not ask.
        segment: [G] int, never falling; None if the pruner knows none.
        records: of the questions that were asked.
    """

    pruner: str
    keep: float
    cells: Cells
    sounds: Sounds
    reasons: tuple[str, ...]
    recoverable: np.ndarray | None
    segment: np.ndarray | None
    records: tuple[Record, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.pruner} {self.keep:g}"


@dataclass(frozen=True)
class Scene:
    """A clip and what was kept of it.

    Attributes:
        video: its path, as given.
        identity: ``records.video_identity`` of the file.
        clip: as the model saw it; frames [F, H, W, 3].
        grid_frames: frames of a grid.
        grid_start_s: [G] float, when each grid starts.
        rows, columns: tokens down and across a grid.
        runs: at least one.
    """

    video: str
    identity: str
    clip: Clip
    grid_frames: int
    grid_start_s: np.ndarray
    rows: int
    columns: int
    runs: tuple[Run, ...] = field(default=())

    @property
    def grids(self) -> int:
        return len(self.grid_start_s)

    def grid_at(self, seconds: float) -> int:
        """The grid that shows at a time."""
        return int(np.clip(np.searchsorted(self.grid_start_s, seconds + 1e-6, side="right") - 1, 0, self.grids - 1))

    def level(self, run: Run) -> np.ndarray:
        """``Cells.kept`` by grid, row and column [G, rows, columns]."""
        out = np.zeros((self.grids, self.rows, self.columns))
        out[run.cells.grid, run.cells.row, run.cells.column] = run.cells.kept
        return out

    def merged(self, run: Run) -> np.ndarray:
        """Whether each cell was taken in by another, [G, rows, columns] bool."""
        out = np.zeros((self.grids, self.rows, self.columns), bool)
        out[run.cells.grid, run.cells.row, run.cells.column] = run.cells.into >= 0
        return out


def scene(video: str, identity: str, clip: Clip, stream: TokenStream, grid_frames: int) -> Scene:
    """The scene of a clip before any pruner."""
    seen = (stream.modality == VIDEO).cpu()
    grid, row, column = (values.cpu()[seen].numpy() for values in (stream.grid, stream.row, stream.column))
    grids = int(grid.max()) + 1 if len(grid) else 0
    start = np.zeros(grids)
    start[grid] = stream.time_s.cpu()[seen].numpy()
    rows, columns = (int(values.max()) + 1 if len(values) else 0 for values in (row, column))
    return Scene(video, identity, clip, grid_frames, start, rows, columns)


def run(
    name: str, keep: float, pruner: Pruner, stream: TokenStream, budget: Budget, selection: Selection, depth: torch.Tensor | None,
    records: tuple[Record, ...],
) -> Run:  # fmt: skip
    """What ``pruner`` kept of ``stream``.

    Args:
        depth: of a pruner between layers, the share of layers [K] that read each row of ``selection``; None for one
            before them.
    """
    size = len(stream)
    told = pruner.explain(stream, budget, selection)
    kept = torch.zeros(size, device=stream.modality.device)
    kept[selection.indices] = 1.0 if depth is None else depth.to(kept)
    into = torch.full((size,), -1, dtype=torch.int64, device=kept.device)
    if selection.merge is not None:
        real = selection.merge.weight > 0
        into[selection.merge.dropped[real]] = selection.merge.into[real]
    score = told.score if told.score is not None else torch.full((size,), math.nan, device=kept.device)

    def of(kind: int, *values: torch.Tensor) -> list[np.ndarray]:
        here = stream.modality == kind
        place = torch.full(
            (size + 1,), -1, dtype=torch.int64, device=here.device
        )  # of each row among these; the last is for none
        place[:-1][here] = torch.arange(int(here.sum()), device=here.device)
        return [value[here].cpu().numpy() for value in (*values, place[into])]

    grid, row, column, kept_video, scores, reason, into_video = of(
        VIDEO, stream.grid, stream.row, stream.column, kept, score, told.reason
    )
    time_s, kept_audio, into_audio = of(AUDIO, stream.time_s, kept)
    numpy = lambda value: None if value is None else value.float().cpu().numpy()
    segment = numpy(told.segment)
    return Run(
        pruner=name,
        keep=keep,
        cells=Cells(grid, row, column, kept_video, into_video, scores, reason),
        sounds=Sounds(time_s, kept_audio, into_audio),
        reasons=told.reasons,
        recoverable=numpy(told.recoverable),
        segment=None if segment is None else segment.astype(int),
        records=records,
    )
