"""SEATS: diverse tokens enter, late layers drop what the question attends to least, the last layers read none (arXiv
2605.20035)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from cg_cli.pruning.budget import Budget
from cg_cli.pruning.decoder import DecoderPruner, LayerView
from cg_cli.pruning.methods.divprune import DivPrune, far_apart
from cg_cli.pruning.ops.indexing import mask_to_index
from cg_cli.pruning.ops.parts import apportion
from cg_cli.pruning.ops.rows import assemble, rows_of
from cg_cli.pruning.stream import AUDIO, VIDEO, Selection, TokenStream

ENTERS = 1.4  # times the budget
VIDEO_WINDOW, AUDIO_WINDOW = 2, 50  # grids and audio tokens: 2 s
DEPTH = 28  # layers of the model that these were published for:
DROPS = (16, 18, 20)  # before these layers tokens go, each time e times as many
TEXT_ONLY = 24  # from this layer on none is left
TEMPERATURE = 0.1  # of a window's weight


@dataclass(frozen=True)
class Seats(DecoderPruner):
    """Let 1.4 times the budget enter, those tokens of each 2 s that are farthest from each other; drop before three
    late layers what the last token of the question attends to least; let the last layers read neither audio nor video.

    The budget is the mean over layers, as the paper counts. At a layer that drops, every 2 s of the clip gets a budget
    by the attention to its video and to its audio, and shares it among the two. Audio enters with a larger share than
    video: by the line through the published pairs, 30 points more than the mean of both, less below 15 %.

    Where it differs: stage I of the paper weighs distances by the attention of the encoders' last layers, of which
    a stream has no maps. The KV cache of earlier layers is not pruned; in the paper it is. The layers of the
    paper's 28 are scaled to the model's. Above keep 24/28, which layers without audio and video leave no room for,
    there are fewer such layers.
    """

    name: ClassVar[str] = "seats"
    reasons: ClassVar[tuple[str, str]] = (
        "far from what enters, and attended to",
        "near to what enters, or attended to less",
    )

    counted: ClassVar[Literal["input", "last_layer", "layer_mean"]] = "layer_mean"

    def flops(self, budget: Budget, audio: int, video: int, grids: int, width: int) -> int:
        entering = Budget(*self.entering(video, audio, budget.count))
        windows = -(-audio // AUDIO_WINDOW) if 0 < entering.audio < audio else 0
        for_video = DivPrune(VIDEO_WINDOW).flops(entering, audio, video, grids, width)
        return for_video + 2 * width * windows * AUDIO_WINDOW**2

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        rows = rows_of(stream)
        video, audio = rows.video, rows.audio
        video_count, audio_count = self.entering(len(video), len(audio), budget.count)
        if 0 < video_count < len(video):
            video = video[DivPrune(VIDEO_WINDOW).pick_video(stream, rows, video_count)]
        if 0 < audio_count < len(audio):
            index = torch.arange(len(audio), device=audio.device)
            index = pad(index, (0, -len(audio) % AUDIO_WINDOW), value=len(audio)).view(-1, AUDIO_WINDOW)
            audio = audio[far_apart(stream.embeddings, audio, index, audio_count)]
        return assemble(rows, video[:video_count], audio[:audio_count])

    @staticmethod
    def entering(video: int, audio: int, count: int) -> tuple[int, int]:
        """How many of ``video`` and ``audio`` tokens enter the language model, whose layers are to read ``count`` on
        average.

        ValueError if that is more than there are.
        """
        total = video + audio
        if count > total:
            raise ValueError(f"the budget asks for {count} tokens of a stream that holds {total}")
        enter, keep = min(total, round(ENTERS * count)), count / max(total, 1)
        # Published pairs, % of video: audio: 30: 65, 20: 55, 10: 45, 6: 35.
        enter_audio = round(ENTERS * min(keep + 0.3, 2 * keep + 0.15) * audio)
        enter_audio = min(max(min(enter_audio, audio), enter - video), enter)
        return enter - enter_audio, enter_audio

    def after(self, view: LayerView, budget: Budget) -> Tensor | None:
        kinds = torch.stack([view.modality == kind for kind in (VIDEO, AUDIO)])
        video, audio = kinds.sum(1).tolist()
        count, text = video + audio, len(view.modality) - video - audio
        if view.layer + 1 == view.layers:
            return None
        next_count = schedule(view.read[0] - text, budget.count, view.layers)[view.layer + 1]
        if next_count == count:
            return None
        if not next_count:
            return mask_to_index(~view.media, text)
        last = torch.tensor([len(view.modality) - 1], device=view.modality.device)
        share = next_count * video / count
        kept = best_of_chunks(view.attention(last)[0], kinds, view.chunk, share, next_count)
        return mask_to_index(kept | ~view.media, text + next_count)


def schedule(entered: int, count: int, layers: int) -> list[int]:
    """How many audio and video tokens each layer reads, so that the mean, rounded, is ``count``.

    ``entered`` of them read the first layers; at each layer that drops e times as many go as at the one before.
    """
    scaled = [max(1, math.floor(at * layers / DEPTH + 0.5)) for at in (*DROPS, TEXT_ONLY)]
    text_only = max(scaled.pop(), math.ceil(count * layers / max(entered, 1)))
    # How many are dropped before each layer, in units of the first drop.
    dropped = [sum(math.exp(n) for n, at in enumerate(scaled) if at <= layer) for layer in range(text_only)]

    def reads(first: float) -> list[int]:
        return [math.floor(max(0.0, entered - first * many) + 0.5) for many in dropped] + [0] * (layers - text_only)

    low, high = 0.0, float(entered)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(reads(middle)) > count * layers else (low, middle)
    out = reads(high)
    # The last stage takes what rounding left over.
    end = next((n for n, many in enumerate(dropped) if many == dropped[-1]), 0)
    if dropped and dropped[-1]:
        more = round((count * layers - sum(out)) / (text_only - end))
        out[end:text_only] = [min(max(out[end] + more, 0), out[end - 1])] * (text_only - end)
    return out


def best_of_chunks(score: Tensor, kinds: Tensor, chunk: Tensor, video: float, count: int) -> Tensor:
    """Which rows are kept, [n] bool, ``count`` of them: of each chunk its share, of its video and its audio those with
    the highest ``score`` [n] float32.

    Args:
        kinds: [2, n] bool, what is video and what audio.
        chunk: [n] int64, below n.
        video: how many of ``count`` are video over all chunks, about.
    """
    capacity = torch.zeros(kinds.shape, dtype=torch.int64, device=score.device).index_add_(1, chunk, kinds.long())
    mean = torch.zeros(kinds.shape, device=score.device).index_add_(1, chunk, score * kinds) / capacity.clamp_min(1)
    # Of video and audio of each chunk [2, chunks].
    weight = (mean / TEMPERATURE).masked_fill(capacity == 0, -torch.inf).softmax(1).nan_to_num()
    quota = apportion(weight.sum(0), capacity.sum(0), count)
    ideal = weight * torch.tensor([[video], [count - video]], device=score.device)
    video_quota = (quota * ideal[0] / ideal.sum(0).clamp_min(1e-12)).round().long()
    least, most = quota - capacity[1], torch.minimum(capacity[0], quota)
    video_quota = torch.minimum(torch.maximum(video_quota, least), most)
    group = torch.where(kinds[0], 2 * chunk, torch.where(kinds[1], 2 * chunk + 1, 2 * len(chunk)))
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    sorted_group = group[order]
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(sorted_group, sorted_group)
    limit = torch.cat([torch.stack([video_quota, quota - video_quota], dim=1).flatten(), quota.new_zeros(1)])
    return torch.zeros_like(kinds[0]).scatter(0, order, rank < limit[sorted_group])
