"""A clip's frames, log-mel, and features from the frozen towers, without writing a media file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cg_cli.backbones import grouped_attention, qwen_inputs
from cg_cli.nano.render import frame_clock
from cg_cli.nano.things import FRAME
from cg_cli.nano.training.recipe import blank, feature_extractor
from cg_cli.nano.worlds import WORLDS
from cg_cli.util.checkpoints import save_checkpoint

PATCH = 14  # pixels
_extractor = lru_cache(maxsize=1)(feature_extractor)


@dataclass(frozen=True)
class Job:
    """The features of a clip, and where they go."""

    folder: Path
    world: str
    seed: int
    index: int
    longest: int  # seconds


def mel_of(audio: np.ndarray) -> Tensor:
    """Log-mel of 16 kHz mono sound as the backbone computes it: [128, len(audio) / 160] float32."""
    return qwen_inputs.log_mel(audio, _extractor())


def patches_of(frames: Tensor) -> tuple[Tensor, list[int]]:
    """Frames [N, FRAME, FRAME, 3] uint8 as the vision tower reads them, and their patch grid (t, h, w)."""
    side = FRAME // PATCH
    return qwen_inputs.patchify(frames, qwen_inputs.PixelNorm(), patch=PATCH), [len(frames) // 2, side, side]


@lru_cache(maxsize=1)
def _noise() -> Tensor:
    """A bank of sensor noise, [8, FRAME, FRAME, 3], standard deviation 1."""
    return torch.randn(8, FRAME, FRAME, 3, generator=torch.Generator().manual_seed(0))


def soften(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Frames [N, H, W, 3] uint8 as a codec might return them: colour at half resolution, some noise, a shade lighter or
    darker. Four of ten calls leave the colours sharp."""
    x = frames.float()
    if rng.random() < 0.6:
        luma = x.mean(-1, keepdim=True)
        n, h, w, _ = x.shape
        chroma = (x - luma).view(n, h // 2, 2, w // 2, 2, 3).mean((2, 4), keepdim=True)
        x = (luma.view(n, h // 2, 2, w // 2, 2, 1) + chroma).view(n, h, w, 3)
    x = x * float(rng.uniform(0.95, 1.05)) + float(rng.uniform(-5, 5))
    shift, level = tuple(rng.integers(FRAME, size=2).tolist()), float(rng.uniform(0, 5))
    for k, noise in enumerate(torch.roll(_noise(), shift, (1, 2))):
        x[k :: len(_noise())].add_(noise, alpha=level)
    return x.clamp_(0, 255).to(torch.uint8)


def clip_features(model, job: Job) -> dict[str, Tensor]:
    """The frozen towers' features of one clip: video [grids * cells, D] and audio [25 * duration, D], bfloat16."""
    world = WORLDS[job.world]
    script = world.write_script(job.seed, job.index, job.longest)
    rng = np.random.default_rng([job.seed, job.index, 2])
    frames = torch.from_numpy(np.stack([world.picture(script, t) for t in frame_clock(script.duration)]))
    patches, grid = patches_of(soften(frames, rng))
    mel = mel_of(world.soundtrack(script))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        video = model.model.visual(patches, grid_thw=torch.tensor([grid])).pooler_output
        audio = model.model.audio_tower(mel, feature_lens=torch.tensor([mel.shape[1]])).last_hidden_state
    return {"video": video.to(torch.bfloat16), "audio": audio.to(torch.bfloat16)}


def feature_file(folder: Path, seed: int, index: int) -> Path:
    """Where the features of a clip are kept; ``folder`` is for one world."""
    return folder / f"{seed}-{index:06d}.pt"


def produce(towers: Path, jobs: list[Job]) -> None:
    """Write the features of each of ``jobs`` that is not there yet. Runs as a process of its own."""
    torch.set_num_threads(1)
    model, _ = blank(0)
    saved = torch.load(towers, weights_only=True)
    model.model.visual.load_state_dict(saved["visual"])
    model.model.audio_tower.load_state_dict(saved["audio"])
    grouped_attention.use_in_towers(model)
    for job in jobs:
        target = feature_file(job.folder, job.seed, job.index)
        if not target.exists():
            save_checkpoint(clip_features(model, job), target)
