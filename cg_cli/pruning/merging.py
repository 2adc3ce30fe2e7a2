"""Token merging for any selection: what a pruner drops is folded into what it keeps, as ContextGuard does.

So a comparison of pruners can tell what the choice of tokens gains from what merging gains.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cg_cli.pruning.ops.grids import similarity, table
from cg_cli.pruning.ops.indexing import mask_to_index
from cg_cli.pruning.ops.merge import joined, merge_nearest, merge_neighbours
from cg_cli.pruning.ops.projection import project
from cg_cli.pruning.ops.rows import Rows, rows_of
from cg_cli.pruning.ops.segments import segments
from cg_cli.pruning.stream import Merge, Selection, TokenStream


def nearest(stream: TokenStream, selection: Selection) -> Selection:
    """``selection`` with its dropped tokens merged: a video token into the nearest kept one of its depth-score segment,
    an audio token into the last kept one before it, or, where none is, the first.

    The rules are those of ``ContextGuard`` without a predictor: distances in a random projection, and segments from it.
    What the selection merges already stays so; one that drops nothing, or merges all that it drops, is returned as it
    is. A video token of whose segment nothing is kept is lost: it is named in the merge with weight 0; so are all
    tokens of a modality that keeps none, which are not named. Waits for the device a few times, however long the
    stream.
    """
    own = selection.merge
    if len(selection.indices) + (len(own.dropped) if own else 0) == len(stream):
        return selection
    rows = rows_of(stream)
    kept = torch.zeros(len(stream), dtype=torch.bool, device=stream.modality.device)
    kept = kept.scatter_(0, selection.indices, True)
    video, audio = kept[rows.video], kept[rows.audio]
    video_count, audio_count = torch.stack([video.sum(), audio.sum()]).tolist()
    merges = []
    if 0 < video_count < len(video):
        merges.append(_merge_video(stream, rows, mask_to_index(video, video_count)))
    if 0 < audio_count < len(audio):
        merges.append(merge_neighbours(rows.audio, mask_to_index(audio, audio_count), torch.zeros_like(rows.audio))[1])
    if own:
        named = torch.zeros_like(kept).scatter_(0, own.dropped, True)
        merges = [own, *(_without(named, merge) for merge in merges)]
    return Selection(selection.indices, joined(merges))


def _without(named: Tensor, merge: Merge) -> Merge:
    """``merge`` but for the rows of the mask ``named`` [L]."""
    rest = ~named[merge.dropped]
    return Merge(merge.dropped[rest], merge.into[rest], merge.weight[rest])


def _merge_video(stream: TokenStream, rows: Rows, kept: Tensor) -> Merge:
    """Where the video tokens go that are not at the places ``kept`` [K] of ``rows.video``."""
    grids = table(stream, rows, project(stream.embeddings, rows.video)).centred()
    return merge_nearest(grids, rows, kept, segments(similarity(grids), causal=False))
