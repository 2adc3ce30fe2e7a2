"""The contract of layer-wise pruners, which drop tokens between the layers of the language model and may read the
question."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from cg_cli.pruning.base import Pruner
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.ops.windows import CHUNK_S, window_number
from cg_cli.pruning.stream import AUDIO, VIDEO, Selection, TokenStream


@dataclass(frozen=True)
class LayerView:
    """The state after a layer has run. ``n`` rows are left, the clip's and then the question's.

    Attributes:
        layer, layers: the layer that has run, from 0, and how many there are.
        read: how many rows it and each layer before it have read.
        modality, grid: [n] int64, as in ``TokenStream``; -1 and TEXT for the question.
        time_s: [n] float32, as in ``TokenStream``; -1 for the question.
        question: how many of the last rows are the question and the marks around it.
        hidden: [n, D], the rows as the next layer would read them.
        attention: from row numbers [q] int64 to the attention [q, n] float32 that these rows paid to all in this layer,
            the mean over its heads. Computed when called, for those rows alone.
    """

    layer: int
    layers: int
    read: tuple[int, ...]
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

    @property
    def chunk(self) -> Tensor:
        """[n] int64, below n: the chunk of 2 s that each row of audio and video belongs to; for text, any."""
        return window_number(self.time_s, CHUNK_S).clamp_max(len(self.time_s) - 1)


@dataclass(frozen=True)
class DecoderPruner(Pruner):
    """Drops rows between layers. Of the budget only the sum counts: audio and video are ranked together.

    The prefix depends on the question, so every question pays for a prefill of its own.
    """

    stage: ClassVar[Literal["input", "decoder"]] = "decoder"
    needs_question: ClassVar[bool] = True
    can_fold: ClassVar[bool] = False
    counted: ClassVar[Literal["input", "last_layer", "layer_mean"]] = "last_layer"

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        """What enters the first layer: everything, unless the method says otherwise."""
        return Selection(torch.arange(len(stream), device=stream.modality.device))

    @abstractmethod
    def after(self, view: LayerView, budget: Budget) -> Tensor | None:
        """Row numbers that the next layer reads, ascending [m] int64, or None for all. Text rows always stay; in the
        end exactly ``budget.count`` of audio and video were ``kept``."""

    @classmethod
    def kept(cls, media: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """How many (video, audio) tokens were kept where each layer read so many of them; a mean is rounded in their
        sum."""
        if cls.counted == "last_layer":
            return media[-1]
        video, both = (sum(counts) for counts in zip(*((v, v + a) for v, a in media)))
        mean_video = math.floor(video / len(media) + 0.5)
        return mean_video, max(0, math.floor(both / len(media) + 0.5) - mean_video)
