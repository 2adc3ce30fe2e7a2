"""Training the audio-to-visual predictor: the language model and its encoders are frozen.

Loss: cosine between the predicted and the actual mean video token of a window, and a contrastive one (InfoNCE) against
windows of other clips, so that predicting the mean of all clips does not pay.
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

VALIDATION_SHARE = 0.1  # of the clips
MIN_CLIPS = 20
BATCH_SIZE = 256  # windows, each of another clip
TEMPERATURE = 0.3  # of the contrastive loss; at 0.1 it dominated, and the cosine fell from 0.47 to 0.22 (nano)
LEARNING_RATE = 1e-3
VALIDATE_EVERY = 50  # steps
PATIENCE = 6  # validations without improvement, after which training ends
MAX_CANDIDATES = 100  # windows, each of another clip, for retrieval


@dataclass(frozen=True)
class WindowSet:
    """Windows of many clips, end to end.

    Attributes:
        audio: [A, D] float16; start: [W + 1] int64, where each window's audio begins.
        video_mean: [W, D] float16; clip: [W] int64.
    """

    audio: Tensor
    start: Tensor
    video_mean: Tensor
    clip: Tensor

    def batch(self, windows: Tensor, audio_windows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Audio tokens [a, D], the number of their window in the batch [a], and mean video tokens [w, D] of ``windows``
        [w]; with ``audio_windows`` [w], the audio of those instead."""
        source = windows if audio_windows is None else audio_windows
        length = self.start[source + 1] - self.start[source]
        number = torch.repeat_interleave(torch.arange(len(windows)), length)
        offset = torch.arange(len(number)) - (length.cumsum(0) - length)[number]
        return self.audio[self.start[source][number] + offset].float(), number, self.video_mean[windows].float()


def concatenate(clips: Sequence[ClipWindows]) -> WindowSet:
    """All windows of ``clips``."""
    start, clip_of_window = [0], []
    for number, clip in enumerate(clips):
        ends = torch.bincount(clip.audio_window, minlength=len(clip.video_mean)).cumsum(0) + start[-1]
        start += ends.tolist()
        clip_of_window += [number] * len(clip.video_mean)
    return WindowSet(
        torch.cat([clip.audio for clip in clips]),
        torch.tensor(start),
        torch.cat([clip.video_mean for clip in clips]),
        torch.tensor(clip_of_window),
    )


def fit(
    clips: Sequence[ClipWindows],
    metadata: PredictorMetadata,
    *,
    steps: int,
    seed: int,
    state_file: Path,
    shuffled: bool = False,
    on_check: Callable[[int, dict[str, float]], None] = lambda step, figures: None,
) -> A2VPredictor:
    """Train a predictor. The global random state stays as it is.

    Args:
        clips: the training set; VALIDATION_SHARE of it validates.
        metadata: sizes and model; the rest is filled in.
        steps: at most; training ends when validation has not improved PATIENCE times in a row.
        state_file: checkpoint, from which an interrupted run goes on.
        shuffled: pair every picture with the audio of another clip: a control.
        on_check: called at each validation with the step and the figures of ``validate``.

    Raises:
        UsageError: too few clips.
    """  # fmt: skip
    if len(clips) < MIN_CLIPS:
        raise UsageError(
            f"{len(clips)} clips with sound and picture are too few to learn from: at least {MIN_CLIPS} are needed"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        order = torch.randperm(len(clips)).tolist()
        held_out = max(2, round(VALIDATION_SHARE * len(clips)))
        train_clips, validation_clips = [clips[i] for i in order[held_out:]], [clips[i] for i in order[:held_out]]
        train, validation = concatenate(train_clips), concatenate(validation_clips)
        predictor = _untrained(train, train_clips, metadata)
    predictor.metadata = replace(predictor.metadata, clips=len(train_clips), windows=len(train.clip))
    optimiser = torch.optim.AdamW(predictor.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min((i + 1) / 50, 0.5 + 0.5 * math.cos(math.pi * min(i / steps, 1)))
    )
    best, best_score, stale, first_step = copy.deepcopy(predictor.state_dict()), -math.inf, 0, 0
    if state_file.exists():
        saved = torch.load(state_file, weights_only=True)
        predictor.load_state_dict(saved["predictor"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        best, best_score, stale, first_step = saved["best"], saved["score"], saved["since"], saved["step"]
    for step in range(first_step, steps):
        if stale >= PATIENCE:
            break
        windows, audio_windows = _draw_batch(train, torch.Generator().manual_seed(seed * 1_000_003 + step))
        optimiser.zero_grad()
        _loss(predictor, *train.batch(windows, audio_windows if shuffled else None)).backward()
        optimiser.step()
        schedule.step()
        if step % VALIDATE_EVERY == VALIDATE_EVERY - 1 or step + 1 == steps:
            figures = validate(predictor, validation, seed)
            on_check(step + 1, figures)
            score = figures["cosine"] - figures["cosine_shuffled"]
            stale += 1
            if score > best_score:
                best, best_score, stale = copy.deepcopy(predictor.state_dict()), score, 0
            state = {
                "predictor": predictor.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
            }
            save_checkpoint(state | {"best": best, "score": best_score, "since": stale, "step": step + 1}, state_file)
    predictor.load_state_dict(best)
    figures = validate(predictor, validation, seed)
    predictor.matched.fill_(figures["cosine"])
    predictor.shuffled.fill_(figures["cosine_shuffled"])
    rounded = {name: round(value, 4) for name, value in figures.items()}
    predictor.metadata = replace(predictor.metadata, validation=rounded)
    return predictor.requires_grad_(False).eval()


def _untrained(train: WindowSet, clips: Sequence[ClipWindows], metadata: PredictorMetadata) -> A2VPredictor:
    """A predictor with random weights, and the means and principal directions of the training tokens."""
    video = torch.cat([clip.video_sample for clip in clips]).float()
    metadata = replace(metadata, components=min(metadata.components, video.shape[1], len(video)))
    predictor = A2VPredictor(metadata)
    predictor.video_mean.copy_(video.mean(0))
    predictor.audio_mean.copy_(train.audio.float().mean(0))
    predictor.audio_scale.fill_((train.audio.float() - predictor.audio_mean).square().mean().sqrt())
    centred = video - predictor.video_mean
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors  # ascending
    predictor.basis.copy_(directions[:, -metadata.components :].flip(1))
    return predictor


def _draw_batch(train: WindowSet, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One window of each of up to BATCH_SIZE clips, and the same rolled by one: of each, a window of another clip."""
    clips = torch.randperm(int(train.clip.max()) + 1, generator=generator)[:BATCH_SIZE]
    count = torch.bincount(train.clip)
    first = count.cumsum(0) - count
    windows = first[clips] + (torch.rand(len(clips), generator=generator) * count[clips]).long()
    return windows, windows.roll(1)


def _loss(predictor: A2VPredictor, audio: Tensor, audio_window: Tensor, video_mean: Tensor) -> Tensor:
    predicted = predictor(audio, audio_window, len(video_mean))
    cosine = predicted @ F.normalize(predictor.coarse(video_mean), dim=-1).T
    target = torch.arange(len(video_mean))
    return (1 - cosine.diagonal()).mean() + 0.5 * (
        F.cross_entropy(cosine / TEMPERATURE, target) + F.cross_entropy(cosine.T / TEMPERATURE, target)
    )


@torch.no_grad()
def validate(predictor: A2VPredictor, validation: WindowSet, seed: int) -> dict[str, float]:
    """Figures on clips that were not trained on.

    Returns:
        cosine: between predicted and actual mean video token, mean over windows; cosine_shuffled: with the audio of
            another clip;
        recall_at_1: how often the actual one is the nearest among candidates, one window of each of as many clips;
        chance: the recall of guessing.
    """
    windows = torch.arange(len(validation.clip))
    audio, audio_window, video_mean = validation.batch(windows)
    predicted = predictor(audio, audio_window, len(windows))
    actual = F.normalize(predictor.coarse(video_mean), dim=-1)
    generator = torch.Generator().manual_seed(seed)
    hits, total, shuffled = 0, 0, []
    for _ in range(20):
        candidates, unrelated = _draw_batch(validation, generator)
        candidates, unrelated = candidates[:MAX_CANDIDATES], unrelated[:MAX_CANDIDATES]
        cosine = predicted[candidates] @ actual[candidates].T
        hits += int((cosine.argmax(1) == torch.arange(len(candidates))).sum())
        total += len(candidates)
        shuffled.append((predicted[unrelated] * actual[candidates]).sum(-1))
    return {
        "cosine": float((predicted * actual).sum(-1).mean()),
        "cosine_shuffled": float(torch.cat(shuffled).mean()),
        "recall_at_1": hits / total,
        "chance": 1 / len(candidates),
    }
