"""What was kept of a clip, as data: numpy arrays, one entry a token."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cg_cli.pruning.explain import Explanation
from cg_cli.pruning.stream import Selection, TokenStream
from cg_cli.util.atomic import atomic_path, write_atomic

MODALITIES = np.array(["text", "video", "audio"])  # by the values of TokenStream.modality


@dataclass(frozen=True)
class TokenTable:
    """Tokens of a clip [K], in the order in which they stand in the unpruned prefix.

    Attributes:
        indices: int64, rows of the unpruned prefix.
        modality: "text", "video" or "audio".
        grid, row, column: int64, temporal patch and place in it of a video token; -1 for others.
        time_s: float32, start on the clip's clock; -1 for text.
        position: [3, K], multimodal rotary positions: time, height, width.
        merge_size: float32, how many tokens the row stands for in the language model; 0 for a dropped one.
        merged_into: int64, the row of the unpruned prefix that a dropped token was averaged into; -1 for none.
        layers: float32, share of the language model's layers that read the row: 1 or 0 for a pruner before the language model.
        score: float32, by which the pruner ranks tokens, the highest kept first; NaN where it has none.
        reason: why the pruner kept or dropped it, in a few words.
    """

    indices: np.ndarray
    modality: np.ndarray
    grid: np.ndarray
    row: np.ndarray
    column: np.ndarray
    time_s: np.ndarray
    position: np.ndarray
    merge_size: np.ndarray
    merged_into: np.ndarray
    layers: np.ndarray
    score: np.ndarray
    reason: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, chosen: np.ndarray) -> TokenTable:
        """The tokens that ``chosen`` (a mask or places) names."""
        return TokenTable(**{name: values[..., chosen] for name, values in self.columns().items()})

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def token_table(
    stream: TokenStream, selection: Selection, explanation: Explanation, depth: Tensor | None = None
) -> TokenTable:
    """Every token of ``stream``, kept and dropped.

    Args:
        explanation: of ``selection``.
        depth: of a pruner between layers, the share of the language model's layers that read each row of ``selection``; None
            for one before the language model.
    """
    size, device = len(stream), stream.modality.device
    layers = torch.zeros(size, device=device)
    layers[selection.indices] = 1.0 if depth is None else depth.to(layers)
    merge_size = torch.zeros(size, device=device)
    merge_size[selection.indices] = 1.0
    merged_into = torch.full((size,), -1, dtype=torch.int64, device=device)
    if selection.merge is not None:
        merge, merged = selection.merge, selection.merge.weight > 0
        merged_into[merge.dropped[merged]] = merge.into[merged]
        merge_size.index_add_(0, merge.into, merge.weight.to(merge_size))
    score = torch.full((size,), torch.nan) if explanation.score is None else explanation.score
    return TokenTable(
        indices=np.arange(size),
        modality=MODALITIES[_numpy(stream.modality)],
        grid=_numpy(stream.grid),
        row=_numpy(stream.row),
        column=_numpy(stream.column),
        time_s=_numpy(stream.time_s),
        position=_numpy(stream.positions),
        merge_size=_numpy(merge_size),
        merged_into=_numpy(merged_into),
        layers=_numpy(layers),
        score=_numpy(score.float()),
        reason=np.array(explanation.reasons)[_numpy(explanation.reason)],
    )


def split_table(table: TokenTable, selection: Selection) -> tuple[TokenTable, TokenTable]:
    """The tokens of ``table`` that were kept, and those that were dropped."""
    kept = np.zeros(len(table), bool)
    kept[_numpy(selection.indices)] = True
    return table[kept], table[~kept]


def save_npz(path: Path, kept: TokenTable, dropped: TokenTable, about: Mapping[str, Any]) -> None:
    """Write both tables as one ``.npz`` (no pickles): the kept ones by their names, the dropped ones after ``dropped_``, and
    ``about`` as JSON text. OSError as for any write."""
    columns = kept.columns() | {f"dropped_{name}": values for name, values in dropped.columns().items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **columns)  # type: ignore[arg-type]


def save_json(path: Path, kept: TokenTable, dropped: TokenTable, about: Mapping[str, Any]) -> None:
    """Write both tables as one JSON object: ``about``, ``kept`` and ``dropped``, columns by name; NaN is null. OSError as for any
    write."""
    data = {"about": about, "kept": _columns(kept), "dropped": _columns(dropped)}
    write_atomic(path, json.dumps(data, allow_nan=False) + "\n")


def _columns(table: TokenTable) -> dict[str, Any]:
    def plain(values: np.ndarray) -> Any:
        if values.dtype.kind == "f":
            return [number if math.isfinite(number) else None for number in values.tolist()]
        return values.tolist()

    return {name: plain(values) for name, values in table.columns().items()}


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
