"""The tensors that pruners see: TokenStream in, Selection out. No files, no models."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

TEXT, VIDEO, AUDIO = 0, 1, 2  # values of TokenStream.modality
PASSES = 8  # over the columns of a stream that is merged
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
        same_as: [L] int64, the row of which each one is a copy in all but its position, its own number for the others;
            None where nothing is known to repeat.
        merge_size: [L] float32, how many tokens were merged into each row, itself included; None where nothing was
            merged. Its log is added to the row's attention logits (proportional attention: ToMe, arXiv 2210.09461,
            section 3).
        prompt_ids: the tokens of the unpruned prefix as the published code writes it, those included that stand for
            pictures and sound; a repetition penalty counts them.
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
    same_as: Tensor | None = None
    prompt_ids: frozenset[int] = frozenset()

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
    if merge is None:
        merge_size = None if merge_size is None else merge_size[kept]
    elif merge_size is not None:
        raise ValueError("this stream has been merged before")
    else:
        into = torch.searchsorted(kept, merge.into.contiguous())
        merge_size = torch.ones(len(kept), device=merge.weight.device)
        merge_size.index_add_(0, into, merge.weight.to(torch.float32))

    def gather(source: Tensor) -> Tensor:
        return source[kept] if merge is None or merge_size is None else _merged(source, kept, merge, into, merge_size)

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
        merge_size=merge_size,
        same_as=None,
    )


def _merged(source: Tensor, kept: Tensor, merge: Merge, into: Tensor, merge_size: Tensor) -> Tensor:
    """The rows ``kept`` [K] of ``source`` [L, ...], each the average of itself and those merged into it, ``merge_size``
    [K] together; ``into`` [M] is where in ``kept`` each of the merge goes. Some columns at a time, since sums in
    float32 take twice the memory of a bfloat16 stream."""
    weight = merge.weight.to(torch.float32)[:, None]

    def average(columns: Tensor) -> Tensor:
        total = columns[kept].to(torch.float32)
        total.index_add_(0, into, columns[merge.dropped].to(torch.float32).mul_(weight))
        return total.div_(merge_size[:, None])

    rows, out = source.flatten(1), source.new_empty(len(kept), *source.shape[1:])
    width = max(1, -(-rows.shape[1] // PASSES))
    for columns, target in zip(rows.split(width, 1), out.flatten(1).split(width, 1), strict=True):
        target.copy_(average(columns))
    return out
