"""Training the audio-to-visual predictor, and its control: the language model and its encoders are frozen.

What is compared is in ``objectives``. Tokens stay on disk (``features``): of the windows, memory holds what each should
have predicted.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cg_cli.errors import UsageError
from cg_cli.predictors.features import ClipFile, WindowSet
from cg_cli.predictors.objectives import OBJECTIVES, Objective, untrained
from cg_cli.pruning.predictor import A2VPredictor, DirectionPredictor, PredictorMetadata
from cg_cli.util.checkpoints import save_checkpoint
from cg_cli.util.format import rough_duration

VALIDATION_SHARE = 0.1  # of the clips
MIN_CLIPS = 20
BATCH_SIZE = 256  # windows, each of another clip
VALIDATE_EVERY = 50  # steps
PATIENCE = 6  # validations without improvement, after which training ends
LEAST_STEPS = 600  # before which it does not: what sound tells of words is learned from nothing, and slowly at first
MAX_CANDIDATES = 100  # windows, each of another clip, for retrieval
VALIDATION_WINDOWS = 32  # of a clip, at most
TIMED_STEPS = 10  # after which the time of a training is told

OnCheck = Callable[[str, int, dict[str, float]], None]


class Trained(NamedTuple):
    """A predictor, its control, and the places of the clips that neither has seen."""

    predictor: A2VPredictor
    control: A2VPredictor
    held_out: list[int]


@dataclass(frozen=True)
class Samples:
    """Windows with what is compared with a prediction for each: ``target`` [W, outputs] on the CPU."""

    windows: WindowSet
    target: Tensor


def fit(
    clips: Sequence[ClipFile],
    metadata: PredictorMetadata,
    *,
    steps: int,
    seed: int,
    device: torch.device,
    state: Path,
    shuffled: bool = False,
    on_check: OnCheck = lambda role, step, figures: None,
    tell: Callable[[str], None] = lambda message: None,
) -> Trained:
    """Train a predictor, and a control of it whose every picture is paired with the sound of another clip. The global
    random state stays as it is.

    Args:
        clips: the training set; VALIDATION_SHARE of it validates.
        metadata: kind, sizes and model; the rest is filled in, but for what ``card`` measures.
        steps: at most; training ends when validation has not improved PATIENCE times in a row, but not before
            LEAST_STEPS.
        state: folder for the checkpoints, from which an interrupted run goes on.
        shuffled: the predictor is a control itself; there is one training then.
        on_check: called at each validation with "predictor" or "control", the step, and the figures of ``validate``.
        tell: told how long it may take.

    Raises:
        UsageError: too few clips.
    """  # fmt: skip
    if len(clips) < MIN_CLIPS:
        raise UsageError(
            f"{len(clips)} clips with sound and picture are too few to learn from: at least {MIN_CLIPS} are needed"
        )
    state.mkdir(parents=True, exist_ok=True)
    objective = OBJECTIVES[metadata.kind]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        order = torch.randperm(len(clips)).tolist()
        held_out = max(2, round(VALIDATION_SHARE * len(clips)))
        train, validation = (WindowSet([clips[i] for i in part]) for part in (order[held_out:], order[:held_out]))
        start = untrained(train, metadata, seed, device)
    training, held = (Samples(part, objective.targets(start, part)) for part in (train, validation))
    objective.settle(start, training.target)
    run = _Run(training, held, objective, steps, seed)
    control = run.fit(copy.deepcopy(start), state / "control.pt", True, lambda *a: on_check("control", *a), tell)
    predictor = control
    if not shuffled:
        predictor = run.fit(start, state / "predictor.pt", False, lambda *a: on_check("predictor", *a), tell)
    figures = validate(predictor, held, seed, objective)
    of_control = validate(control, held, seed, objective)
    if isinstance(predictor, DirectionPredictor):
        predictor.matched.fill_(figures["cosine"])
        predictor.shuffled.fill_(figures["cosine_shuffled"])
    figures[f"{objective.figure}_control"] = of_control[objective.figure]
    figures["held_out_clips"] = float(held_out)
    rounded = {name: round(value, 4) for name, value in figures.items()}
    predictor.metadata = replace(predictor.metadata, validation=rounded)
    for each in (predictor, control):
        each.requires_grad_(False).eval()
    return Trained(predictor, control, order[:held_out])


@dataclass(frozen=True)
class _Run:
    train: Samples
    validation: Samples
    objective: Objective
    steps: int
    seed: int

    def fit(
        self,
        predictor: A2VPredictor,
        file: Path,
        shuffled: bool,
        on_check: Callable[[int, dict[str, float]], None],
        tell: Callable[[str], None],
    ) -> A2VPredictor:
        """Train ``predictor`` in place, with the checkpoint ``file``."""
        optimiser = torch.optim.AdamW(predictor.parameters(), lr=self.objective.rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda i: min((i + 1) / 50, 0.5 + 0.5 * math.cos(math.pi * min(i / self.steps, 1)))
        )
        best, best_score, stale, first_step = copy.deepcopy(predictor.state_dict()), self.objective.least, 0, 0
        if file.exists():
            saved = torch.load(file, weights_only=True, map_location=predictor.basis.device)
            predictor.load_state_dict(saved["predictor"])
            optimiser.load_state_dict(saved["optimiser"])
            schedule.load_state_dict(saved["schedule"])
            best, best_score, stale, first_step = saved["best"], saved["score"], saved["since"], saved["step"]
        began = time.perf_counter()
        for step in range(first_step, self.steps):
            if stale >= PATIENCE and step >= LEAST_STEPS:
                break
            self._step(predictor, optimiser, step, shuffled)
            schedule.step()
            if step - first_step == TIMED_STEPS:
                left = (time.perf_counter() - began) / (TIMED_STEPS + 1) * (self.steps - step)
                tell(f"training the {file.stem} takes at most {rough_duration(left)}")
            if step % VALIDATE_EVERY == VALIDATE_EVERY - 1 or step + 1 == self.steps:
                figures = validate(predictor, self.validation, self.seed, self.objective)
                on_check(step + 1, figures)
                score = self.objective.score(figures)
                stale += 1
                if score > best_score:
                    best, best_score, stale = copy.deepcopy(predictor.state_dict()), score, 0
                state = {
                    "predictor": predictor.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                }
                save_checkpoint(state | {"best": best, "score": best_score, "since": stale, "step": step + 1}, file)
        predictor.load_state_dict(best)
        return predictor

    def _step(self, predictor: A2VPredictor, optimiser: torch.optim.Optimizer, step: int, shuffled: bool) -> None:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        windows = self.train.windows.one_each(BATCH_SIZE, generator)
        # Rolled by one: of each, a window of another clip.
        predicted = predict(predictor, self.train.windows, windows.roll(1) if shuffled else windows)
        optimiser.zero_grad()
        self.objective.loss(predictor, predicted, self.train.target[windows].to(predicted.device)).backward()
        optimiser.step()


def predict(predictor: A2VPredictor, of: WindowSet, windows: Tensor) -> Tensor:
    """What ``predictor`` says of ``windows`` [w] of a set [w, outputs], on its device."""
    device = predictor.basis.device
    audio, number = of.audio(windows)
    out: Tensor = predictor(audio.to(device).float(), number.to(device), len(windows))
    return out


@torch.no_grad()
def validate(predictor: A2VPredictor, validation: Samples, seed: int, objective: Objective) -> dict[str, float]:
    """Figures on clips that were not trained on.

    Returns:
        cosine, or bits: how well what is predicted agrees with what is there, mean over windows: the cosine of
            directions; or the bits that sound tells of a token, above how likely its word is anyway;
        cosine_shuffled, or bits_shuffled: with the audio of another clip;
        recall_at_1: how often the window's own picture agrees best, of one window of each of as many clips;
        chance: the recall of guessing;
        recall_within, chance_within: the same among the windows of a clip.
    """
    own = validation.windows.spaced(VALIDATION_WINDOWS)
    predicted = torch.cat([predict(predictor, validation.windows, part).cpu() for part in own.split(BATCH_SIZE)])
    target = validation.target[own] / objective.unit
    clip = validation.windows.clip[own]
    count = torch.bincount(clip)
    first = count.cumsum(0) - count
    generator = torch.Generator().manual_seed(seed)
    hits, total, shuffled = 0, 0, []
    for _ in range(20):
        clips = torch.randperm(len(count), generator=generator)[:MAX_CANDIDATES]
        some = first[clips] + (torch.rand(len(clips), generator=generator) * count[clips]).long()
        agreement = predicted[some] @ target[some].T
        hits += int((agreement.argmax(1) == torch.arange(len(some))).sum())
        total += len(some)
        shuffled.append((predicted[some.roll(1)] * target[some]).sum(-1))
    within = [_hits(predicted[clip == number], target[clip == number]) for number in range(len(count))]
    return {
        objective.figure: float((predicted * target).sum(-1).mean()),
        f"{objective.figure}_shuffled": float(torch.cat(shuffled).mean()),
        "recall_at_1": hits / total,
        "chance": 1 / len(clips),
        "recall_within": sum(within) / len(own),
        "chance_within": len(count) / len(own),
    }


def _hits(predicted: Tensor, target: Tensor) -> int:
    """Of how many windows of a clip the own picture agrees best with what is predicted."""
    return int(((predicted @ target.T).argmax(1) == torch.arange(len(target))).sum())
