"""OmniDrop: layer by layer, let go what the question attends to least (arXiv 2605.14458)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cg_cli.pruning.budget import Budget
from cg_cli.pruning.decoder import DecoderPruner, LayerView
from cg_cli.pruning.methods.dycoke import DyCoke
from cg_cli.pruning.methods.omnizip import saliency
from cg_cli.pruning.ops.indexing import mask_to_index
from cg_cli.pruning.ops.rows import assemble, check_fits, rows_of
from cg_cli.pruning.stream import Selection, TokenStream

VIDEO_ENTERS, AUDIO_ENTERS = 0.4, 0.7  # of either modality
STEEPNESS = 20.0  # of the sigmoid (beta)
DIVERSE_FROM = 0.5  # of the layers
DIVERSITY = 0.2  # weight of the distance to the key chunk


@dataclass(frozen=True)
class OmniDrop(DecoderPruner):
    """Keep 40 % of the video and 70 % of the audio before the language model; then drop in every layer but the last two
    those audio and video tokens, in one ranking, that the question's rows attend to least.

    How much goes in a layer follows a sigmoid over depth. From the middle on, of twice as many candidates as have to go
    those far in time from the chunk of 2 s that is attended to most are spared: a fifth of the distance is added to
    their score.

    Where it differs: there is no public code, so this follows published reproduction notes. Before the language model,
    DyCoke's rule picks video and distinctness, in place of the audio encoder's attention, audio; both enter in larger
    shares where the budget is larger than what they leave. The rates are scaled, all by one power, so that exactly the
    budget is left in the end: the paper fixes them per model and ratio. Scores and distances are brought to 0..1 before
    they are added.

    Args:
        first, last: share of what is left that goes in the first and the last layers, before scaling; 0 <= first, last
            < 1.
        middle: depth, 0..1, at which the sigmoid is half way.
    """

    name: ClassVar[str] = "omnidrop"
    reasons: ClassVar[tuple[str, str]] = ("attended to by the question", "attended to less")

    first: float = 0.0
    last: float = 0.2
    middle: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.first < 1 and 0 < self.last < 1):
            raise ValueError(f"first and last must be in [0, 1), and last above 0, not {self.first} and {self.last}")

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        rows = rows_of(stream)
        check_fits(rows, budget)
        video, audio = self.entering(len(rows.video), len(rows.audio), budget.count)
        seen, heard = rows.video, rows.audio
        if 0 < video < len(seen):
            seen = seen[DyCoke().pick_video(stream, rows, video)]
        if audio < len(heard):
            salient = saliency(stream.embeddings[heard].to(torch.float32))
            heard = heard[torch.argsort(salient, descending=True, stable=True)[:audio]]
        return assemble(rows, seen[:video], heard)

    @staticmethod
    def entering(video: int, audio: int, count: int) -> tuple[int, int]:
        """How many of ``video`` and ``audio`` tokens enter the language model, of which ``count`` are to be left."""
        enter_video, enter_audio = math.ceil(VIDEO_ENTERS * video), math.ceil(AUDIO_ENTERS * audio)
        short = count - enter_video - enter_audio
        if short > 0:  # spread over what was left out, in proportion
            out_video, out_audio = video - enter_video, audio - enter_audio
            more = round(short * out_video / (out_video + out_audio))
            enter_video, enter_audio = enter_video + more, enter_audio + short - more
        return enter_video, enter_audio

    def after(self, view: LayerView, budget: Budget) -> Tensor | None:
        media = view.media
        here = int(media.sum())
        left = self.left(here, view.layer, view.layers, budget.count)
        if left == here:
            return None
        asked = torch.arange(len(media) - view.question, len(media), device=media.device)
        score = _unit(view.attention(asked).mean(0), media)
        if view.layer >= DIVERSE_FROM * view.layers:
            score = score + self._spared(score, view, here - left)
        order = torch.sort(score.masked_fill(~media, -torch.inf), descending=True, stable=True).indices[:left]
        stays = (~media).scatter(0, order, True)
        return mask_to_index(stays, len(media) - here + left)

    def left(self, here: int, layer: int, layers: int, count: int) -> int:
        """Of ``here`` audio and video tokens that ``layer`` has read, how many go on; ``count`` after the last layer
        that drops."""
        end = max(layers - 2, 1)  # layers that drop
        if layer >= end or here <= count:
            return here
        rate = [-math.log1p(-self._share(number, layers)) + 1e-9 for number in range(layer, end)]
        return max(count, round(here * (count / here) ** (rate[0] / sum(rate)))) if layer < end - 1 else count

    def _share(self, layer: int, layers: int) -> float:
        return self.first + (self.last - self.first) / (1 + math.exp(-STEEPNESS * (layer / layers - self.middle)))

    def _spared(self, score: Tensor, view: LayerView, going: int) -> Tensor:
        """What is added to the scores [n] of the 2 ``going`` candidates with the lowest."""
        media, chunk = view.media, view.chunk
        total = torch.zeros(len(media), device=media.device).index_add_(0, chunk, score * media)
        key = total.argmax()
        far = _unit((chunk - key).abs().float(), media)
        order = torch.sort(score.masked_fill(~media, torch.inf), stable=True).indices[: 2 * going]
        candidate = torch.zeros_like(media).scatter(0, order, True) & media
        return DIVERSITY * far * candidate


def _unit(values: Tensor, media: Tensor) -> Tensor:
    """``values`` [n] float32 so that those of ``media`` span 0..1; all 0 if they are equal."""
    low, high = values.masked_fill(~media, torch.inf).amin(), values.masked_fill(~media, -torch.inf).amax()
    return ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
