"""The tensors that pruners see: TokenStream in, Selection out. No files, no models."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

TEXT, VIDEO, AUDIO = 0, 1, 2  # values of TokenStream.modality


@dataclass(frozen=True)
class TokenStream:
    """A clip as the language model would read it: the prefix, one row a token.

    Attributes:
        embeddings: [L, D], the language model's input rows.
        modality: [L] int64, TEXT, VIDEO or AUDIO.
        grid: [L] int64, temporal patch of a video token; -1 for others.
        row, column: [L] int64, place of a video token inside its grid; -1 for others.
        time_s: [L] float32, start of what the token stands for on the clip's clock, seconds; -1 for text.
        positions: [3, L] int64, or float32 where time runs in fractions; multimodal rotary positions (time, height,
            width).
        next_position: first position of the question: last position of the *unpruned* prefix + 1.
        carry: rows [L, ...] that a backbone needs back for the kept tokens (deepstack features); merged like
            embeddings.
        merge_size: [L] float32, how many tokens each row stands for; None where nothing was merged. A backbone lets a
            row weigh as many in attention (proportional attention: ToMe, arXiv 2210.09461, section 3).
    """

    embeddings: Tensor
    modality: Tensor
    grid: Tensor
    row: Tensor
    column: Tensor
    time_s: Tensor
    positions: Tensor
    next_position: int | float
    carry: dict[str, Tensor] = field(default_factory=dict)
    merge_size: Tensor | None = None

    def __len__(self) -> int:
        return self.embeddings.shape[0]


@dataclass(frozen=True)
class Merge:
    """Dropped rows folded into kept ones.

    A kept row becomes ``(1 * own + sum(weight * dropped)) / (1 + sum(weight))``: with all weights 1 it is the mean of
    the rows it stands for. From then on it stands for ``1 + sum(weight)`` tokens.

    Attributes:
        dropped: [M] int64, rows of the unpruned stream that are not kept, each at most once.
        into: [M] int64, the kept row of the unpruned stream that takes each.
        weight: [M] float32, >= 0, relative to the kept row's own weight of 1.
    """

    dropped: Tensor
    into: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Selection:
    """Which rows stay: ``indices`` [K] int64, sorted and unique; ``merge`` folds dropped rows into kept ones."""

    indices: Tensor
    merge: Merge | None = None


def apply(stream: TokenStream, selection: Selection) -> TokenStream:
    """The pruned stream: kept rows in order, with their original positions; merged rows averaged in float32.

    A selection that keeps every row returns ``stream`` itself, untouched. ValueError for a merge into a stream that has
    been merged before: whom its rows would stand for is not known.
    """
    if len(selection.indices) == len(stream):
        return stream
    kept, merge = selection.indices, selection.merge
    weight = total = None
    if merge is not None:
        if stream.merge_size is not None:
            raise ValueError("this stream has been merged before")
        weight = merge.weight.to(torch.float32)
        total = torch.ones(len(stream), device=weight.device).index_add_(0, merge.into, weight)[kept]

    def rows(source: Tensor) -> Tensor:
        if merge is None:
            return source[kept]
        shape = (-1,) + (1,) * (source.dim() - 1)
        summed = source.to(torch.float32).index_add(
            0, merge.into, source[merge.dropped].to(torch.float32) * weight.view(shape)
        )
        return (summed[kept] / total.view(shape)).to(source.dtype)

    merge_size = stream.merge_size if stream.merge_size is None else stream.merge_size[kept]
    return replace(
        stream,
        embeddings=rows(stream.embeddings),
        modality=stream.modality[kept],
        grid=stream.grid[kept],
        row=stream.row[kept],
        column=stream.column[kept],
        time_s=stream.time_s[kept],
        positions=stream.positions[:, kept],
        carry={name: rows(value) for name, value in stream.carry.items()},
        merge_size=merge_size if merge is None else total,
    )
