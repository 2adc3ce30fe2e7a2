"""The tensors that pruners see: TokenStream in, Selection out. No files, no models."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

TEXT, VIDEO, AUDIO = 0, 1, 2  # values of TokenStream.modality
MERGE_VERSION = 1  # part of a record's key: raised when ``apply`` folds the same selection in another way


@dataclass(frozen=True)
class TokenStream:
    """A clip as the language model would read it: the prefix, one row a token.

    Attributes:
        embeddings: [L, D], the language model's input rows.
        modality: [L] int64, TEXT, VIDEO or AUDIO.
        grid: [L] int64, temporal patch of a video token; -1 for others.
        row, column: [L] int64, place of a video token inside its grid; -1 for others.
        time_s: [L] float32, when what the token shows or sounds starts on the clip's clock, seconds; -1 for text.
        positions: [3, L] int64, or float32 where time runs in fractions; multimodal rotary positions (time, height,
            width).
        next_position: first position of the question: last position of the *unpruned* prefix + 1.
        carry: rows [L, ...] that a backbone needs back for the kept tokens (deepstack features); merged like
            embeddings.
        merge_size: [L] float32, how many tokens were merged into each row, itself included; None where nothing was
            merged. Its log is added to the row's attention logits (proportional attention: ToMe, arXiv 2210.09461,
            section 3).
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
    """Token merging: dropped rows folded into kept ones.

    A kept row becomes ``(1 * own + sum(weight * dropped)) / (1 + sum(weight))``: with all weights 1 the mean of the
    rows merged into it and itself. Its merge size is ``1 + sum(weight)``.

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
    """The pruned stream [K]: kept rows in order, with their original positions; merged rows averaged in float32.

    A selection that keeps every row returns ``stream`` itself, untouched. ValueError for a merge into a stream that has
    been merged before: its rows would have to be weighted by their merge sizes.
    """
    if len(selection.indices) == len(stream):
        return stream
    kept, merge, merge_size = selection.indices, selection.merge, stream.merge_size
    if merge is not None and merge_size is not None:
        raise ValueError("this stream has been merged before")
    if merge is not None:
        merge_size = torch.ones(len(stream), device=merge.weight.device)
        merge_size = merge_size.index_add_(0, merge.into, merge.weight.to(torch.float32))

    def gather(source: Tensor) -> Tensor:
        if merge is None or merge_size is None:
            return source[kept]
        shape = (-1,) + (1,) * (source.dim() - 1)
        weighted = source[merge.dropped].to(torch.float32) * merge.weight.to(torch.float32).view(shape)
        summed = source.to(torch.float32).index_add(0, merge.into, weighted)
        return (summed[kept] / merge_size[kept].view(shape)).to(source.dtype)

    return replace(
        stream,
        embeddings=gather(stream.embeddings),
        modality=stream.modality[kept],
        grid=stream.grid[kept],
        row=stream.row[kept],
        column=stream.column[kept],
        time_s=stream.time_s[kept],
        positions=stream.positions[:, kept],
        carry={name: gather(value) for name, value in stream.carry.items()},
        merge_size=None if merge_size is None else merge_size[kept],
    )
