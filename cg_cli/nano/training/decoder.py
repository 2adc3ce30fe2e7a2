"""Training of nano's decoder on the features of its frozen towers, which a process beside it makes."""

from __future__ import annotations

import multiprocessing
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cg_cli.nano.script import SECONDS, write_script
from cg_cli.nano.training.auxiliary import AuxiliaryHeads, pointing_loss
from cg_cli.nano.training.batches import Pair, Reader, forward, use_packed_attention
from cg_cli.nano.training.features import Job, feature_file, produce
from cg_cli.nano.training.lessons import OF_THINGS, Heads, Lessons
from cg_cli.nano.training.optimizer import MuonAdamW
from cg_cli.nano.training.recipe import seeded
from cg_cli.nano.training.words import name_words
from cg_cli.util.checkpoints import save_checkpoint

WORLD, VALIDATION_WORLD = 1, 2  # seeds of the clips that train and that check; from 100 on all are held out
VALIDATION_CLIPS = 60
TOKENS = 7_000  # media tokens a step, about
POOL_START, POOL_GROWTH = 60, 5  # clips that can be drawn at the first step, and more at each further one
SHORT_CLIPS, CLIPS = 3000, 9000  # of the training world: first the short ones
SHORT = 8  # seconds, longest of the short clips
THREE = 3  # a clip of three scenes is drawn so many times as often: only there "first of two" is not "first of all"
RATES = (4e-3, 1e-3)  # learning rates of Muon and AdamW
# Of the clips with fewer scenes than their length allows, one in so many is used: little is to be told apart there
SIMPLE = 3
AUXILIARY_WEIGHT, POINTING_WEIGHT = 1.0, 0.4  # of these losses beside the answers'
EARLY = 0.4  # share of the steps on short clips only


@dataclass(frozen=True)
class Plan:
    """How many steps, and from them which clips."""

    steps: int
    seed: int

    def pool(self, step: int) -> int:
        """How many clips, from the first of ``used_clips``, can be drawn at ``step``."""
        used = self.clips
        limit = sum(i < SHORT_CLIPS for i in used) if step < EARLY * self.steps else len(used)
        return min(limit, POOL_START + POOL_GROWTH * step)

    @property
    def clips(self) -> tuple[int, ...]:
        """The clips of WORLD that are drawn, in the order in which they join the pool."""
        return used_clips()

    def longest(self, index: int) -> int:
        """Seconds that clip ``index`` may last."""
        return longest(index)

    def times(self, script: Any) -> int:
        """How much more often than others a clip is drawn."""
        return THREE if len(script.scenes) == 3 else 1


def longest(index: int) -> int:
    """Seconds that training clip ``index`` may last."""
    return SHORT if index < SHORT_CLIPS else SECONDS[1]


@lru_cache(maxsize=1)
def used_clips() -> tuple[int, ...]:
    """The clips of the training world that are drawn: those of two scenes, or three of the long ones, and a few
    others."""
    most = lambda i: 2 if i < SHORT_CLIPS else 3
    scenes = lambda i: len(write_script(WORLD, i, longest(i)).scenes)
    return tuple(i for i in range(CLIPS) if i % SIMPLE == 0 or scenes(i) == most(i))


def jobs() -> list[tuple[int, int, int]]:
    """(world, index, longest) of every clip whose features are needed, in the order in which they are."""
    train = [(WORLD, i, longest(i)) for i in used_clips()]
    check = [(VALIDATION_WORLD, i, SECONDS[1]) for i in range(VALIDATION_CLIPS)]
    return train[:POOL_START] + check + train[POOL_START:]


def make_optimizer(model, auxiliary: nn.Module, steps: int, rates: tuple[float, float] = RATES) -> MuonAdamW:
    """The optimizer of the decoder, its output layer and the auxiliary heads."""
    language = model.model.language_model
    others = [
        *language.embed_tokens.parameters(),
        *language.norm.parameters(),
        *model.lm_head.parameters(),
        *auxiliary.parameters(),
    ]
    return MuonAdamW(language.layers.parameters(), others, steps, rates)


def _as_typed(text: str, rng: np.random.Generator) -> str:
    """The question as people type it: sometimes in lower case, sometimes without the question mark."""
    if rng.random() < 0.3:
        text = text[0].lower() + text[1:]
    return text.rstrip("?.") if rng.random() < 0.2 else text


class Trainer:
    """The batches and losses of one run: clips from a growing pool, and the questions on them at each step."""

    def __init__(self, model, tok, features: Path, plan: Plan, lessons: Lessons = OF_THINGS):
        self.model, self.features, self.plan, self.lessons = model, features, plan, lessons
        self.reader = Reader(model, tok, features)
        use_packed_attention(model)
        self.scripts = lru_cache(maxsize=None)(lessons.world.write_script)
        self._by_duration: dict[int, list[int]] = defaultdict(list)
        self._counted = 0  # clips of the pool that are in there

    def draw(self, step: int) -> tuple[list, list, str]:
        """Clips of one duration from the pool of this step, with their questions."""
        rng = np.random.default_rng([self.plan.seed, step, 3])
        self._count(self.plan.pool(step))
        batch = self._draw(rng)
        while not batch[0]:  # audio that nothing is asked about
            batch = self._draw(rng)
        return batch

    def _draw(self, rng: np.random.Generator) -> tuple[list, list, str]:
        lengths = sorted(self._by_duration)
        share = np.array([len(self._by_duration[seconds]) for seconds in lengths])
        duration = int(rng.choice(lengths, p=share / share.sum()))
        same = self._by_duration[duration]
        count = max(2, round(TOKENS / (89 * duration)))
        chosen = list(dict.fromkeys(same[i] for i in rng.integers(len(same), size=2 * count)))[:count]
        parts = str(rng.choice(["av", "v", "a"], p=[0.92, 0.05, 0.03]))
        pairs = []
        for index in chosen:
            script = self.scripts(WORLD, index, self.plan.longest(index))
            picked = self.lessons.choose(script, parts, rng)
            shown = [tuple(self.lessons.evidence(script, q)) if parts == "av" else () for q in picked]
            pairs.append([Pair(_as_typed(q.text(rng), rng), q.answer, by_part) for q, by_part in zip(picked, shown)])
        keep = [i for i, clip_pairs in enumerate(pairs) if clip_pairs]
        return [(WORLD, chosen[i], duration) for i in keep], [pairs[i] for i in keep], parts

    def loss(
        self, clips: list[tuple[int, int, int]], pairs: list[list[Pair]], parts: str, auxiliary: Heads
    ) -> dict[str, Tensor]:
        """The losses of one batch by name: answers, and, for clips with audio and video, auxiliary and pointing."""
        batch = self.reader.batch(clips, pairs, parts)
        scored = batch["weight"] > 0
        with torch.autocast("cpu", torch.bfloat16):
            output = forward(self.model, batch)
        answers = F.cross_entropy(output.logits[scored].float(), batch["target"][scored], reduction="none")
        losses = {"answers": (answers * batch["weight"][scored]).sum() / batch["weight"].sum()}
        if parts == "av":
            scripts = [self.scripts(world, index, self.plan.longest(index)) for world, index, _ in clips]
            by_clip = [self.lessons.token_labels(script) for script in scripts]
            labels = {name: torch.stack([clip_labels[name] for clip_labels in by_clip]) for name in by_clip[0]}
            audio, video, late = (
                output.middle[:, batch["audio"]],
                output.middle[:, batch["video"]],
                output.late[:, batch["video"]],
            )
            losses["auxiliary"] = AUXILIARY_WEIGHT * auxiliary.loss(audio, video, late, labels)
            clip, place, shown = self.reader.evidence(pairs, batch)
            losses["pointing"] = POINTING_WEIGHT * pointing_loss(output.pointing[clip, :, place], shown)
        return losses

    def _count(self, size: int) -> None:
        """Add the clips up to ``size`` of the pool, which never shrinks, to the lists by duration."""
        for index in self.plan.clips[self._counted : size]:
            script = self.scripts(WORLD, index, self.plan.longest(index))
            self._by_duration[script.duration] += [index] * self.plan.times(script)
        self._counted = size

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of the validation questions whose whole answer is right by teacher-forced greedy decoding, by
        category."""
        hits: dict[str, list[float]] = defaultdict(list)
        for index in range(VALIDATION_CLIPS):
            rng = np.random.default_rng([VALIDATION_WORLD, index, 4])
            script = self.scripts(VALIDATION_WORLD, index, self.lessons.world.seconds[1])
            picked = self.lessons.choose(script, "av", rng)
            clip = (VALIDATION_WORLD, index, script.duration)
            batch = self.reader.batch([clip], [[Pair(q.text(rng), q.answer) for q in picked]], "av")
            with torch.autocast("cpu", torch.bfloat16):
                greedy = forward(self.model, batch).logits.argmax(-1)
            wrong = (greedy != batch["target"]) & (batch["weight"] > 0)
            for number, question in enumerate(picked):
                hits[question.category].append(float(not wrong[batch["pair"] == number].any()))
        return {name: float(np.mean(values)) for name, values in sorted(hits.items())}

    def first_clips(self) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """The clips of the first step's pool, with their features."""
        for index in self.plan.clips[:POOL_START]:
            saved = torch.load(feature_file(self.features, WORLD, index), weights_only=True)
            yield self.scripts(WORLD, index, self.plan.longest(index)), saved

    def wait(self, producer, world: int, index: int) -> None:
        """Until the features of clip ``index`` of ``world`` are there, and so those of the jobs before it."""
        while not feature_file(self.features, world, index).exists():
            if not producer.is_alive() and producer.exitcode:
                raise RuntimeError("the process that makes the features has died")
            time.sleep(0.2)


def train(model, tok, folder: Path, plan: Plan) -> None:
    """Train the decoder for ``plan.steps`` steps; checkpoints in ``folder`` make it resumable."""
    state_file = folder / "decoder.pt"
    (folder / "features").mkdir(exist_ok=True)
    saved = torch.load(folder / "towers.pt", weights_only=True)
    model.model.visual.load_state_dict(saved["visual"])
    model.model.audio_tower.load_state_dict(saved["audio"])
    context = multiprocessing.get_context("spawn")
    features = folder / "features"
    work = [Job(features, OF_THINGS.world.name, *job) for job in jobs()]
    producer = context.Process(target=produce, args=(folder / "towers.pt", work), daemon=True)
    producer.start()
    trainer = Trainer(model, tok, features, plan)
    trainer.wait(producer, VALIDATION_WORLD, VALIDATION_CLIPS - 1)  # the jobs right after the first clips
    name_words(model, tok, trainer.first_clips())
    with seeded(plan.seed):
        auxiliary = AuxiliaryHeads(model.config.text_config.hidden_size)
    optimizer = make_optimizer(model, auxiliary, plan.steps)
    trained = nn.ModuleDict({"model": model.model.language_model, "head": model.lm_head, "auxiliary": auxiliary})
    start = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        trained.load_state_dict(state["trained"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    start_s = time.time()
    smooth: dict[str, float] = {}
    for step in range(start, plan.steps):
        trainer.wait(producer, WORLD, used_clips()[plan.pool(step) - 1])
        losses = trainer.loss(*trainer.draw(step), auxiliary)
        optimizer.step(sum(losses.values(), start=torch.zeros(())))
        smooth |= {name: 0.97 * smooth.get(name, value.item()) + 0.03 * value.item() for name, value in losses.items()}
        if step % 20 == 19:
            line = " ".join(f"{name} {value:.4f}" for name, value in smooth.items())
            print(f"decoder {step + 1}/{plan.steps} {line} {time.time() - start_s:.0f}s", flush=True)
        if step % 100 == 99 or step + 1 == plan.steps:
            line = " ".join(f"{name} {value:.2f}" for name, value in trainer.validate().items())
            print(f"validation {step + 1}: {line}", flush=True)
            save_checkpoint(
                {"trained": trained.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, state_file
            )
