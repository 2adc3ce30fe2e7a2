"""What a predictor of each kind is trained to say, and how its coarse space is made from the training clips."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from cg_cli.predictors import codebook, corpus
from cg_cli.predictors.features import WindowSet
from cg_cli.pruning.predictor import DIRECTION, KINDS, WORDS, A2VPredictor, PredictorMetadata, WordPredictor

TEMPERATURE = 0.3  # of the contrastive loss; at 0.1 it dominated, and the cosine fell from 0.47 to 0.22 (nano)
SAMPLE = 64  # tokens of a clip that principal directions and codebook are made from


class Objective(ABC):
    """What training compares with what a predictor makes of a window's sound.

    Attributes:
        figure: how the agreement of prediction and target is called in a card.
        unit: the agreement of one of 1.
        rate: of learning.
        least: the score of a predictor that has learned nothing.
    """

    figure: ClassVar[str]
    unit: ClassVar[float] = 1.0
    rate: ClassVar[float] = 1e-3
    least: ClassVar[float] = -math.inf

    @abstractmethod
    def targets(self, predictor: A2VPredictor, windows: WindowSet) -> Tensor:
        """Of each window what is compared by product with the prediction [W, outputs] float32, on the CPU."""

    def settle(self, predictor: A2VPredictor, targets: Tensor) -> None:  # noqa: B027 (most kinds have nothing to settle)
        """What ``predictor`` has to know of the training set's targets."""

    @abstractmethod
    def loss(self, predictor: A2VPredictor, predicted: Tensor, target: Tensor) -> Tensor:
        """Of predictions [w, outputs] for windows of different clips."""

    @abstractmethod
    def score(self, figures: Mapping[str, float]) -> float:
        """How good a predictor with these figures is: training keeps the best."""


class DirectionObjective(Objective):
    """Cosine between the predicted and the actual mean video token of a window, and a contrastive loss (InfoNCE)
    against windows of other clips, so that predicting the mean of all clips does not pay."""

    figure = "cosine"

    def targets(self, predictor: A2VPredictor, windows: WindowSet) -> Tensor:
        parts = (predictor.coarse(mean.to(predictor.basis.device)) for (mean,) in windows.by_clip("video_mean"))
        return torch.cat([F.normalize(part, dim=-1).cpu() for part in parts])

    def loss(self, predictor: A2VPredictor, predicted: Tensor, target: Tensor) -> Tensor:
        cosine = predicted @ target.T
        own = torch.arange(len(target), device=target.device)
        return (1 - cosine.diagonal()).mean() + 0.5 * (
            F.cross_entropy(cosine / TEMPERATURE, own) + F.cross_entropy(cosine.T / TEMPERATURE, own)
        )

    def score(self, figures: Mapping[str, float]) -> float:
        return figures["cosine"] - figures["cosine_shuffled"]


class WordObjective(Objective):
    """Cross-entropy of ``p(word | sound)`` against the words of each window's tokens. The product of recoverability and
    histogram is what sound tells of a token."""

    figure = "bits"
    unit = math.log(2)
    rate = 4e-3  # since the last layer begins at zero; chosen in a simulation of tokens
    least = 0.0

    def targets(self, predictor: A2VPredictor, windows: WindowSet) -> Tensor:
        assert isinstance(predictor, WordPredictor)
        return torch.cat([histogram(predictor, *part) for part in windows.by_clip("token", "token_start")])

    def settle(self, predictor: A2VPredictor, targets: Tensor) -> None:
        assert isinstance(predictor, WordPredictor)
        count = targets.sum(0, dtype=torch.float64) * corpus.TOKENS + 1  # no word is impossible
        predictor.marginal.copy_((count / count.sum()).log())

    def loss(self, predictor: A2VPredictor, predicted: Tensor, target: Tensor) -> Tensor:
        assert isinstance(predictor, WordPredictor)
        return -(target * (predicted + predictor.marginal)).sum(-1).mean()

    def score(self, figures: Mapping[str, float]) -> float:
        return figures["bits"]


def histogram(predictor: WordPredictor, token: Tensor, start: Tensor) -> Tensor:
    """Share of each word in the tokens [T, D] of each window [W, K] float32; windows begin at ``start`` [W + 1]."""
    word = predictor.words_of(predictor.coarse(token.to(predictor.basis.device))).cpu()
    length, words = start.diff(), predictor.metadata.words
    window = torch.repeat_interleave(torch.arange(len(length)), length)
    count = torch.bincount(window * words + word, minlength=len(length) * words).view(len(length), words)
    return count / length[:, None]


OBJECTIVES: dict[str, Objective] = {DIRECTION: DirectionObjective(), WORDS: WordObjective()}


@torch.no_grad()
def untrained(train: WindowSet, metadata: PredictorMetadata, seed: int, device: torch.device) -> A2VPredictor:
    """A predictor with random weights on ``device``, and the means, principal directions and codebook of the training
    tokens."""
    width = metadata.width
    total, heard, energy = torch.zeros(width, dtype=torch.float64), 0, 0.0
    for (audio,) in train.by_clip("audio"):
        total += audio.sum(0, dtype=torch.float64)
        energy += float(audio.float().square().sum(dtype=torch.float64))
        heard += len(audio)
    audio_mean = total / heard
    total, seen = torch.zeros(width, dtype=torch.float64), 0
    for sample in train.samples(SAMPLE):
        total += sample.sum(0, dtype=torch.float64)
        seen += len(sample)
    video_mean = (total / seen).to(device, torch.float32)
    covariance = torch.zeros(width, width, device=device)
    for sample in train.samples(SAMPLE):
        centred = sample.to(device).float() - video_mean
        covariance += centred.T @ centred
    components = min(metadata.components, width, seen)
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -components:].flip(1)  # ascending
    metadata = replace(metadata, components=components, clips=len(train.clips), windows=len(train))
    if metadata.kind == WORDS:
        metadata = replace(metadata, words=codebook.size(seen))
    torch.default_generator.manual_seed(seed)
    predictor = KINDS[metadata.kind](metadata).to(device)
    predictor.audio_mean.copy_(audio_mean)
    predictor.audio_scale.fill_(math.sqrt(max(energy / heard / width - float(audio_mean.square().mean()), 1e-12)))
    predictor.video_mean.copy_(video_mean)
    predictor.basis.copy_(directions)
    if isinstance(predictor, WordPredictor):
        most = max(1, min(SAMPLE, codebook.MOST // len(train.clips)))
        points = [predictor.coarse(sample.to(device)).cpu() for sample in train.samples(most)]
        words = codebook.kmeans(torch.cat(points)[: codebook.MOST], metadata.words, seed)
        predictor.codebook.copy_(words)
    return predictor
