"""Training that goes on from finished weights, on clips of both worlds.

The same two parts as from nothing, both resumable. The towers learn the surfaces' looks and sounds from labels, and to
tell what a cell itself looks like beside its surface, while their tokens of clips of the world of things are held where
they were, since the decoder knows those. Then the decoder goes on with batches of either world in turn, on features
that a process beside it makes; at first only the auxiliary heads learn, which are new.
"""

from __future__ import annotations

import copy
import itertools
import math
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker
from transformers import Qwen2Tokenizer

from cg_cli.backbones import grouped_attention
from cg_cli.nano.ambience.surfaces import HEARD, SURFACES
from cg_cli.nano.things import AUDIBLE, CELL, CELLS
from cg_cli.nano.training import ambience, decoder, recipe, towers
from cg_cli.nano.training.features import Job, mel_of, patches_of, produce, soften
from cg_cli.nano.training.lessons import OF_AMBIENCE, OF_THINGS, Lessons
from cg_cli.nano.training.optimizer import MuonAdamW
from cg_cli.nano.training.vocabulary import ambience_texts, extended, grown, name_surfaces
from cg_cli.nano.worlds import AMBIENCE
from cg_cli.util.checkpoints import save_checkpoint

THINGS_SCRIPTS, AMBIENCE_SCRIPTS = 6, 12  # clips a step of the towers, ``towers.GRIDS // towers.SCRIPTS`` grids of each
THINGS_CHUNKS, AMBIENCE_CHUNKS = 9, 15  # stretches of 2 s of sound a step
TOWER_RATES = (8e-3, 2e-3)  # learning rates of Muon and AdamW
QUARTERS = 24  # colours of the quarters of a cell in both frames
LOOK_SHARE = 0.1  # size of each of these in a token, of the size of a token
LOOK = 2.0  # weight of their loss
SIZE = 3.0  # weight of keeping tokens of clips of ambience as small as others are
ANCHOR = 5.0  # weight of keeping the tokens of clips of things
DECODER_RATES = (3e-3, 7e-4)
HEADS_ONLY = 60  # steps of the decoder's part
AMBIENCE_SHARE = 0.6  # of the steps
CLIPS = 6000  # of the training seed of each world that are drawn, at most
SAVED_EVERY, VALIDATED_EVERY = 50, 200  # steps


class TowerHeads(nn.Module):
    """Linear heads on the towers' tokens, for training only: those of the world of things, the surfaces', and one for
    the colours of a cell's quarters, which never learns. So each of these stays a part of the token, LOOK_SHARE of the
    tokens' size; labels alone make all tokens of a surface alike, as if it had one look."""

    look: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.things = towers.Heads(width)
        look = nn.init.orthogonal_(torch.empty(QUARTERS, width))
        self.register_buffer("look", look / (LOOK_SHARE * recipe.TOKEN_SCALE * math.sqrt(width)))
        self.surface = nn.Linear(width, len(SURFACES) + 1)
        self.sounds = nn.Linear(width, len(AUDIBLE) + len(HEARD))


def ambience_vision(rng: np.random.Generator, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Frames of grids of AMBIENCE_SCRIPTS clips, and the kind, colour, digit's side and surface of each cell."""
    frames, labels = [], []
    for index in rng.integers(2**31, size=AMBIENCE_SCRIPTS):
        script = AMBIENCE.write_script(seed, int(index), AMBIENCE.seconds[1])
        pictures, times = towers.draw_grids(rng, script, towers.GRIDS // towers.SCRIPTS, AMBIENCE.picture)
        frames += pictures
        labels += [(*towers.grid_labels(script, pair), ambience.ground(script, pair)) for pair in times]
    kind, colour, side, surface = (torch.from_numpy(np.concatenate(x)) for x in zip(*labels))
    return torch.from_numpy(np.stack(frames)), kind, colour, side, surface


def ambience_audio(rng: np.random.Generator, seed: int) -> tuple[Tensor, Tensor]:
    """Log-mel of AMBIENCE_CHUNKS stretches of 2 s, and what sounds at each token of them, [n, len(HEARD)]."""
    mels: list[Tensor] = []
    labels: list[Tensor] = []
    while len(mels) < AMBIENCE_CHUNKS:
        script = AMBIENCE.write_script(seed, int(rng.integers(2**31)), AMBIENCE.seconds[1])
        mel, label = mel_of(AMBIENCE.soundtrack(script)), ambience.sound_labels(script)
        for chunk in rng.choice(script.duration // 2, 3, replace=False):
            mels.append(mel[:, chunk * 200 : (chunk + 1) * 200])
            labels.append(label[chunk * 50 : (chunk + 1) * 50])
    return torch.cat(mels, dim=1), torch.cat(labels)


def _tokens(model, patches: Tensor, grid: Sequence[int], mel: Tensor, chunks: int) -> tuple[Tensor, Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        vision = model.visual(patches, grid_thw=torch.tensor([grid])).pooler_output.float()
        audio = model.audio_tower(mel, feature_lens=torch.full((chunks,), 200)).last_hidden_state.float()
    return vision, audio


def quarters(frames: Tensor) -> Tensor:
    """The mean colours of the quarters of each cell in the two frames of each grid of ``frames`` [2 * G, H, W, 3], each
    with mean 0 and standard deviation 1 over the cells: [G * CELLS * CELLS, QUARTERS]."""
    sides = CELLS, 2, CELL // 2
    x = frames.float().view(-1, 2, *sides, *sides, 3).mean((4, 7))  # grid, frame, row, half, column, half, colour
    x = x.permute(0, 2, 4, 1, 3, 5, 6).flatten(3).flatten(0, 2)
    return (x - x.mean(0)) / x.std(0)


def _excess(tokens: Tensor) -> Tensor:
    """How much longer tokens are than TOKEN_SCALE has them, of their squares. Where they may grow, what the labels ask
    for drowns all else that a token tells."""
    return F.relu(tokens.pow(2).mean(1) / recipe.TOKEN_SCALE**2 - 1).mean()


def _drift(new: Tensor, old: Tensor) -> Tensor:
    return F.mse_loss(new, old) / old.pow(2).mean()


def tower_losses(
    model, before, heads: TowerHeads, rng: np.random.Generator, seed: int
) -> tuple[Tensor, dict[str, float]]:
    """One batch of both worlds: the summed loss, and by name the accuracy of each head on cells that are not empty, and
    how far the tokens of clips of things are from those of the towers ``before`` (of their mean square), the share of
    the variance of a cell's colours that its token tells, and how much too large tokens of ambience are."""
    frames, *things = towers.vision_batch(rng, seed, THINGS_SCRIPTS)
    more, *labels, surface = ambience_vision(rng, seed)
    more = soften(more, rng)
    patches, grid = patches_of(torch.cat([soften(frames, rng), more]))
    mel, sound = towers.audio_batch(rng, seed, THINGS_CHUNKS)
    more_mel, more_sound = ambience_audio(rng, seed)
    chunks = THINGS_CHUNKS + AMBIENCE_CHUNKS
    vision, audio = _tokens(model, patches, grid, torch.cat([mel, more_mel], dim=1), chunks)
    cells, moments = len(things[0]), len(sound)
    per_grid = cells // (len(frames) // 2)
    with torch.no_grad():
        rows = patches[: cells * len(patches) // len(vision)]
        old = _tokens(before, rows, [cells // per_grid, *grid[1:]], mel, THINGS_CHUNKS)
    anchor = _drift(vision[:cells], old[0]) + _drift(audio[:moments], old[1])
    normed, heard = heads.things.norm(vision), heads.things.norm(audio)
    background = heads.things.background
    kind, colour, side = (torch.cat(both) for both in zip(things, labels))
    surface = torch.cat([torch.zeros(cells, dtype=torch.long), surface])
    scores = {
        "kind": (heads.things.kind(normed), kind, background),
        "colour": (heads.things.colour(normed), colour, background[: heads.things.colour.out_features]),
        "side": (heads.things.side(normed), side, background[:3]),
        "surface": (heads.surface(normed), surface, None),
    }
    look = F.mse_loss(vision[cells:] @ heads.look.T, quarters(more))
    size = _excess(vision[cells:]) + _excess(audio[moments:])
    loss = ANCHOR * anchor + LOOK * look + SIZE * size
    known = {"drift": anchor.item() / 2, "look": 1 - look.item(), "excess": size.item() / 2}
    for name, (score, label, weight) in scores.items():
        loss = loss + F.cross_entropy(score, label, weight=weight, ignore_index=towers.IGNORE)
        known[name] = (score.argmax(-1) == label)[label > 0].float().mean().item()
    target = torch.zeros(len(audio), heads.sounds.out_features)
    sounding = (sound > 0).nonzero()[:, 0]
    target[sounding, sound[sounding] - 1] = 1
    target[moments:, len(AUDIBLE) :] = more_sound
    score = heads.sounds(heard)
    loss = loss + F.binary_cross_entropy_with_logits(score, target, reduction="sum") / len(target)
    known["sounds"] = ((score > 0) == (target > 0)).all(1)[target.any(1)].float().mean().item()
    return loss, known


def train_towers(model, folder: Path, steps: int, seed: int) -> None:
    """Go on with both towers for ``steps`` steps; checkpoints in ``folder`` make it resumable."""
    state_file = folder / "towers.pt"
    grouped_attention.use_in_towers(model)
    with recipe.seeded(seed):
        heads = TowerHeads(model.config.text_config.hidden_size)
    parts = [model.model.visual, model.model.audio_tower, heads]
    before = copy.deepcopy(model.model).requires_grad_(False)
    layers = [parameter for part in parts[:2] for parameter in part.parameters()]
    optimizer = MuonAdamW(layers, heads.parameters(), steps, TOWER_RATES)
    start = 0
    if state_file.exists():
        saved = torch.load(state_file, weights_only=True)
        for module, key in zip(parts, ("visual", "audio", "heads")):
            module.load_state_dict(saved[key])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    smooth: dict[str, float] = {}
    start_s = time.time()
    for step in range(start, steps):
        loss, known = tower_losses(model.model, before, heads, np.random.default_rng([seed, step, 8]), decoder.WORLD)
        optimizer.step(loss)
        smooth = {name: 0.9 * smooth.get(name, value) + 0.1 * value for name, value in known.items()}
        if step % 10 == 9:
            line = " ".join(f"{name} {value:.3f}" for name, value in smooth.items())
            print(f"towers {step + 1}/{steps} loss {loss.item():.3f} {line} {time.time() - start_s:.0f}s", flush=True)
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == steps:
            state = {key: part.state_dict() for part, key in zip(parts, ("visual", "audio", "heads"))}
            save_checkpoint(state | {"optimizer": optimizer.state_dict(), "step": step + 1}, state_file)


@dataclass(frozen=True)
class Course(decoder.Plan):
    """Which clips of one world are drawn, in a training of ``steps`` steps: more from step to step."""

    lessons: Lessons = OF_THINGS

    def pool(self, step: int) -> int:
        return min(len(self.clips), decoder.POOL_START + decoder.POOL_GROWTH * step)

    @property
    def clips(self) -> tuple[int, ...]:
        used = _long_clips() if self.lessons is OF_THINGS else tuple(range(CLIPS))
        return used[:CLIPS]

    def longest(self, index: int) -> int:
        return super().longest(index) if self.lessons is OF_THINGS else self.lessons.world.seconds[1]

    def times(self, script) -> int:
        return super().times(script) if self.lessons is OF_THINGS else 1


@lru_cache(maxsize=1)
def _long_clips() -> tuple[int, ...]:
    """The clips of the first training in random order: no longer the short ones first."""
    used = decoder.used_clips()
    return tuple(used[i] for i in np.random.default_rng(9).permutation(len(used)))


def _jobs(folder: Path, courses: Sequence[Course]) -> list[Job]:
    """The clips whose features are needed, in the order in which they are."""

    def of(course: Course, seed: int, clips: Sequence[int]) -> list[Job]:
        name, longest = course.lessons.world.name, course.lessons.world.seconds[1]
        limit = course.longest if seed == decoder.WORLD else lambda _: longest
        return [Job(folder / name, name, seed, index, limit(index)) for index in clips]

    first, checks, rest = [], [], []
    for course in courses:
        jobs = of(course, decoder.WORLD, course.clips)
        first += jobs[: decoder.POOL_START]
        checks += of(course, decoder.VALIDATION_WORLD, range(decoder.VALIDATION_CLIPS))
        rest.append(jobs[decoder.POOL_START :])
    return first + checks + [job for jobs in itertools.zip_longest(*rest) for job in jobs if job]


def _load(weights: Path) -> tuple[Thinker, Qwen2Tokenizer]:
    """A Thinker checkpoint in float32 with a vocabulary for both worlds, and its tokenizer."""
    old = Qwen2Tokenizer.from_pretrained(weights, trust_remote_code=False)
    old.chat_template = recipe.CHAT_TEMPLATE
    model = Thinker.from_pretrained(weights, trust_remote_code=False).float()
    new = extended(old, ambience_texts())
    return (grown(model, old, new) if len(new) > len(old) else model), new


def train_decoder(model, tok, folder: Path, steps: int, seed: int) -> None:
    """Go on with the decoder for ``steps`` steps on the features of the towers in ``folder``; checkpoints there make it
    resumable."""
    state_file = folder / "decoder.pt"
    saved = torch.load(folder / "towers.pt", weights_only=True)
    model.model.visual.load_state_dict(saved["visual"])
    model.model.audio_tower.load_state_dict(saved["audio"])
    courses = [Course(steps, seed, lessons) for lessons in (OF_THINGS, OF_AMBIENCE)]
    names = [course.lessons.world.name for course in courses]
    for name in names:
        (folder / name).mkdir(exist_ok=True)
    work = multiprocessing.get_context("spawn").Process(
        target=produce, args=(folder / "towers.pt", _jobs(folder, courses)), daemon=True
    )
    work.start()
    trainers = [decoder.Trainer(model, tok, folder / name, plan, plan.lessons) for name, plan in zip(names, courses)]
    for trainer in trainers:
        trainer.wait(work, decoder.VALIDATION_WORLD, decoder.VALIDATION_CLIPS - 1)
    width = model.config.text_config.hidden_size
    with recipe.seeded(seed):
        heads = [course.lessons.heads(width) for course in courses]
    optimizer = decoder.make_optimizer(model, nn.ModuleList(heads), steps, DECODER_RATES)
    language = nn.ModuleDict({"model": model.model.language_model, "head": model.lm_head})
    trained = nn.ModuleDict({"language": language, "heads": nn.ModuleList(heads)})
    start = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        trained.load_state_dict(state["trained"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    else:
        name_surfaces(model, tok, trainers[1].first_clips())
    smooth: dict[str, float] = {}
    start_s = time.time()
    for step in range(start, steps):
        language.requires_grad_(step >= HEADS_ONLY)
        which = int(np.random.default_rng([seed, step, 10]).random() < AMBIENCE_SHARE)
        trainer, name = trainers[which], names[which]
        trainer.wait(work, decoder.WORLD, courses[which].clips[courses[which].pool(step) - 1])
        losses = trainer.loss(*trainer.draw(step), heads[which])
        optimizer.step(sum(losses.values(), start=torch.zeros(())))
        for key, value in losses.items():
            smooth[f"{name} {key}"] = 0.95 * smooth.get(f"{name} {key}", value.item()) + 0.05 * value.item()
        if step % 20 == 19:
            line = ", ".join(f"{key} {value:.3f}" for key, value in sorted(smooth.items()))
            print(f"decoder {step + 1}/{steps} {line}, {time.time() - start_s:.0f}s", flush=True)
        last = step + 1 == steps
        if (step + 1) % VALIDATED_EVERY == 0 or last:
            for trainer, name in zip(trainers, names):
                line = " ".join(f"{key} {value:.2f}" for key, value in trainer.validate().items())
                print(f"validation {step + 1}, {name}: {line}", flush=True)
        if (step + 1) % SAVED_EVERY == 0 or last:
            state = {"trained": trained.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            save_checkpoint(state, state_file)


def train(weights: Path, folder: Path, tower_steps: int, decoder_steps: int, seed: int) -> None:
    """Go on from the checkpoint ``weights``; the finished one is ``folder``/model."""
    model, tok = _load(weights)
    train_towers(model, folder, tower_steps, seed)
    train_decoder(model, tok, folder, decoder_steps, seed)
    recipe.save(model, tok, folder / "model")
