"""The pruner contract: which tokens of a clip reach the language model, and what a record says about the method.

Knows tensors only: no file, no model, no method. Adding a method is one file in ``methods/``, one line in
``registry.MANIFEST``, and one row in ``tests/helpers/pruner_matrix.py``.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from cg_cli.pruning import copies, identity, merging
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.explain import DROPPED, KEPT, Explanation
from cg_cli.pruning.ops.indexing import evenly_spaced_index
from cg_cli.pruning.ops.rows import Rows, assemble, check_fits, rows_of
from cg_cli.pruning.stream import Selection, TokenStream

if TYPE_CHECKING:
    from cg_cli.pruning.predictor import A2VPredictor


@dataclass(frozen=True)
class Pruner(ABC):
    """Decides which rows of a stream reach the language model. Options of a method are the fields of its dataclass, or
    what its own ``__init__`` sets.

    Attributes:
        name: what records call it: the registry's name of a bundled method, else, unless set, the name of the class.
        version: part of the record's key; raised when the same options keep other tokens.
        stage: "input" prunes before the language model, "decoder" between its layers.
        needs_question: True forfeits prefix reuse between the questions on one clip.
        needs_predictor: True when the method reads an audio-to-visual predictor.
        counted: where audio and video tokens are counted as kept: at the language model's input, in its last layer, or
            as the mean over its layers, as methods count that take some tokens far and others nowhere.
        reasons: why a token is kept and why one is dropped, as far as that is the same for all.
        predictor: that predictor, once ``with_predictor`` has set it; no option, since it is no plain value.
        folds: whether tokens that repeat others (``TokenStream.same_as``) are left out before it ranks, and merged into
            what becomes of those they repeat, where ``with_folding`` has set it. It counts as an option then.
        can_fold: not one that must not look ahead, or acts between layers.
        merging: what becomes of dropped rows, where ``with_merging`` has set it: "nearest" folds each into the nearest
            kept one (``cg_cli.pruning.merging``), "none" folds none. It counts as an option then.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    stage: ClassVar[Literal["input", "decoder"]] = "input"
    needs_question: ClassVar[bool] = False
    needs_predictor: ClassVar[bool] = False
    counted: ClassVar[Literal["input", "last_layer", "layer_mean"]] = "input"
    reasons: ClassVar[tuple[str, str]] = (KEPT, DROPPED)
    predictor: ClassVar[A2VPredictor | None] = None
    merging: ClassVar[Literal["nearest", "none"] | None] = None
    folds: ClassVar[bool] = False
    can_fold: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:  # nor is a subclass called what its base is
            cls.name = cls.__name__

    @classmethod
    def fingerprint(cls) -> str:
        """``module:qualname`` of the class and, unless it is one of this package, a hash of its code: part of the
        record's key, so that two classes of one name share no answers."""
        return identity.fingerprint(cls)

    def options(self) -> dict[str, Any]:
        """The options by name, defaults included, as plain JSON values; ``identity.plain`` says how."""
        return {name: identity.plain(value) for name, value in identity.attributes(self).items() if name != "predictor"}

    def with_predictor(self, predictor: A2VPredictor | None) -> Self:
        """The same pruner, reading ``predictor``."""
        pruner = copy.copy(self)
        object.__setattr__(pruner, "predictor", predictor)
        return pruner

    def with_merging(self, merging: Literal["nearest", "none"]) -> Self:
        """The same pruner, whose dropped rows are merged, or not, whatever it does by itself. ValueError for one that
        prunes between layers."""
        if self.stage != "input":
            raise ValueError(f"{self.name} prunes between layers, which cannot merge")
        pruner = copy.copy(self)
        object.__setattr__(pruner, "merging", merging)
        return pruner

    def with_folding(self) -> Self:
        """The same pruner, which is shown no token that repeats another. ValueError for one that cannot."""
        if not self.can_fold:
            raise ValueError(f"{self.name} ranks every token as it comes, repeated or not")
        pruner = copy.copy(self)
        object.__setattr__(pruner, "folds", True)
        return pruner

    def prune(self, stream: TokenStream, budget: Budget) -> Selection:
        """What reaches the language model: what ``select`` keeps, and what ``merging`` says of the dropped rows."""
        if (folded := self._folded(stream, budget)) is not None:
            return folded.unfold(self._merged(folded.stream, budget))
        return self._merged(stream, budget)

    def explanation(self, stream: TokenStream, budget: Budget, selection: Selection) -> Explanation:
        """``explain`` for what ``prune(stream, budget)`` made."""
        if (folded := self._folded(stream, budget)) is not None:
            return folded.explained(self.explain(folded.stream, budget, folded.folded(selection)))
        return self.explain(stream, budget, selection)

    def _folded(self, stream: TokenStream, budget: Budget) -> copies.Folded | None:
        return copies.fold(stream) if self.folds and budget.keep != 1 and stream.same_as is not None else None

    def _merged(self, stream: TokenStream, budget: Budget) -> Selection:
        selection = self.select(stream, budget)
        if self.merging == "none":
            return Selection(selection.indices)
        return merging.nearest(stream, selection) if self.merging else selection

    def flops(self, budget: Budget, audio: int, video: int, grids: int, width: int) -> int:
        """Operations of ``select`` and its predictor that bring ``audio`` and ``video`` tokens of ``width`` down to
        ``budget``; 0 for a method that computes next to nothing."""
        return 0

    @abstractmethod
    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        """Keep every text row and exactly ``budget.video`` video and ``budget.audio`` audio rows of ``stream``. A
        method may have an option to divide their sum in another way.

        The same input and options give the same selection. ValueError if the budget asks for more than there is.
        """

    def explain(self, stream: TokenStream, budget: Budget, selection: Selection) -> Explanation:
        """Why ``selection``, which ``select(stream, budget)`` made, is as it is."""
        dropped = torch.ones(len(stream), dtype=torch.int64, device=stream.modality.device)
        return Explanation(dropped.scatter_(0, selection.indices, 0), self.reasons)


@dataclass(frozen=True)
class ModalityPruner(Pruner):
    """A pruner that chooses among video tokens and among audio tokens, one without the other.

    A method says which video tokens stay; audio is thinned evenly unless the method says otherwise. Neither is asked
    when all or nothing stays.
    """

    def select(self, stream: TokenStream, budget: Budget) -> Selection:
        """As ``Pruner.select``, by ``pick_video`` and ``pick_audio``."""
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
