"""What every pruner shares: the contract (design, section 6), and the plumbing of those that pick by modality.

Knows tensors only: no file, no model, no other pruner. Adding a method is one file beside this one, one line in
``registry.MANIFEST``, and one row in ``tests/pruner_matrix.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from cg_cli.pruning.budget import Budget
from cg_cli.pruning.explain import DROPPED, KEPT, Explanation
from cg_cli.pruning.predictor import A2VPredictor
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, Selection, TokenStream


@dataclass(frozen=True)
class Pruner(ABC):
    """Decides which rows of a stream reach the language model. Options of a method are the fields of its dataclass.

    Attributes:
        stage: "input" prunes before the language model, "decoder" between its layers.
        needs_question: True forfeits prefix reuse between the questions on one clip.
        needs_predictor: True when the method reads an audio-to-visual predictor.
        counted: where audio and video tokens are counted as kept: at the language model's input, in its last layer, or
            as the mean over its layers, as methods count that take some tokens far and others nowhere.
        words: why a token is kept and why one is dropped, as far as that is the same for all.
        predictor: that predictor, once ``with_predictor`` has set it; no option, since it is no plain value.
    """

    stage: ClassVar[Literal["input", "decoder"]] = "input"
    needs_question: ClassVar[bool] = False
    needs_predictor: ClassVar[bool] = False
    counted: ClassVar[Literal["input", "last_layer", "layer_mean"]] = "input"
    words: ClassVar[tuple[str, str]] = (KEPT, DROPPED)
    predictor: ClassVar[A2VPredictor | None] = None

    def with_predictor(self, predictor: A2VPredictor | None) -> Self:
        """The same pruner, reading ``predictor``."""
        out = replace(self)
        object.__setattr__(out, "predictor", predictor)
        return out

    def flops(self, budget: Budget, audio: int, video: int, grids: int, width: int) -> int:
        """Operations of ``select`` and its predictor that bring ``audio`` and ``video`` tokens of ``width`` down to
        ``budget``; 0 for a method that computes next to nothing."""
        return 0

    @abstractmethod
    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        """Keep every text row and exactly ``budget.video`` video and ``budget.audio`` audio rows of ``stream``.

        The same input and options give the same selection. ValueError if the budget asks for more than there is.
        """

    def explain(self, stream: TokenStream, budget: Budget, selection: Selection) -> Explanation:
        """Why ``selection``, which ``select(stream, budget)`` made, is as it is."""
        stays = torch.zeros(len(stream), dtype=torch.int64, device=stream.modality.device).scatter_(
            0, selection.indices, 1
        )
        return Explanation(1 - stays, self.words)


@dataclass(frozen=True)
class Rows:
    """Where each modality sits in a stream: ``text`` [T], ``video`` [V], ``audio`` [A] int64, ascending row numbers.

    ``grids`` is the number of temporal patches, as ``budget.plan`` counts them; ``cells`` the tokens of the largest.
    """

    text: Tensor
    video: Tensor
    audio: Tensor
    grids: int
    cells: int


def rows_of(stream: TokenStream) -> Rows:
    """Sort the rows of ``stream`` by modality. Waits for the device once, to read five counts."""
    kinds = (TEXT, VIDEO, AUDIO)  # ascending, so that one stable sort lines the modalities up in this order
    counts = [(stream.modality == kind).sum() for kind in kinds]
    by_grid = torch.zeros(len(stream) + 1, dtype=torch.int64, device=stream.grid.device)
    by_grid.index_add_(0, stream.grid + 1, torch.ones_like(stream.grid))
    cells = by_grid[1:].max()
    *sizes, grids, cells = torch.stack([*counts, stream.grid.max() + 1, cells]).tolist()
    text, video, audio = torch.argsort(stream.modality, stable=True).split(sizes)
    return Rows(text, video, audio, grids, cells)


def check_fits(rows: Rows, budget: Budget) -> None:
    """Raise ValueError unless the stream holds as many tokens as ``budget`` asks for."""
    for name, wanted, held in (("video", budget.video, len(rows.video)), ("audio", budget.audio, len(rows.audio))):
        if not 0 <= wanted <= held:
            raise ValueError(f"the budget asks for {wanted} {name} tokens of a stream that holds {held}")


def assemble(rows: Rows, video: Tensor, audio: Tensor) -> Selection:
    """The selection of every text row, ``video`` [k] and ``audio`` [m], distinct row numbers in any order."""
    return Selection(torch.cat([rows.text, video, audio]).sort().values)


def evenly_spaced_mask(member: Tensor, count: Tensor | int) -> Tensor:
    """Pick ``count`` evenly spaced ones of the places where ``member`` [n] is True; all of them if there are no more.

    Returns a mask [n] bool. Counts in integers, as a line is drawn on a pixel grid, so that the number is exact; never
    waits for the device, hence ``count`` may be a tensor. A count below 1 picks nothing.
    """
    return member & evenly_spaced(member.cumsum(0), count, member.sum().clamp_min(1))


def evenly_spaced(rank: Tensor, count: Tensor | int, total: Tensor) -> Tensor:
    """Whether each ``rank``, from 1 to ``total``, is one of ``count`` evenly spaced ones; bool in the shape of
    ``rank``."""
    return (rank * count + total // 2) // total > ((rank - 1) * count + total // 2) // total


def mask_to_index(mask: Tensor, count: int) -> Tensor:
    """The first ``count`` places at which ``mask`` [n] bool is True, ascending [count] int64; there have to be as many.

    Like ``mask.nonzero()``, but does not wait for the device, since the caller knows the size.
    """
    return torch.argsort((~mask).to(torch.uint8), stable=True)[:count]


def complement(total: int, kept: Tensor) -> Tensor:
    """The numbers of ``range(total)`` that are not in ``kept`` [k] int64, distinct: ascending [total - k] int64."""
    rest = torch.ones(total, dtype=torch.bool, device=kept.device).scatter_(0, kept, False)
    return mask_to_index(rest, total - len(kept))


def evenly_spaced_index(total: int, count: int, device: torch.device) -> Tensor:
    """``count`` evenly spaced numbers of ``range(total)``, ascending [count] int64."""
    return mask_to_index(evenly_spaced_mask(torch.ones(total, dtype=torch.bool, device=device), count), count)


@dataclass(frozen=True)
class ModalityPruner(Pruner):
    """A pruner that chooses among video tokens and among audio tokens, one without the other.

    A method says which video tokens stay; audio is thinned evenly unless the method says otherwise. Neither is asked
    when all or nothing stays.
    """

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        rows = rows_of(stream)
        check_fits(rows, budget)
        video, audio = rows.video, rows.audio
        if budget.video < len(video):
            video = video[self.pick_video(stream, rows, budget.video)] if budget.video else video[:0]
        if budget.audio < len(audio):
            audio = audio[self.pick_audio(stream, rows, budget.audio)] if budget.audio else audio[:0]
        return assemble(rows, video, audio)

    @abstractmethod
    def pick_video(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        """``count`` distinct places in ``rows.video`` [count] int64, in any order; 0 < count < V."""

    def pick_audio(self, stream: TokenStream, rows: Rows, count: int) -> Tensor:
        """``count`` distinct places in ``rows.audio`` [count] int64, in any order; 0 < count < A."""
        return evenly_spaced_index(len(rows.audio), count, rows.audio.device)
