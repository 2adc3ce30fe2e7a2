"""The contract of pruners that act between the layers of the language model, where the question is read, too."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .base import Pruner
from .budget import Budget
from .stream import AUDIO, VIDEO, Selection, TokenStream


@dataclass(frozen=True)
class LayerView:
    """What a pruner sees when a layer has run. ``n`` rows are left, the clip's and then the question's.

    Attributes:
        layer, layers: the layer that has run, from 0, and how many there are.
        modality, grid: [n] int64, as in ``TokenStream``; -1 and TEXT for the question.
        time_s: [n] float32, as in ``TokenStream``; -1 for the question.
        question: how many of the last rows are the question and the marks around it.
        hidden: [n, D], the rows as the next layer would read them.
        attention: from row numbers [q] int64 to the attention [q, n] float32 that these rows paid to all in this layer, the mean
            over its heads. Computed when called, for those rows alone.
    """

    layer: int
    layers: int
    modality: Tensor
    grid: Tensor
    time_s: Tensor
    question: int
    hidden: Tensor
    attention: Callable[[Tensor], Tensor]

    @property
    def media(self) -> Tensor:
        """[n] bool, True for audio and video."""
        return (self.modality == VIDEO) | (self.modality == AUDIO)


@dataclass(frozen=True)
class DecoderPruner(Pruner):
    """Lets rows go between layers. Of the budget only the sum counts: audio and video are ranked together.

    A prefix made with one question serves no other, so every question pays for a prefill of its own.
    """

    stage: ClassVar[Literal["input", "decoder"]] = "decoder"
    needs_question: ClassVar[bool] = True

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        """What enters the first layer: everything, unless the method says otherwise."""
        return Selection(torch.arange(len(stream), device=stream.modality.device))

    @abstractmethod
    def after(self, view: LayerView, budget: Budget) -> Tensor | None:
        """The rows that go on to the next layer, ascending [m] int64, or None for all. Text rows always go on; when the last
        layer that drops has run, exactly ``budget.count`` of audio and video are left."""
