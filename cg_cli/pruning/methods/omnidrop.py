"""OmniDrop: layer by layer, drop what the question attends to least (arXiv 2605.14458)."""

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
        video, audio = rows.video, rows.audio
        video_count, audio_count = self.entering(len(video), len(audio), budget.count)
        if 0 < video_count < len(video):
            video = video[DyCoke().pick_video(stream, rows, video_count)]
        if audio_count < len(audio):
            salient = saliency(stream.embeddings, audio)
            audio = audio[torch.argsort(salient, descending=True, stable=True)[:audio_count]]
        return assemble(rows, video[:video_count], audio)

    @staticmethod
    def entering(video: int, audio: int, count: int) -> tuple[int, int]:
        """How many of ``video`` and ``audio`` tokens enter the language model, which keeps ``count`` to the end."""
        enter_video, enter_audio = math.ceil(VIDEO_ENTERS * video), math.ceil(AUDIO_ENTERS * audio)
        short = count - enter_video - enter_audio
        if short > 0:  # spread over what was left out, in proportion
            out_video, out_audio = video - enter_video, audio - enter_audio
            more = round(short * out_video / (out_video + out_audio))
            enter_video, enter_audio = enter_video + more, enter_audio + short - more
        return enter_video, enter_audio

    def after(self, view: LayerView, budget: Budget) -> Tensor | None:
        media = view.media
        count = int(media.sum())
        next_count = self.next_count(count, view.layer, view.layers, budget.count)
        if next_count == count:
            return None
        question = torch.arange(len(media) - view.question, len(media), device=media.device)
        score = _min_max(view.attention(question).mean(0), media)
        if view.layer >= DIVERSE_FROM * view.layers:
            score = score + self._diversity(score, view, count - next_count)
        order = torch.sort(score.masked_fill(~media, -torch.inf), descending=True, stable=True).indices[:next_count]
        kept = (~media).scatter(0, order, True)
        return mask_to_index(kept, len(media) - count + next_count)

    def next_count(self, count: int, layer: int, layers: int, final: int) -> int:
        """Of ``count`` audio and video tokens that ``layer`` has read, how many the next one reads; ``final`` after the
        last layer that drops."""
        end = max(layers - 2, 1)  # layers that drop
        if layer >= end or count <= final:
            return count
        rate = [-math.log1p(-self._drop_rate(each, layers)) + 1e-9 for each in range(layer, end)]
        return max(final, round(count * (final / count) ** (rate[0] / sum(rate)))) if layer < end - 1 else final

    def _drop_rate(self, layer: int, layers: int) -> float:
        """Share of its tokens that ``layer`` drops, before scaling to the budget: a sigmoid over depth."""
        return self.first + (self.last - self.first) / (1 + math.exp(-STEEPNESS * (layer / layers - self.middle)))

    def _diversity(self, score: Tensor, view: LayerView, drops: int) -> Tensor:
        """Diversity bonus [n], for the 2 ``drops`` candidates with the lowest ``score`` [n]: their distance in time
        from the chunk with the highest."""
        media, chunk = view.media, view.chunk
        total = torch.zeros(len(media), device=media.device).index_add_(0, chunk, score * media)
        key = total.argmax()
        distance = _min_max((chunk - key).abs().float(), media)
        order = torch.sort(score.masked_fill(~media, torch.inf), stable=True).indices[: 2 * drops]
        candidate = torch.zeros_like(media).scatter(0, order, True) & media
        return DIVERSITY * distance * candidate


def _min_max(values: Tensor, media: Tensor) -> Tensor:
    """``values`` [n] float32 scaled so that those of ``media`` span 0..1; all 0 if they are equal."""
    low, high = values.masked_fill(~media, torch.inf).amin(), values.masked_fill(~media, -torch.inf).amax()
    return ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
