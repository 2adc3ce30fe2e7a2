"""Warm start of nano's vision and audio towers on per-token labels, which the world's generator knows.

A vision token learns what is in its cell, in which colour, and its own row and column; an audio token learns what
sounds. Answers alone do not teach a tower this small to see (docs/notes/nano.md). The linear heads are thrown away
afterwards.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cg_cli.backbones import grouped_attention
from cg_cli.nano.render import FPS, cells, frame_clock, picture, scene_at, soundtrack
from cg_cli.nano.script import Script, write_script
from cg_cli.nano.things import AUDIBLE, CELL, CELLS, COLOURS, DIGITS, KINDS
from cg_cli.nano.training.features import mel_of, patches_of, soften
from cg_cli.nano.training.optimizer import MuonAdamW
from cg_cli.nano.training.recipe import TOKEN_SCALE, seeded
from cg_cli.util.checkpoints import save_checkpoint

GRIDS = 48  # temporal patches a step
RARE = 6  # a grid with a number or a brief thing is this much more likely to be drawn: ten digits share few grids
SCRIPTS = 16  # clips they come from
CHUNKS = 24  # stretches of 2 s of sound a step
RATES = (1.5e-2, 2e-3)  # learning rates of Muon and AdamW
IGNORE = -100
CLEAR, FAINT = 0.15, 0.03  # share of a cell covered: labelled from the first on, background up to the second


class Heads(nn.Module):
    """Linear heads on the towers' tokens, for training only."""

    def __init__(self, width: int):
        super().__init__()
        self.kind = nn.Linear(width, len(KINDS) + 1)
        self.colour = nn.Linear(width, len(COLOURS) + 1)
        self.side = nn.Linear(width, 3)
        self.row = nn.Linear(width, CELLS)
        self.column = nn.Linear(width, CELLS)
        self.sound = nn.Linear(width, len(AUDIBLE) + 1)
        self.norm = nn.LayerNorm(width)
        self.background = torch.ones(len(KINDS) + 1)
        self.background[0] = 0.3  # most cells are empty


def grid_labels(script: Any, times: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of ``script``, of any world: kind, colour, and which digit of its number (0 none, 1 left, 2 right) each cell of
    the grid made of the frames at ``times`` shows: three [CELLS * CELLS] int64, IGNORE where a thing only grazes the
    cell."""
    (k0, c0, s0), (k1, c1, s1) = (cells(script, t) for t in times)
    kind, colour, share = np.where(s1 > s0, k1, k0), np.where(s1 > s0, c1, c0), np.maximum(s0, s1)
    side = np.zeros_like(kind)
    number = next((n for n in (scene_at(script, t).number for t in times) if n), None)
    if number:
        left = (np.arange(CELLS) + 0.5) * CELL < number.centre[0]
        side = np.where(kind > KINDS.index(DIGITS[0]), np.where(left, 1, 2), 0)
    unclear = (share > FAINT) & (share < CLEAR)
    empty = share <= FAINT
    clean = lambda label: np.where(unclear, IGNORE, np.where(empty, 0, label)).reshape(-1)
    return clean(kind), clean(colour), clean(side)


def is_transient(script: Any, time: float) -> bool:
    """Whether something shows at ``time`` that shows only for a while: a number or a brief thing."""
    scene = scene_at(script, time)
    return any(x is not None and x.start <= time < x.end for x in (scene.number, scene.brief))


def draw_grids(
    rng: np.random.Generator, script: Any, count: int, picture: Callable[[Any, float], np.ndarray]
) -> tuple[list[np.ndarray], list[tuple[float, float]]]:
    """``count`` grids of a clip: the frames that ``picture`` makes of them, two a grid, and when they show."""
    clock = frame_clock(script.duration)
    weight = np.array(
        [RARE if is_transient(script, a) or is_transient(script, b) else 1 for a, b in zip(clock[::2], clock[1::2])]
    )
    times = []
    for grid in rng.choice(len(weight), count, replace=False, p=weight / weight.sum()):
        # Any moment will do, but the two frames of a grid stay half a second apart.
        shift = math.floor(float(rng.uniform(-0.25, 0.25)) * FPS) / FPS
        times.append((clock[2 * grid] + shift, clock[2 * grid + 1] + shift))
    return [picture(script, time) for pair in times for time in pair], times


def vision_batch(rng: np.random.Generator, world: int, scripts: int = SCRIPTS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """GRIDS grids of ``scripts`` clips: frames [2 * GRIDS, H, W, 3] uint8 and labels kind, colour and side
    [GRIDS * cells]; of fewer clips than SCRIPTS, fewer grids."""
    frames, labels = [], []
    for index in rng.integers(2**31, size=scripts):
        script = write_script(world, int(index))
        pictures, times = draw_grids(rng, script, GRIDS // SCRIPTS, picture)
        frames += pictures
        labels += [grid_labels(script, pair) for pair in times]
    kind, colour, side = (torch.from_numpy(np.concatenate(x)) for x in zip(*labels))
    return torch.from_numpy(np.stack(frames)), kind, colour, side


def audio_batch(rng: np.random.Generator, world: int, chunks: int = CHUNKS) -> tuple[Tensor, Tensor]:
    """Log-mel [128, chunks * 200] and the label of each of chunks * 50 audio tokens; ``chunks`` is a multiple of 3."""
    mels: list[Tensor] = []
    labels: list[Tensor] = []
    while len(mels) < chunks:
        script = write_script(world, int(rng.integers(2**31)))
        mel, label = mel_of(soundtrack(script)), sound_labels(script)
        for chunk in rng.choice(script.duration // 2, 3, replace=False):
            mels.append(mel[:, chunk * 200 : (chunk + 1) * 200])
            labels.append(label[chunk * 50 : (chunk + 1) * 50])
    return torch.cat(mels, dim=1), torch.cat(labels)


def sound_labels(script: Script) -> Tensor:
    """What sounds at each audio token: [25 * duration] int64, 0 nothing, else AUDIBLE index + 1."""
    out = torch.zeros(25 * script.duration, dtype=torch.long)
    for scene in script.scenes:
        if scene.sound:
            start, end = round(scene.sound.start * 25), round(scene.sound.end * 25)
            out[start:end] = AUDIBLE.index(scene.sound.kind) + 1
    return out


def losses(model, heads: Heads, rng: np.random.Generator, world: int) -> tuple[Tensor, dict[str, float]]:
    """One batch: the summed loss, and the accuracy of each head (on cells that are not empty, where that is a class),
    and of the kind head on digits."""
    frames, kind, colour, side = vision_batch(rng, world)
    patches, grid = patches_of(soften(frames, rng))
    mel, sound = audio_batch(rng, world)
    with torch.autocast("cpu", torch.bfloat16):
        vision = heads.norm(model.visual(patches, grid_thw=torch.tensor([[GRIDS, *grid[1:]]])).pooler_output).float()
        audio = heads.norm(model.audio_tower(mel, feature_lens=torch.full((CHUNKS,), 200)).last_hidden_state).float()
    place = torch.arange(CELLS * CELLS).repeat(GRIDS)
    row, column = place // CELLS, place % CELLS
    scores = {
        "kind": (heads.kind(vision), kind, heads.background),
        "colour": (heads.colour(vision), colour, heads.background[: len(COLOURS) + 1]),
        "side": (heads.side(vision), side, heads.background[:3]),
        "row": (heads.row(vision), row, None),
        "column": (heads.column(vision), column, None),
        "sound": (heads.sound(audio), sound, None),
    }
    loss = torch.zeros(())
    for score, label, weight in scores.values():
        loss = loss + F.cross_entropy(score.float(), label, weight=weight, ignore_index=IGNORE)
    accuracy = {}
    for name, (score, label, weight) in scores.items():
        counted = label > 0 if weight is not None else label >= 0
        accuracy[name] = (score.argmax(-1) == label)[counted].float().mean().item()
    digit = kind > KINDS.index(DIGITS[0])
    accuracy["digit"] = (scores["kind"][0].argmax(-1) == kind)[digit].float().mean().item()
    return loss, accuracy


def train(model, folder: Path, steps: int, seed: int, world: int) -> None:
    """Train both towers for ``steps`` steps; checkpoints in ``folder`` make it resumable."""
    state_file = folder / "towers.pt"
    with seeded(seed):
        heads = Heads(model.config.text_config.hidden_size)
    towers = [model.model.visual, model.model.audio_tower]
    optimizer = MuonAdamW([p for m in towers for p in m.parameters()], heads.parameters(), steps, RATES)
    start = 0
    if state_file.exists():
        saved = torch.load(state_file, weights_only=True)
        for module, key in zip((*towers, heads), ("visual", "audio", "heads")):
            module.load_state_dict(saved[key])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    grouped_attention.use_in_towers(model)
    smooth: dict[str, float] = {}
    start_s = time.time()
    for step in range(start, steps):
        loss, accuracy = losses(model.model, heads, np.random.default_rng([seed, step]), world)
        optimizer.step(loss)
        smooth = {k: 0.95 * smooth.get(k, v) + 0.05 * v for k, v in accuracy.items()}
        if step % 20 == 19:
            accuracies = " ".join(f"{k} {v:.3f}" for k, v in smooth.items())
            print(
                f"towers {step + 1}/{steps} loss {loss.item():.3f} {accuracies} {time.time() - start_s:.0f}s",
                flush=True,
            )
        if step + 1 == steps:
            rescale(model, np.random.default_rng([seed, steps]), world)
        if step % 100 == 99 or step + 1 == steps:
            saved = {"visual": towers[0].state_dict(), "audio": towers[1].state_dict(), "heads": heads.state_dict()}
            save_checkpoint(saved | {"optimizer": optimizer.state_dict(), "step": step + 1}, state_file)


@torch.no_grad()
def rescale(model, rng: np.random.Generator, world: int) -> None:
    """Scale both towers' last layers so that their tokens have the size that the decoder's own tokens start with."""
    frames, *_ = vision_batch(rng, world)
    patches, grid = patches_of(soften(frames, rng))
    vision = model.model.visual(patches, grid_thw=torch.tensor([grid])).pooler_output
    mel, _ = audio_batch(rng, world)
    audio = model.model.audio_tower(mel, feature_lens=torch.full((CHUNKS,), 200)).last_hidden_state
    for layer, tokens in ((model.model.visual.merger.mlp[-1], vision), (model.model.audio_tower.proj, audio)):
        factor = TOKEN_SCALE / tokens.float().pow(2).mean().sqrt()
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)
