"""Training the audio-to-visual predictor: the language model and its encoders stay as they are.

Loss: cosine between the predicted and the actual mean picture of a window, and a contrastive one (InfoNCE) in which the
window has to be told from windows of other clips, so that predicting the mean frame does not pay.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cg_cli.errors import UsageError
from cg_cli.predictors.corpus import ClipWindows
from cg_cli.pruning.predictor import A2VPredictor, PredictorMetadata
from cg_cli.util.checkpoints import save_checkpoint

HELD_BACK = 0.1  # share of the clips that validates
FEWEST = 20  # clips
BATCH = 256  # windows of as many clips
TEMPERATURE = 0.3  # of the contrastive loss; at 0.1 it ruled, and the cosine fell from 0.47 to 0.22 (nano)
RATE = 1e-3
CHECK_EVERY = 50  # steps
PATIENCE = 6  # checks without a better one
RIVALS = 100  # windows of other clips, at most, among which retrieval has to find the right one


@dataclass(frozen=True)
class Windows:
    """Windows of many clips, end to end.

    Attributes:
        audio: [A, D] float16; start: [W + 1] int64, where each window's audio begins.
        picture: [W, D] float16; clip: [W] int64.
    """

    audio: Tensor
    start: Tensor
    picture: Tensor
    clip: Tensor

    def pick(self, chosen: Tensor, sound: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Audio tokens [a, D], their window's number [a], and pictures [w, D] of the windows ``chosen`` [w]; with
        ``sound`` [w], the audio of those windows instead."""
        source = chosen if sound is None else sound
        length = self.start[source + 1] - self.start[source]
        of = torch.repeat_interleave(torch.arange(len(chosen)), length)
        offset = torch.arange(len(of)) - (length.cumsum(0) - length)[of]
        return self.audio[self.start[source][of] + offset].float(), of, self.picture[chosen].float()


def gather(clips: Sequence[ClipWindows]) -> Windows:
    """All windows of ``clips``."""
    start, clip = [0], []
    for number, sounding in enumerate(clips):
        ends = torch.bincount(sounding.window, minlength=len(sounding.picture)).cumsum(0) + start[-1]
        start += ends.tolist()
        clip += [number] * len(sounding.picture)
    return Windows(
        torch.cat([c.audio for c in clips]),
        torch.tensor(start),
        torch.cat([c.picture for c in clips]),
        torch.tensor(clip),
    )


def fit(
    clips: Sequence[ClipWindows],
    card: PredictorMetadata,
    *,
    steps: int,
    seed: int,
    state_file: Path,
    shuffled: bool = False,
    tell: Callable[[int, dict[str, float]], None] = lambda step, figures: None,
) -> A2VPredictor:
    """Train a predictor.

    Args:
        clips: what it learns from; every tenth validates.
        card: sizes and model; the rest is filled in.
        steps: at most; training ends when validation has not improved for PATIENCE checks.
        state_file: checkpoint, from which an interrupted run goes on.
        shuffled: pair every picture with the sound of another clip. A control: what is learned then is no sound.
        tell: called at each check with the step and the figures of ``validate``.

    Raises:
        UsageError: too few clips.
    """  # fmt: skip
    if len(clips) < FEWEST:
        raise UsageError(
            f"{len(clips)} clips with sound and picture are too few to learn from: at least {FEWEST} are needed"
        )
    torch.manual_seed(seed)
    part = max(2, round(HELD_BACK * len(clips)))
    order = torch.randperm(len(clips)).tolist()
    train, check = gather([clips[i] for i in order[part:]]), gather([clips[i] for i in order[:part]])
    predictor = _blank(train, [clips[i] for i in order[part:]], card)
    predictor.card = replace(predictor.card, clips=len(order) - part, windows=len(train.clip))
    optimiser = torch.optim.AdamW(predictor.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min((i + 1) / 50, 0.5 + 0.5 * math.cos(math.pi * min(i / steps, 1)))
    )
    best, best_score, since, first = copy.deepcopy(predictor.state_dict()), -math.inf, 0, 0
    if state_file.exists():
        saved = torch.load(state_file, weights_only=True)
        predictor.load_state_dict(saved["predictor"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        best, best_score, since, first = saved["best"], saved["score"], saved["since"], saved["step"]
    for step in range(first, steps):
        if since >= PATIENCE:
            break
        chosen, other = _batch(train, torch.Generator().manual_seed(seed * 1_000_003 + step))
        optimiser.zero_grad()
        _loss(predictor, *train.pick(chosen, other if shuffled else None)).backward()
        optimiser.step()
        schedule.step()
        if step % CHECK_EVERY == CHECK_EVERY - 1 or step + 1 == steps:
            figures = validate(predictor, check, seed)
            tell(step + 1, figures)
            score = figures["cosine"] - figures["cosine_shuffled"]
            better = score > best_score
            since = 0 if better else since + 1
            if better:
                best, best_score = copy.deepcopy(predictor.state_dict()), score
            state = {
                "predictor": predictor.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
            }
            save_checkpoint(state | {"best": best, "score": best_score, "since": since, "step": step + 1}, state_file)
    predictor.load_state_dict(best)
    figures = validate(predictor, check, seed)
    predictor.matched.fill_(figures["cosine"])
    predictor.shuffled.fill_(figures["cosine_shuffled"])
    predictor.card = replace(predictor.card, validation={k: round(v, 4) for k, v in figures.items()})
    return predictor.requires_grad_(False).eval()


def _blank(train: Windows, clips: Sequence[ClipWindows], card: PredictorMetadata) -> A2VPredictor:
    """An untrained predictor that knows the means and principal directions of the training tokens."""
    video = torch.cat([c.sample for c in clips]).float()
    card = replace(card, components=min(card.components, video.shape[1], len(video)))
    predictor = A2VPredictor(card)
    predictor.video_mean.copy_(video.mean(0))
    predictor.audio_mean.copy_(train.audio.float().mean(0))
    predictor.audio_scale.fill_((train.audio.float() - predictor.audio_mean).square().mean().sqrt())
    centred = video - predictor.video_mean
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors  # ascending
    predictor.basis.copy_(directions[:, -card.components :].flip(1))
    return predictor


def _batch(train: Windows, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One window of each of up to BATCH clips, and the same number from the other clips, rolled by one."""
    clips = torch.randperm(int(train.clip.max()) + 1, generator=generator)[:BATCH]
    held = torch.bincount(train.clip)
    first = held.cumsum(0) - held
    chosen = first[clips] + (torch.rand(len(clips), generator=generator) * held[clips]).long()
    return chosen, chosen.roll(1)


def _loss(predictor: A2VPredictor, audio: Tensor, of: Tensor, picture: Tensor) -> Tensor:
    predicted = predictor(audio, of, len(picture))
    cosine = predicted @ F.normalize(predictor.coarse(picture), dim=-1).T
    right = torch.arange(len(picture))
    return (1 - cosine.diagonal()).mean() + 0.5 * (
        F.cross_entropy(cosine / TEMPERATURE, right) + F.cross_entropy(cosine.T / TEMPERATURE, right)
    )


@torch.no_grad()
def validate(predictor: A2VPredictor, check: Windows, seed: int) -> dict[str, float]:
    """Figures on clips that training did not see.

    Returns:
        cosine: between predicted and actual picture, mean over windows; cosine_shuffled: with the sound of another
            clip;
        recall_at_1: how often the actual picture is the nearest among ``rivals``, one window of each of as many clips;
        chance: what guessing would find.
    """
    everything = torch.arange(len(check.clip))
    audio, of, picture = check.pick(everything)
    predicted, actual = predictor(audio, of, len(everything)), F.normalize(predictor.coarse(picture), dim=-1)
    generator = torch.Generator().manual_seed(seed)
    hits, total, wrong = 0, 0, []
    for _ in range(20):
        chosen, other = _batch(check, generator)
        chosen, other = chosen[:RIVALS], other[:RIVALS]
        cosine = predicted[chosen] @ actual[chosen].T
        hits += int((cosine.argmax(1) == torch.arange(len(chosen))).sum())
        total += len(chosen)
        wrong.append((predicted[other] * actual[chosen]).sum(-1))
    return {
        "cosine": float((predicted * actual).sum(-1).mean()),
        "cosine_shuffled": float(torch.cat(wrong).mean()),
        "recall_at_1": hits / total,
        "chance": 1 / len(chosen),
    }
