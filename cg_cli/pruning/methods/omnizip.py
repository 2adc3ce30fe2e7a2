"""OmniZip: audio saliency decides how much of each chunk's video is kept (arXiv 2511.14582, CVPR 2026), here without
attention maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget, wide
from cg_cli.pruning.methods.evs import change
from cg_cli.pruning.ops.grids import PAIRS, Grids, table
from cg_cli.pruning.ops.indexing import bincount, complement, evenly_spaced_index
from cg_cli.pruning.ops.parts import apportion, best, chunks
from cg_cli.pruning.ops.rows import Rows, assemble, check_fits, rows_of
from cg_cli.pruning.ops.windows import EPSILON
from cg_cli.pruning.stream import Merge, Selection, TokenStream

DOMINANT = 0.7  # of the audio is kept as dominant tokens in the published setting for 45 % (rho_a = 0.3) ...
ANCHORS = 0.05  # ... and so much of it as anchors
MERGED = 3  # tokens that merge into an anchor (G)
DROP_MOST, DROP_LEAST = 0.75, 0.35  # of a chunk's video, where none and all of its audio is kept
NEIGHBOURS = 5  # of the density peaks


@dataclass(frozen=True)
class OmniZip(Pruner):
    """Thin audio to its salient tokens and anchors, and give video tokens to chunks by how much of their audio is
    salient.

    1. Audio: the most salient tokens stay, and evenly spaced anchors of the others. Each token left goes to the anchor
       most like it; of those the three most like any video token merge into it, weighted by softmax, the rest is
       dropped.
    2. A chunk of 2 s of whose audio S stays drops 0.75 - 0.40 S of its video; one without audio, the video's mean rate.
    3. In a chunk's grids 1, 3, ... density peaks stay (DPC-KNN, 5 neighbours), in the others the tokens least like the
       one at the same place of the grid before.

    Where it differs: OmniZip's saliency is the attention that a token receives in the audio encoder's last layer, which
    no stream carries; distinctness stands in for it, 1 - cosine with the clip's mean audio token. OmniZip always prunes
    audio. Here the counts are the budget's, as for every other pruner: where that keeps more audio than OmniZip does at
    45 %, the chunks are still judged by what OmniZip would keep. Anchors are at most half of the audio that stays.
    OmniZip scales the chunks' rates but for the smallest and the largest until the total is near, within 0.35..0.75;
    here all shares of tokens kept are scaled by one factor, so that the total is exact at any budget. An anchor gets
    proportional attention by what merged into it.
    """

    name: ClassVar[str] = "omnizip"
    reasons: ClassVar[tuple[str, str]] = ("stands out in its grid, or changed", "like its neighbours, or unchanged")

    def flops(self, budget: Budget, audio: int, video: int, grids: int, width: int) -> int:
        pairs = grids * (-(-video // grids)) ** 2 if 0 < budget.video < video else 0
        anchors = anchor_count(audio, budget.audio)
        return 2 * width * (pairs + (audio - budget.audio) * (video + anchors) * (anchors > 0))

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        rows = rows_of(stream)
        check_fits(rows, budget)
        unit_audio, unit_video = (
            normalize(stream.embeddings[index].to(torch.float32), dim=-1) for index in (rows.audio, rows.video)
        )
        salient = saliency(stream.embeddings[rows.audio].to(torch.float32))
        video = rows.video[: budget.video]
        if 0 < budget.video < len(rows.video):
            salient_audio = torch.cat(thin(salient, min(budget.audio, int((DOMINANT + ANCHORS) * len(salient) + 0.5))))
            video = rows.video[_video(stream, rows, table(stream, rows, unit_video), salient_audio, budget.video)]
        dominant, anchor = thin(salient, budget.audio)
        audio = rows.audio[torch.cat([dominant, anchor])]
        merge = (
            fold(rows.audio, unit_audio, unit_video, dominant, anchor)
            if 0 < budget.audio < len(unit_audio) and len(anchor)
            else None
        )
        return Selection(assemble(rows, video, audio).indices, merge)


def _video(stream: TokenStream, rows: Rows, grids: Grids, salient_audio: Tensor, count: int) -> Tensor:
    """Places in ``rows.video`` [count] of the kept tokens, from the places ``salient_audio`` [m] in ``rows.audio``."""
    grid, row, column = (values[rows.video] for values in (stream.grid, stream.row, stream.column))
    chunk, number = chunks(grids)
    quota = apportion(chunk_weight(grids, chunk, stream.time_s[rows.audio], salient_audio), grids.mask.sum(1), count)
    moved = change(stream.embeddings[rows.video], grid, row, column)
    return best(grids, torch.where((number % 2 == 0)[grid], grids.flat(peaks(grids)), moved), quota, count)


def saliency(audio: Tensor) -> Tensor:
    """Distinctness of each token of ``audio`` [A, D] float32: 1 - cosine with their mean [A]."""
    mean = normalize(audio.sum(0), dim=-1)
    return 1 - (normalize(audio, dim=-1) * mean).sum(-1)


def anchor_count(audio: int, count: int) -> int:
    """How many of the ``count`` kept tokens of ``audio`` are anchors."""
    return min(int(ANCHORS * audio + 0.5), count // 2)


def thin(salient: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places in ``salient`` [A] of the dominant tokens and of the anchors, int64; together ``count`` of them."""
    anchors = anchor_count(len(salient), count)
    dominant = torch.argsort(salient, descending=True, stable=True)[: count - anchors]
    rest = complement(len(salient), dominant)
    return dominant, rest[evenly_spaced_index(len(rest), anchors, rest.device)]


def fold(rows: Tensor, unit_audio: Tensor, unit_video: Tensor, dominant: Tensor, anchor: Tensor) -> Merge:
    """Merge dropped audio tokens into the anchors: of those most like an anchor, the MERGED most like any video token.

    Args:
        rows: [A] int64, the audio's rows in the stream.
        unit_audio, unit_video: [A, D] and [V, D] float32, audio and video tokens at unit length.
        dominant, anchor: places in ``rows`` of what is kept; there has to be an anchor.
    """
    out = complement(len(rows), torch.cat([dominant, anchor]))
    into = (unit_audio[out] @ unit_audio[anchor].T).argmax(1)
    cosine = unit_audio.new_zeros(len(out))
    if len(unit_video):
        pieces = out.split(max(1, PAIRS // len(unit_video)))
        cosine = torch.cat([(unit_audio[piece] @ unit_video.T).amax(1) for piece in pieces])
    order = torch.argsort(cosine, descending=True, stable=True)
    order = order[torch.argsort(into[order], stable=True)]
    out, into, cosine = out[order], into[order], cosine[order]
    rank = torch.arange(len(out), device=out.device) - torch.searchsorted(into, into)
    lost = len(anchor) * MERGED
    slot = torch.where(rank < MERGED, into * MERGED + rank, lost)
    weight = cosine.new_full((lost + 1,), -torch.inf).scatter_(0, slot, cosine)[:-1].view(-1, MERGED).softmax(1)
    weight = torch.cat([weight.flatten(), weight.new_zeros(1)])[slot]
    return Merge(rows[out], rows[anchor[into]], weight)


def chunk_weight(grids: Grids, chunk: Tensor, time_s: Tensor, salient_audio: Tensor) -> Tensor:
    """Weight of each grid [G] float64 in sharing out the video's budget.

    Args:
        chunk: [G] int64, the chunk of each grid.
        time_s: [A], when each audio token starts; it belongs to the grid that is shown then.
        salient_audio: [m] int64, which of the audio tokens are salient.
    """
    grid = torch.searchsorted(grids.start_s.cummax(0).values, time_s + EPSILON, right=True).clamp_min(1) - 1
    audio_chunk = chunk[grid]
    total, salient = (bincount(x, len(chunk)) for x in (audio_chunk, audio_chunk[salient_audio]))
    audible, capacity = (total > 0)[chunk], wide(grids.mask.sum(1))
    kept = 1 - DROP_MOST + (DROP_MOST - DROP_LEAST) * (wide(salient) / total.clamp_min(1))[chunk]
    tokens = capacity * audible
    mean = (kept * tokens).sum() / tokens.sum().clamp_min(1)
    return capacity * torch.where(audible, kept / mean, 1.0)


def peaks(grids: Grids) -> Tensor:
    """DPC-KNN score of each token in its grid [G, P], on the distance 1 - cosine; ``grids`` hold unit vectors. Places
    without a token hold anything.

    Density, exp(- mean distance to the NEIGHBOURS nearest others), times the distance to the nearest token that is
    denser, an earlier one among equals; for the densest, to the farthest token.
    """
    size = max(1, PAIRS // grids.index.shape[1] ** 2)
    return torch.cat([_peaks(x, m) for x, m in zip(grids.point.split(size), grids.mask.split(size), strict=True)])


def _peaks(unit: Tensor, mask: Tensor) -> Tensor:
    distance = 1 - unit @ unit.mT
    diagonal = torch.eye(unit.shape[1], dtype=torch.bool, device=unit.device)
    none = diagonal | ~mask[:, :, None] | ~mask[:, None]
    near = distance.masked_fill(none, torch.inf).topk(min(NEIGHBOURS, len(diagonal) - 1), largest=False).values
    real = near < torch.inf
    density = torch.exp(-near.masked_fill(~real, 0).sum(-1) / real.sum(-1).clamp_min(1)).masked_fill(~mask, -torch.inf)
    rank = torch.argsort(torch.argsort(density, dim=1, descending=True, stable=True), dim=1)
    denser = rank[:, None] < rank[:, :, None]
    nearest = distance.masked_fill(none | ~denser, torch.inf).amin(-1)
    farthest = distance.masked_fill(none, 0).amax(-1)
    return torch.where(rank == 0, farthest, nearest) * density.clamp_min(0)
