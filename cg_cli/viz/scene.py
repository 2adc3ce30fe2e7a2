"""The data behind every picture: a clip, and per token what each pruner did with it. Plain numpy, no model.

Every output format is made from a Scene, so that all show the same tokens, whatever the pruner. A cell is the place of
a video token in its grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cg_cli.engine.kept import TokenTable, split_table, token_table
from cg_cli.media.clip import Clip
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.stream import VIDEO, Selection, TokenStream
from cg_cli.records import Record


@dataclass(frozen=True)
class VideoTokens:
    """The video tokens of a clip [V] under one pruner.

    Attributes:
        grid, row, column: [V] int, the cell of each.
        kept: [V] float, share of the language model's layers that attend to it: 1 or 0 for an input pruner.
        into: [V] int, for a merged token the index of the video token that it was merged into; -1 otherwise.
        score: [V] float, NaN where there is none.
        reason: [V] int, places in ``PrunerResult.reasons``.
    """

    grid: np.ndarray
    row: np.ndarray
    column: np.ndarray
    kept: np.ndarray
    into: np.ndarray
    score: np.ndarray
    reason: np.ndarray

    @property
    def merged(self) -> np.ndarray:
        """[V] bool, whether each was merged into another."""
        return self.into >= 0


@dataclass(frozen=True)
class AudioTokens:
    """The audio tokens of a clip [A] under one pruner: ``time_s`` is the start in seconds; ``kept`` and ``into`` as in
    ``VideoTokens``."""

    time_s: np.ndarray
    kept: np.ndarray
    into: np.ndarray


@dataclass(frozen=True)
class PrunerResult:
    """One pruner on one clip.

    Attributes:
        keep: the requested ratio.
        reasons: a few words each; ``VideoTokens.reason`` indexes them.
        recoverable: [G] float, 0..1, recoverability of each grid from sound; None if the pruner does not compute it.
        segment: [G] int, never falling; None if the pruner has no segments.
        records: of the questions on the clip.
        tables: all tokens, those that were kept and those that were dropped.
    """

    pruner: str
    keep: float
    video_tokens: VideoTokens
    audio_tokens: AudioTokens
    reasons: tuple[str, ...]
    recoverable: np.ndarray | None
    segment: np.ndarray | None
    records: tuple[Record, ...] = ()
    tables: tuple[TokenTable, TokenTable] | None = None

    @property
    def name(self) -> str:
        return f"{self.pruner} {self.keep:g}"


@dataclass(frozen=True)
class Scene:
    """A clip and the results of pruners on it.

    Attributes:
        video: its path, as the user named it.
        identity: SHA-256 of the file.
        clip: the model's input; frames [F, H, W, 3].
        grid_frames: frames of a grid.
        grid_start_s: [G] float, start of each grid.
        rows, columns: tokens down and across a grid.
        results: at least one.
    """

    video: str
    identity: str
    clip: Clip
    grid_frames: int
    grid_start_s: np.ndarray
    rows: int
    columns: int
    results: tuple[PrunerResult, ...] = ()

    @property
    def grids(self) -> int:
        return len(self.grid_start_s)

    def frame(self, grid: int) -> np.ndarray:
        """The first frame [H, W, 3] uint8 of a grid; the clip must have pictures."""
        assert self.clip.frames is not None
        return self.clip.frames[grid * self.grid_frames]

    def grid_at(self, seconds: float) -> int:
        """The grid at a time."""
        return int(np.clip(np.searchsorted(self.grid_start_s, seconds + 1e-6, side="right") - 1, 0, self.grids - 1))

    def kept_map(self, result: PrunerResult) -> np.ndarray:
        """``VideoTokens.kept`` by grid, row and column [G, rows, columns]."""
        return self._map(result.video_tokens, result.video_tokens.kept.astype(float))

    def merged_map(self, result: PrunerResult) -> np.ndarray:
        """Whether each cell's token was merged into another, [G, rows, columns] bool."""
        return self._map(result.video_tokens, result.video_tokens.merged)

    def _map(self, tokens: VideoTokens, values: np.ndarray) -> np.ndarray:
        out = np.zeros((self.grids, self.rows, self.columns), values.dtype)
        out[tokens.grid, tokens.row, tokens.column] = values
        return out


def make_scene(video: str, identity: str, clip: Clip, stream: TokenStream, grid_frames: int) -> Scene:
    """The scene of a clip, without results."""
    is_video = (stream.modality == VIDEO).cpu()
    grid, row, column = (values.cpu()[is_video].numpy() for values in (stream.grid, stream.row, stream.column))
    grids = int(grid.max()) + 1 if len(grid) else 0
    start = np.zeros(grids)
    start[grid] = stream.time_s.cpu()[is_video].numpy()
    rows, columns = (int(values.max()) + 1 if len(values) else 0 for values in (row, column))
    return Scene(video, identity, clip, grid_frames, start, rows, columns)


def make_result(
    name: str,
    keep: float,
    pruner: Pruner,
    stream: TokenStream,
    budget: Budget,
    selection: Selection,
    depth: torch.Tensor | None,
    records: tuple[Record, ...],
) -> PrunerResult:
    """The result of ``pruner``, token by token of ``stream``.

    Args:
        depth: of a decoder pruner, the share of layers [K] that attend to each row of ``selection``; None for an input
            pruner.
    """
    explanation = pruner.explanation(stream, budget, selection)
    table = token_table(stream, selection, explanation, depth)
    index = np.full(
        len(table) + 1, -1
    )  # row -> place among the tokens of its modality; the last is that of row -1, none
    for modality in ("video", "audio"):
        mask = table.modality == modality
        index[:-1][mask] = np.arange(mask.sum())
    video, audio = (table[table.modality == modality] for modality in ("video", "audio"))
    reason = explanation.reason.cpu().numpy()[video.indices]
    to_numpy = lambda value: None if value is None else value.float().cpu().numpy()
    segment = to_numpy(explanation.segment)
    return PrunerResult(
        pruner=name,
        keep=keep,
        video_tokens=VideoTokens(
            video.grid, video.row, video.column, video.layers, index[video.merged_into], video.score, reason
        ),
        audio_tokens=AudioTokens(audio.time_s, audio.layers, index[audio.merged_into]),
        reasons=explanation.reasons,
        recoverable=to_numpy(explanation.recoverable),
        segment=None if segment is None else segment.astype(int),
        records=records,
        tables=split_table(table, selection),
    )
