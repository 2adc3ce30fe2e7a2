"""ContextGuard: keep what audio cannot say (arXiv 2605.11605, May 2026).

The paper's abstract and outline are public, its formulas are not; where it is silent, this is our reading, chosen by
measurements on nano (README, "ContextGuard, measured"; NOTES.md). Everything happens in the coarse visual space of the
predictor:

1. *Recoverable first.* The direction that the sound predicts is taken out of every video token of its window, as far as
   the window's picture bears the prediction out: what sound already says adds nothing to a token's worth.
2. *Detail stays.* What is left of a token is its detail: its length ranks the tokens, so that a sounding thing's colour
   or a silent thing beside it stays although the window is recoverable.
3. *Nothing twice.* A token counts less for what a longer one near it in its grid, or any near it in the grid before in
   the same depth-score segment, holds already. The budget goes to the highest ranks of the whole video.
4. *The ordinary is not forgotten.* A quarter of the budget is for evenly spaced tokens of the less detailed half of
   each grid (VisionZip, arXiv 2412.04467, calls such tokens contextual).
5. *Similar tokens merge.* Each dropped token is averaged into the kept one of its segment that is nearest to it, which
   from then on weighs in attention as many tokens as it stands for. Where audio must shrink, neighbouring tokens merge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cg_cli.pruning.base import Pruner, Rows, check_fits, complement, evenly_spaced, evenly_spaced_index, rows_of
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.explain import Explanation
from cg_cli.pruning.ops.grids import PAIRS, Grids, merge_nearest, similarity, table
from cg_cli.pruning.ops.ridge import leave_one_out
from cg_cli.pruning.ops.segments import segments
from cg_cli.pruning.predictor import A2VPredictor
from cg_cli.pruning.stream import Merge, Selection, TokenStream

COMPONENTS = 64  # of the random projection that stands for the coarse space where there is no predictor
WINDOW_S = 1.0  # seconds of sound in a window where there is no predictor
# How much of a token is known from the grid before when all of it was there: still things are kept again at times
MEMORY = 0.7
REACH = 0.25 + 1e-4  # of the picture's sides; what is farther away is another thing, however much it looks the same
CONTEXT = 0.25  # of the video budget, for the ordinary
# What ``explain`` says of a token.
WHY = ("kept", "dropped", "detail", "ordinary", "recoverable", "repeated", "little detail", "no room")


@dataclass(frozen=True)
class ContextGuard(Pruner):
    """Offline ContextGuard. The options are there for ablations and controls.

    Attributes:
        recover: take out what the sound predicts.
        detail: rank by detail; without it, by how little is recoverable.
        novelty: rank down what a token beside it, or the grid before, shows already.
        merge: average dropped tokens into the nearest kept ones, and let these weigh as many.
        confident: weigh a prediction by how far the picture bears it out; without it, believe all alike.
        prediction: "predictor"; or a control: "oracle", the window's own mean picture; "audio", its mean audio token;
            or, as if there were no predictor, "ridge", a regression inside the clip, or "none".
    """

    needs_predictor: ClassVar[bool] = True
    causal: ClassVar[bool] = False

    recover: bool = True
    detail: bool = True
    novelty: bool = True
    merge: bool = True
    confident: bool = True
    prediction: Literal["predictor", "oracle", "audio", "ridge", "none"] = "predictor"

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        rows = rows_of(stream)
        check_fits(rows, budget)
        shares = self._shares(stream, rows, budget)
        video, video_merge = self._video(stream, rows, budget, shares)
        audio, audio_merge = self._audio(rows, budget, shares)
        merges = [m for m in (video_merge, audio_merge) if m and self.merge]
        joined = [torch.cat(parts) for parts in zip(*((m.dropped, m.into, m.weight) for m in merges))]
        return Selection(torch.cat([rows.text, video, audio]).sort().values, Merge(*joined) if merges else None)

    def explain(self, stream: TokenStream, budget: Budget, selection: Selection) -> Explanation:
        """A dropped token's reason is the first step that took it below the least of those that were kept by rank."""
        rows = rows_of(stream)
        stays = torch.zeros(len(stream), dtype=torch.bool, device=stream.modality.device).scatter_(
            0, selection.indices, True
        )
        reason = torch.where(stays, WHY.index("kept"), WHY.index("dropped"))
        if not 0 < budget.video < len(rows.video):
            return Explanation(reason, WHY)
        grids = self._grids(stream, rows)
        segment = segments(similarity(grids), self.causal)
        context = grids.flat(
            _ordinary(grids, (CONTEXT * self._per_grid(rows, budget, self._shares(stream, rows, budget))).long())
        )
        share = self._recoverable(stream, rows, grids)[1] if self.recover else None
        plain, heard = (
            replace(self, recover=recover, novelty=False).with_predictor(self.predictor)
            for recover in (False, self.recover)
        )
        steps = [grids.flat(pruner._rank(stream, rows, grids, segment)) for pruner in (plain, heard, self)]
        kept = stays[rows.video]
        least = steps[-1].masked_fill(~kept | context, torch.inf).amin()
        why = [
            torch.full_like(rows.video, WHY.index(word))
            for word in ("ordinary", "detail", "little detail", "recoverable", "repeated", "no room")
        ]
        dropped = torch.where(
            steps[0] < least,
            why[2],
            torch.where(steps[1] < least, why[3], torch.where(steps[2] < least, why[4], why[5])),
        )
        reason[rows.video] = torch.where(kept, torch.where(context, why[0], why[1]), dropped)
        score = torch.full((len(stream),), torch.nan, device=reason.device)
        score[rows.video] = steps[-1].float()
        return Explanation(reason, WHY, score, share, segment)

    @property
    def _space(self) -> A2VPredictor | None:
        """The predictor whose coarse space is used, if any."""
        return None if self.prediction in ("ridge", "none") else self.predictor

    def flops(self, budget: Budget, audio: int, video: int, grids: int, width: int) -> int:
        if self._space:
            coarse, size = self._space.flops(audio, video, grids), self._space.card.components
        else:
            coarse, size = 2 * video * width * COMPONENTS, COMPONENTS
        # Each token is compared with its grid and the one before; a dropped one with all that are kept.
        compared = (
            2 * video * -(-video // max(grids, 1)) * self.novelty + (video - budget.video) * budget.video * self.merge
        )
        return coarse + 2 * size * compared

    def _video(self, stream: TokenStream, rows: Rows, budget: Budget, shares: Any) -> tuple[Tensor, Merge | None]:
        """The video rows that stay, and where the others go."""
        total, count = len(rows.video), budget.video
        if not 0 < count < total:
            return rows.video[:count], None
        grids = self._grids(stream, rows)
        segment = segments(similarity(grids), self.causal)
        context = _ordinary(grids, (CONTEXT * self._per_grid(rows, budget, shares)).long())
        rank = self._rank(stream, rows, grids, segment).masked_fill(context, torch.inf)
        kept = self._best(grids.flat(rank), rows, budget, shares).sort().values
        merge = merge_nearest(grids, rows, kept, self._runs(segment, shares)) if self.merge else None
        return rows.video[kept], merge

    def _shares(self, stream: TokenStream, rows: Rows, budget: Budget) -> Any:
        """How the budget is spread over time, for the methods below; None where it is one for the whole video."""
        return None

    def _per_grid(self, rows: Rows, budget: Budget, shares: Any) -> Tensor:
        """Tokens that each grid would keep [G] if all the grids that share a budget kept the same number."""
        return torch.full((rows.grids,), budget.video / rows.grids, device=rows.video.device)

    def _best(self, rank: Tensor, rows: Rows, budget: Budget, shares: Any) -> Tensor:
        """Places in ``rows.video`` of those that stay [budget.video], by their ``rank`` [V]."""
        return torch.sort(rank, descending=True, stable=True).indices[: budget.video]

    def _runs(self, segment: Tensor, shares: Any) -> Tensor:
        """Number of the run of grids [G] inside which tokens may merge."""
        return segment

    def _audio(self, rows: Rows, budget: Budget, shares: Any) -> tuple[Tensor, Merge | None]:
        """The audio rows that stay, evenly spaced; each of the others merges into the last one before it."""
        total, count = len(rows.audio), budget.audio
        if not 0 < count < total:
            return rows.audio[:count], None
        return merge_neighbours(
            rows.audio, evenly_spaced_index(total, count, rows.audio.device), torch.zeros_like(rows.audio)
        )

    def _grids(self, stream: TokenStream, rows: Rows) -> Grids:
        """The video tokens in the coarse space. Without a predictor that is a random projection, centred on the
        clip."""
        video = stream.embeddings[rows.video]
        if self._space:
            return table(stream, rows, self._space.coarse(video))
        grids = table(stream, rows, video.float() @ _projection(video.shape[1], video.device))
        return self._centred(grids)

    def _centred(self, grids: Grids) -> Grids:
        mean = grids.point.sum((0, 1)) / grids.total
        return replace(grids, point=(grids.point - mean) * grids.mask[:, :, None])

    def _rank(self, stream: TokenStream, rows: Rows, grids: Grids, segment: Tensor) -> Tensor:
        """How much each video token is worth [G, P]."""
        point = grids.point
        if self.recover:
            direction, share = self._recoverable(stream, rows, grids)
            along = (point * direction[:, None]).sum(-1, keepdim=True)
            if not self.detail:
                return 1 - share[:, None] * along[:, :, 0] / point.norm(dim=-1).clamp_min(1e-6)
            point = point - share[:, None, None] * along * direction[:, None]
        length = point.norm(dim=-1) if self.detail else torch.ones_like(point[:, :, 0])
        # Whether two tokens show the same thing is told by all of both, what sound says included.
        return length * _novelty(grids, length, segment) if self.novelty else length

    def _recoverable(self, stream: TokenStream, rows: Rows, grids: Grids) -> tuple[Tensor, Tensor]:
        """The direction of the coarse space that each grid's sound predicts [G, k], unit length or 0, and how far to
        believe it [G], 0..1."""
        window = windows(grids.start_s, self._space.card.window_s if self._space else WINDOW_S)
        count = window.new_zeros(rows.grids).index_add_(0, window, torch.ones_like(window))
        mean = grids.mean()
        actual = torch.zeros_like(mean).index_add_(0, window, mean) / count.clamp_min(1)[:, None]
        predicted = self._predict(stream, rows, grids, window, actual)
        if predicted is None:
            return torch.zeros_like(actual), actual.new_zeros(rows.grids)
        share = torch.ones_like(actual[:, 0])
        if self.confident:
            cosine = (predicted * normalize(actual, dim=-1)).sum(-1)
            share = self._space.confidence(cosine) if self._space else cosine.clamp(0, 1)
        return predicted[window], share[window]

    def _predict(self, stream: TokenStream, rows: Rows, grids: Grids, window: Tensor, actual: Tensor) -> Tensor | None:
        """Each window's picture as its sound has it [G, k], unit length or 0; None where nothing tells it.

        Args:
            window: [G] int64, the window of each grid.
            actual: [G, k], the mean picture of each window.
        """
        if self.prediction == "oracle":
            return normalize(actual, dim=-1)
        if self.prediction == "none" or not len(rows.audio) or (self.predictor is None and self.prediction != "ridge"):
            return None
        heard = torch.searchsorted(grids.start_s, stream.time_s[rows.audio] + 1e-4, right=True).clamp_min(1) - 1
        audio, of = stream.embeddings[rows.audio], window[heard]
        if self.prediction == "ridge":
            return leave_one_out(audio, of, actual)
        guess = self.predictor.raw_audio if self.prediction == "audio" else self.predictor
        return guess(audio, of, rows.grids)


def _ordinary(grids: Grids, count: Tensor) -> Tensor:
    """Of each grid ``count`` [G] tokens, evenly spaced among the half of its tokens with less detail: [G, P] bool."""
    length = grids.point.norm(dim=-1).masked_fill(~grids.mask, torch.inf)
    by_length = torch.argsort(torch.argsort(length, dim=1, stable=True), dim=1)
    half = by_length < -(-grids.mask.sum(1, keepdim=True) // 2)
    place, size = half.cumsum(1), half.sum(1, keepdim=True).clamp_min(1)
    count = torch.minimum(count[:, None], size)
    return half & evenly_spaced(place, count, size)


def _novelty(grids: Grids, length: Tensor, segment: Tensor) -> Tensor:
    """What a token adds [G, P], 0..1: one less its largest cosine, within REACH, with one of its grid whose ``length``
    [G, P] is greater, and MEMORY of that with any of the grid before where that belongs to the same segment."""
    unit, place, mask = normalize(grids.point, dim=-1), grids.place, grids.mask
    goes_on = torch.cat([segment.new_zeros(1, dtype=torch.bool), segment[1:] == segment[:-1]])
    known = torch.empty_like(length)
    step = max(1, PAIRS // length.shape[1] ** 2)
    for first in range(0, len(length), step):
        this = slice(first, first + step)
        before = torch.arange(first, min(first + step, len(length)), device=unit.device).sub(1).clamp_min(0)
        alike = _cosine_near(unit[this], place[this], unit[this], place[this])
        longer = (length[this, None, :] > length[this, :, None]) & mask[this, None, :]
        earlier = _cosine_near(unit[this], place[this], unit[before], place[before]).amax(-1) * goes_on[this, None]
        known[this] = torch.maximum((alike * longer).amax(-1), MEMORY * earlier)
    return 1 - known.clamp(0, 1)


def _cosine_near(unit: Tensor, place: Tensor, others: Tensor, their_place: Tensor) -> Tensor:
    """Cosine [g, P, P] of each token with each of ``others`` that is within REACH of it; 0 for those farther away."""
    distance = (place[:, :, None] - their_place[:, None]).abs().amax(-1)
    return (unit @ others.mT) * (distance <= REACH)


def windows(start_s: Tensor, seconds: float) -> Tensor:
    """Number of each grid's window of sound [G] int64: grids that start in the same ``seconds`` share one."""
    whole = (start_s / seconds + 1e-4).long()
    return torch.cat([whole.new_zeros(1), (whole[1:] != whole[:-1]).cumsum(0)])


def merge_neighbours(audio: Tensor, kept: Tensor, window: Tensor) -> tuple[Tensor, Merge]:
    """The rows ``audio`` [A] at the places ``kept`` [m], ascending, m > 0; each of the others merges into the last kept
    one before it, or, where none is, the first, if both are in one ``window`` [A]."""
    everyone = torch.arange(len(audio), device=audio.device)
    taker = kept[torch.searchsorted(kept, everyone, right=True).clamp_min(1) - 1]
    out = complement(len(audio), kept)
    weight = (window[out] == window[taker[out]]).to(torch.float32)
    return audio[kept], Merge(audio[out], audio[taker[out]], weight)


@lru_cache(maxsize=4)
def _projection(width: int, device: torch.device) -> Tensor:
    """A fixed random matrix [width, COMPONENTS] that keeps distances about as they are (Johnson and Lindenstrauss)."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(width, COMPONENTS, generator=generator) / COMPONENTS**0.5).to(device)
