"""OmniZip: audio saliency decides how much of each chunk's video is kept (arXiv 2511.14582, CVPR 2026), here without
attention maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget, wide
from cg_cli.pruning.methods.evs import change
from cg_cli.pruning.ops.grids import PAIRS, Grids, by_grid, layout
from cg_cli.pruning.ops.indexing import bincount, complement, evenly_spaced_index
from cg_cli.pruning.ops.match import nearest
from cg_cli.pruning.ops.parts import apportion, best, chunks
from cg_cli.pruning.ops.pieces import by_rows
from cg_cli.pruning.ops.rows import Rows, assemble, check_fits, rows_of
from cg_cli.pruning.ops.windows import EPSILON
from cg_cli.pruning.stream import Merge, Selection, TokenStream

DOMINANT = 0.7  # of the audio is kept as dominant tokens in the published setting for 45 % (rho_a = 0.3) ...
ANCHORS = 0.05  # ... and so much of it as anchors
MERGED = 3  # tokens that merge into an anchor (G)
DROP_MOST, DROP_LEAST = 0.75, 0.35  # of a chunk's video, where none and all of its audio is kept
NEIGHBOURS = 5  # of the density peaks
STRETCH = 750  # audio tokens that are folded at a time: half a minute of Qwen2.5-Omni's
# The published settings: at 35 % kept, 0.6 of the audio and 0.3 of the video (rho_a = 0.4, rho_v = 0.7); at 45 %, 0.7
# and 0.4 (rho_a = 0.3, rho_v = 0.6). So audio is kept at so many times the rate of video:
PUBLISHED_KEEPS, PUBLISHED_RATIOS = (0.35, 0.45), (0.6 / 0.3, 0.7 / 0.4)


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
    audio. Here the counts are the budget's, as for every other pruner, unless ``split`` says otherwise: where that
    keeps more audio than OmniZip does at 45 %, the chunks are still judged by what OmniZip would keep. Anchors are at
    most half of the audio that stays. OmniZip scales the chunks' rates but for the smallest and the largest until the
    total is near, within 0.35..0.75; here all shares of tokens kept are scaled by one factor, so that the total is
    exact at any budget. An anchor gets proportional attention by what merged into it.

    Args:
        split: "budget" keeps the budget's numbers of video and of audio tokens; "own" as many in total, divided as
            OmniZip does (``own_split``).
    """

    name: ClassVar[str] = "omnizip"
    version: ClassVar[int] = 2
    reasons: ClassVar[tuple[str, str]] = ("stands out in its grid, or changed", "like its neighbours, or unchanged")

    split: Literal["budget", "own"] = "budget"

    def flops(self, budget: Budget, audio: int, video: int, grids: int, width: int) -> int:
        budget = own_split(budget, video, audio) if self.split == "own" else budget
        pairs = grids * (-(-video // grids)) ** 2 if 0 < budget.video < video else 0
        anchors = anchor_count(audio, budget.audio)
        folded = (audio - budget.audio) * (video + anchors) * (anchors > 0)
        return 2 * width * (pairs + folded * min(audio, STRETCH) // max(audio, 1))

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        rows = rows_of(stream)
        check_fits(rows, budget)
        budget = own_split(budget, len(rows.video), len(rows.audio)) if self.split == "own" else budget
        salient = saliency(stream.embeddings, rows.audio)
        video = rows.video[: budget.video]
        if 0 < budget.video < len(rows.video):
            salient_audio = torch.cat(thin(salient, min(budget.audio, int((DOMINANT + ANCHORS) * len(salient) + 0.5))))
            video = rows.video[_video(stream, rows, salient_audio, budget.video)]
        dominant, anchor = thin(salient, budget.audio)
        audio = rows.audio[torch.cat([dominant, anchor])]
        merge = fold(stream, rows, dominant, anchor) if budget.audio < len(rows.audio) and len(anchor) else None
        return Selection(assemble(rows, video, audio).indices, merge)


def own_split(budget: Budget, video: int, audio: int) -> Budget:
    """As many tokens of ``video`` and ``audio`` as ``budget`` has in total, audio at OmniZip's multiple of the rate of
    video: between its two settings in proportion, beyond them that of the nearer (carried on in a line, no video would
    be left at 5 %)."""
    ratio = float(np.interp(budget.count / max(video + audio, 1), PUBLISHED_KEEPS, PUBLISHED_RATIOS))
    wished = int(budget.count * ratio * audio / max(ratio * audio + video, 1) + 0.5)
    kept_audio = min(audio, max(wished, budget.count - video))
    return Budget(budget.count - kept_audio, kept_audio, budget.keep)


def _video(stream: TokenStream, rows: Rows, salient_audio: Tensor, count: int) -> Tensor:
    """Places in ``rows.video`` [count] of the kept tokens, from the places ``salient_audio`` [m] in ``rows.audio``."""
    grid, row, column = (values[rows.video] for values in (stream.grid, stream.row, stream.column))
    grids = layout(stream, rows)
    chunk, number = chunks(grids)
    quota = apportion(chunk_weight(grids, chunk, stream.time_s[rows.audio], salient_audio), grids.mask.sum(1), count)
    moved = change(stream.embeddings, rows.video, grid, row, column)
    dense = grids.flat(by_grid(peaks, stream, rows, grids))
    return best(grids, torch.where((number % 2 == 0)[grid], dense, moved), quota, count)


def saliency(embeddings: Tensor, index: Tensor) -> Tensor:
    """Distinctness of each of the rows ``index`` [A] of ``embeddings`` [L, D]: 1 - cosine with their mean [A]."""
    mean = normalize(embeddings[index].sum(0, dtype=torch.float32), dim=-1)
    return 1 - by_rows(lambda audio: (normalize(audio, dim=-1) * mean).sum(-1), embeddings, index)


def anchor_count(audio: int, count: int) -> int:
    """How many of the ``count`` kept tokens of ``audio`` are anchors."""
    return min(int(ANCHORS * audio + 0.5), count // 2)


def thin(salient: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places in ``salient`` [A] of the dominant tokens and of the anchors, int64; together ``count`` of them."""
    anchors = anchor_count(len(salient), count)
    dominant = torch.argsort(salient, descending=True, stable=True)[: count - anchors]
    rest = complement(len(salient), dominant)
    return dominant, rest[evenly_spaced_index(len(rest), anchors, rest.device)]


def fold(stream: TokenStream, rows: Rows, dominant: Tensor, anchor: Tensor) -> Merge:
    """Merge dropped audio tokens into the anchors: of those most like an anchor, the MERGED most like any video token.

    More than STRETCH audio tokens are folded stretch by stretch, each with the video shown meanwhile, so that the work
    grows no faster than the clip; what is dropped of one without an anchor is lost.

    Args:
        dominant, anchor: places in ``rows.audio`` of what is kept; there has to be an anchor.
    """
    audio, groups = rows.audio, -(-len(rows.audio) // STRETCH)
    stretch = torch.arange(len(audio), device=audio.device) // STRETCH
    out = complement(len(audio), torch.cat([dominant, anchor]))
    match = partial(nearest, stream.embeddings, audio[out], query_group=stretch[out], groups=groups, directions=True)
    into, cost = match(key=audio[anchor], key_group=stretch[anchor])
    into = torch.where(cost < torch.inf, into, len(anchor))
    cosine = torch.zeros_like(cost)
    if len(rows.video):
        started = torch.searchsorted(
            stream.time_s[audio].cummax(0).values, stream.time_s[rows.video] + EPSILON, right=True
        )
        cost = match(key=rows.video, key_group=stretch[started.clamp_min(1) - 1])[1]
        cosine = torch.where(cost < torch.inf, -cost / 2, 0)
    order = torch.argsort(cosine, descending=True, stable=True)
    order = order[torch.argsort(into[order], stable=True)]
    out, into, cosine = out[order], into[order], cosine[order]
    rank = torch.arange(len(out), device=out.device) - torch.searchsorted(into, into)
    lost = len(anchor) * MERGED
    slot = torch.where(rank < MERGED, into * MERGED + rank, lost).clamp_max(lost)
    weight = cosine.new_full((lost + 1,), -torch.inf).scatter_(0, slot, cosine)[:-1].view(-1, MERGED).softmax(1)
    weight = torch.cat([weight.flatten(), weight.new_zeros(1)])[slot]
    return Merge(audio[out], audio[anchor[into.clamp_max(len(anchor) - 1)]], weight)


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


def peaks(point: Tensor, mask: Tensor) -> Tensor:
    """DPC-KNN score of each token ``point`` [g, P, D] in its grid [g, P], on the distance 1 - cosine. Where ``mask``
    [g, P] says that there is no token, it is anything.

    Density, exp(- mean distance to the NEIGHBOURS nearest others), times the distance to the nearest token that is
    denser, an earlier one among equals; for the densest, to the farthest token.
    """
    size, unit = max(1, PAIRS // mask.shape[1] ** 2), normalize(point, dim=-1)
    return torch.cat([_peaks(x, m) for x, m in zip(unit.split(size), mask.split(size), strict=True)])


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
