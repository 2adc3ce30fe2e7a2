"""ContextGuard: keep what audio cannot say (arXiv 2605.11605, May 2026).

Only the paper's abstract and outline were at hand; where they are silent, this is our reading, chosen by measurements
on nano (docs/results/contextguard.md, docs/notes/pruning.md). Everything happens in the coarse visual space of the
audio-to-visual predictor:

1. *Recoverability.* With a predictor of visual words, a token is recoverable as far as sound makes its word likelier
   than it is anyway; what exceeds the first few such tokens of a window counts for less by that much. With a predictor
   of directions, the one that the sound predicts is projected out of every video token of its window, in proportion to
   the cosine agreement between the predicted and the actual mean picture of the window.
2. *Detail.* In what is left of each grid the longest token comes first, then always the one farthest from those before
   it (k-centre; DivPrune, arXiv 2503.02175, does so without a norm), so that a sounding thing's colour or a silent
   thing beside it stays although the window is recoverable. Where a token is in the picture counts as two coordinates
   more: what is alike far away is another thing.
3. *Budget.* A token's score is its distance to those before it, and the budget goes to the highest scores of the whole
   video: grids in which more is to be seen get more.
4. *Contextual tokens* (VisionZip, arXiv 2412.04467). A quarter of the budget is for evenly spaced tokens of the half of
   each grid with the smaller norms.
5. *Token merging.* ``merge_nearest`` folds each dropped token into the nearest kept one of its segment, with
   proportional attention (ToMe, arXiv 2210.09461). Where audio must shrink, neighbouring tokens merge.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cg_cli.errors import UsageError
from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.explain import Explanation
from cg_cli.pruning.ops.farthest import distances, insertion_radius
from cg_cli.pruning.ops.grids import PAIRS, Grids, similarity, table
from cg_cli.pruning.ops.indexing import bincount, evenly_spaced, evenly_spaced_index
from cg_cli.pruning.ops.merge import STRETCH, joined, merge_nearest, merge_neighbours
from cg_cli.pruning.ops.pieces import by_rows
from cg_cli.pruning.ops.projection import COMPONENTS, project
from cg_cli.pruning.ops.recoverability import Heard, HeardDirection, HeardWords
from cg_cli.pruning.ops.ridge import leave_one_out
from cg_cli.pruning.ops.rows import Rows, assemble, check_fits, rows_of
from cg_cli.pruning.ops.segments import segments
from cg_cli.pruning.ops.windows import EPSILON, window_index
from cg_cli.pruning.predictor import DirectionPredictor, WordPredictor
from cg_cli.pruning.stream import Merge, Selection, TokenStream

if TYPE_CHECKING:
    from cg_cli.pruning.predictor import A2VPredictor

WINDOW_S = 1.0  # seconds of sound in a window where there is no predictor
PLACE = 0.5  # mean lengths of a grid's tokens that one side of the picture counts as
FIRST = 2.0**64  # times its length is the score of a grid's first token, above all distances; a power of two is exact
CONTEXTUAL = 0.25  # of the video budget
# What ``explain`` says of a token.
REASONS = ("kept", "dropped", "detail", "ordinary", "recoverable", "repeated", "little detail", "no room")


@dataclass(frozen=True)
class ContextGuard(Pruner):
    """Offline ContextGuard. The options are there for ablations and controls.

    Attributes:
        recover: count what the sound tells for less, or project it out.
        detail: score by what is left; without it, by how little is recoverable.
        novelty: score by the distance to what its grid keeps already; without it, by the norm.
        merge: average dropped tokens into the nearest kept ones, with proportional attention.
        confident: weigh a predicted direction by its cosine agreement with the picture; without it, trust all alike.
            Words need none.
        prediction: "predictor"; or a control: "audio", the window's mean audio token as a direction; or, as if there
            were no predictor, "ridge", a regression inside the clip, or "none".
    """

    name: ClassVar[str] = "contextguard"
    version: ClassVar[int] = 3
    needs_predictor: ClassVar[bool] = True
    causal: ClassVar[bool] = False

    recover: bool = True
    detail: bool = True
    novelty: bool = True
    merge: bool = True
    confident: bool = True
    prediction: Literal["predictor", "audio", "ridge", "none"] = "predictor"

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        """As ``Pruner.select``; dropped rows are merged into kept ones unless ``merge`` is off."""
        rows = rows_of(stream)
        check_fits(rows, budget)
        allocation = self._allocate(stream, rows, budget)
        video, video_merge = self._video(stream, allocation)
        audio, audio_merge = allocation.audio()
        merges = [m for m in (video_merge, audio_merge) if m and self.merge]
        return Selection(assemble(rows, video, audio).indices, joined(merges))

    def with_predictor(self, predictor: A2VPredictor | None) -> Self:
        """As ``Pruner.with_predictor``. UsageError for a control that the predictor's kind has not."""
        if self.prediction == "audio" and isinstance(predictor, WordPredictor):
            raise UsageError(
                "prediction 'audio' is a control for predictors of directions, and this one is of words: leave it out, "
                "or use 'none'"
            )
        return super().with_predictor(predictor)

    def with_merging(self, merging: Literal["nearest", "none"]) -> Self:
        pruner = copy.copy(self)  # with its predictor
        object.__setattr__(pruner, "merge", merging == "nearest")
        return pruner

    def explain(self, stream: TokenStream, budget: Budget, selection: Selection) -> Explanation:
        """A dropped token's reason is the first step that took its score below the least of those kept by score."""
        rows = rows_of(stream)
        kept = torch.zeros(len(stream), dtype=torch.bool, device=stream.modality.device)
        kept = kept.scatter_(0, selection.indices, True)
        reason = torch.where(kept, REASONS.index("kept"), REASONS.index("dropped"))
        if not 0 < budget.video < len(rows.video):
            return Explanation(reason, REASONS)
        grids = self._grids(stream, rows)
        segment = segments(similarity(grids), self.causal)
        allocation = self._allocate(stream, rows, budget)
        contextual = grids.flat(contextual_tokens(grids, (CONTEXTUAL * allocation.per_grid()).long()))
        heard = self._heard(stream, rows, grids) if self.recover else None
        order = self._unweighted(grids, heard, self.novelty)
        norm, unpredicted = self._unweighted(grids, None, False), self._unweighted(grids, heard, False)
        weighed = (norm, *(heard.weigh(each, order, grids) if heard else each for each in (unpredicted, order)))
        norm, unpredicted, score = map(grids.flat, weighed)
        first = score == FIRST * unpredicted  # of its grid; its length stands for a distance
        score = torch.where(first, unpredicted, score)
        kept = kept[rows.video]
        least = score.masked_fill(~kept | contextual, torch.inf).amin()
        code = {word: torch.full_like(rows.video, number) for number, word in enumerate(REASONS)}
        dropped = torch.where(score < least, code["repeated"], code["no room"])
        dropped = torch.where(unpredicted < least, code["recoverable"], dropped)
        dropped = torch.where(norm < least, code["little detail"], dropped)
        reason[rows.video] = torch.where(kept, torch.where(contextual, code["ordinary"], code["detail"]), dropped)
        scores = torch.full((len(stream),), torch.nan, device=reason.device)
        scores[rows.video] = score.float() + first * score.amax()
        return Explanation(reason, REASONS, scores, heard.share(grids) if heard else None, segment)

    @property
    def _space(self) -> A2VPredictor | None:
        """The predictor whose coarse space is used, if any."""
        return None if self.prediction in ("ridge", "none") else self.predictor

    @property
    def _window_s(self) -> float:
        """Seconds of sound that one prediction is made from."""
        return self._space.metadata.window_s if self._space else WINDOW_S

    def flops(self, budget: Budget, audio: int, video: int, grids: int, width: int) -> int:
        if self._space:
            coarse, size = self._space.flops(audio, video, grids), self._space.metadata.components
        else:
            coarse, size = 2 * video * width * COMPONENTS, COMPONENTS
        # Each token is compared with its grid; a dropped one with those kept of its run, of which a video that is one
        # run has the most.
        novelty = video * -(-video // max(grids, 1)) * (self.novelty and self.detail)
        stretch = max(STRETCH, -(-video // max(grids, 1)))
        merging = (video - budget.video) * budget.video * min(1, stretch / max(video, 1)) * self.merge
        return coarse + int(2 * size * (novelty + merging))

    def _allocate(self, stream: TokenStream, rows: Rows, budget: Budget) -> Allocation:
        """How ``budget`` is spread over the clip."""
        return Allocation(rows, budget)

    def _video(self, stream: TokenStream, allocation: Allocation) -> tuple[Tensor, Merge | None]:
        """The kept video rows [budget.video], and where the others go."""
        rows, count = allocation.rows, allocation.budget.video
        if not 0 < count < len(rows.video):
            return rows.video[:count], None
        grids = self._grids(stream, rows)
        segment = segments(similarity(grids), self.causal)
        contextual = contextual_tokens(grids, (CONTEXTUAL * allocation.per_grid()).long())
        score = self._score(grids, self._heard(stream, rows, grids) if self.recover else None)
        kept = allocation.best(grids.flat(score.masked_fill(contextual, torch.inf))).sort().values
        merge = merge_nearest(grids, rows, kept, allocation.runs(segment)) if self.merge else None
        return rows.video[kept], merge

    def _grids(self, stream: TokenStream, rows: Rows) -> Grids:
        """The video tokens in the coarse space. Without a predictor that is a random projection, centred on the
        clip."""
        if self._space:
            return table(stream, rows, by_rows(self._space.coarse, stream.embeddings, rows.video))
        return self._centred(table(stream, rows, project(stream.embeddings, rows.video)))

    def _centred(self, grids: Grids) -> Grids:
        """``grids`` less the clip's mean point."""
        return grids.centred()

    def _score(self, grids: Grids, heard: Heard | None) -> Tensor:
        """Score of each video token [G, P], the highest kept first."""
        order = self._unweighted(grids, heard, self.novelty)
        return heard.weigh(order, order, grids) if heard else order

    def _unweighted(self, grids: Grids, heard: Heard | None, novelty: bool) -> Tensor:
        """The score before sound weighs it [G, P]; ``novelty`` as the option."""
        if not self.detail:
            return heard.untold(grids) if heard else torch.ones_like(grids.point[:, :, 0])
        point = heard.point(grids) if heard else grids.point
        return spread(point, grids) if novelty else point.norm(dim=-1)

    def _heard(self, stream: TokenStream, rows: Rows, grids: Grids) -> Heard:
        """What each window's sound tells of its picture, by the kind of the predictor."""
        window = window_index(grids.start_s, self._window_s)
        predictor = self._space
        if isinstance(predictor, WordPredictor):
            word = predictor.words_of(grids.point)
            audio, audio_window = self._audio(stream, rows, grids, window)
            return HeardWords(word, window, predictor(audio, audio_window, rows.grids + 1)[:-1])
        count = bincount(window, rows.grids)
        mean = grids.mean()
        actual = torch.zeros_like(mean).index_add_(0, window, mean) / count.clamp_min(1)[:, None]
        predicted = self._predict(stream, rows, grids, window, actual)
        if predicted is None:
            return HeardDirection(torch.zeros_like(actual), actual.new_zeros(rows.grids))
        confidence = torch.ones_like(actual[:, 0])
        if self.confident:
            cosine = (predicted * normalize(actual, dim=-1)).sum(-1)
            confidence = cosine.clamp(0, 1)
            if isinstance(predictor, DirectionPredictor):
                confidence = predictor.confidence(cosine)
        return HeardDirection(predicted[window], confidence[window])

    def _predict(self, stream: TokenStream, rows: Rows, grids: Grids, window: Tensor, actual: Tensor) -> Tensor | None:
        """Each window's picture as predicted from its sound [G, k], unit length or 0; None without sound or predictor.

        Args:
            window: [G] int64, the window of each grid.
            actual: [G, k], the mean picture of each window.
        """
        if self.prediction == "none" or not len(rows.audio):
            return None
        audio, audio_window = self._audio(stream, rows, grids, window)
        if self.prediction == "ridge":
            return leave_one_out(audio, audio_window, actual)
        if not isinstance(self._space, DirectionPredictor):
            return None
        if self.prediction == "audio":
            return self._space.raw_audio(audio, audio_window, rows.grids + 1)[:-1]
        return self._space(audio, audio_window, rows.grids + 1)[:-1]

    def _audio(self, stream: TokenStream, rows: Rows, grids: Grids, window: Tensor) -> tuple[Tensor, Tensor]:
        """The audio tokens [A, D], and the window of each [A] int64: ``rows.grids`` for one that comes too late."""
        grid = torch.searchsorted(grids.start_s, stream.time_s[rows.audio] + EPSILON, right=True).clamp_min(1) - 1
        audio_window = torch.where(self._in_time(stream, rows, grids, grid), window[grid], rows.grids)
        return stream.embeddings[rows.audio], audio_window

    def _in_time(self, stream: TokenStream, rows: Rows, grids: Grids, grid: Tensor) -> Tensor:
        """Which audio tokens are heard early enough to tell of the grid ``grid`` [A] that is shown then: [A] bool."""
        return torch.ones_like(grid, dtype=torch.bool)


@dataclass(frozen=True)
class Allocation:
    """How a budget is spread over time: here as one for the whole clip."""

    rows: Rows
    budget: Budget

    def per_grid(self) -> Tensor:
        """Tokens that each grid would keep [G] if all the grids that share a budget kept the same number."""
        return torch.full((self.rows.grids,), self.budget.video / self.rows.grids, device=self.rows.video.device)

    def best(self, score: Tensor) -> Tensor:
        """Places in ``rows.video`` of the video tokens that are kept [budget.video], by their ``score`` [V]."""
        return torch.sort(score, descending=True, stable=True).indices[: self.budget.video]

    def runs(self, segment: Tensor) -> Tensor:
        """Number of the run of grids [G] inside which tokens may merge, from their ``segment`` [G]."""
        return segment

    def audio(self) -> tuple[Tensor, Merge | None]:
        """The audio rows that are kept [budget.audio], evenly spaced; each of the others merges into the last one
        before it."""
        total, count = len(self.rows.audio), self.budget.audio
        if not 0 < count < total:
            return self.rows.audio[:count], None
        return merge_neighbours(self.rows.audio, *self._spaced_audio())

    def _spaced_audio(self) -> tuple[Tensor, Tensor]:
        """Places in ``rows.audio`` that are kept [budget.audio], and the window [A] inside which tokens may merge."""
        audio = self.rows.audio
        return evenly_spaced_index(len(audio), self.budget.audio, audio.device), torch.zeros_like(audio)


def contextual_tokens(grids: Grids, count: Tensor) -> Tensor:
    """Of each grid ``count`` [G] tokens, evenly spaced among the half of its tokens with the smaller norms: [G, P]
    bool."""
    norm = grids.point.norm(dim=-1).masked_fill(~grids.mask, torch.inf)
    rank = torch.argsort(torch.argsort(norm, dim=1, stable=True), dim=1)
    half = rank < -(-grids.mask.sum(1, keepdim=True) // 2)
    place, size = half.cumsum(1), half.sum(1, keepdim=True).clamp_min(1)
    count = torch.minimum(count[:, None], size)
    return half & evenly_spaced(place, count, size)


def spread(point: Tensor, grids: Grids) -> Tensor:
    """How far each token of a grid is from those that come before it [G, P]: the longest comes first, then always the
    farthest; its place in the picture counts. ``point`` [G, P, k] are the tokens, in the table of ``grids``."""
    norm = point.norm(dim=-1)
    side = PLACE * norm.sum(1) / grids.mask.sum(1).clamp_min(1)
    point = torch.cat([point, grids.place * side[:, None, None]], dim=-1)
    first = norm.masked_fill(~grids.mask, -1).argmax(1)
    step = max(1, PAIRS // norm.shape[1] ** 2)
    together = zip(point.split(step), grids.mask.split(step), first.split(step), strict=True)
    radius = torch.cat(
        [insertion_radius(distances(some), mask, start, norm.shape[1]) for some, mask, start in together]
    )
    return torch.where(radius == torch.inf, FIRST * norm, radius)
