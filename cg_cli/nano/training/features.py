"""What the training needs of a clip without writing a file: frames, log-mel, and the towers run fast."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

from ..render import frame_clock, picture, soundtrack
from ..script import write_script
from ..things import FRAME
from .recipe import blank, feature_extractor

_extractor = lru_cache(maxsize=1)(feature_extractor)


def mel_of(audio: np.ndarray) -> Tensor:
    """Log-mel of 16 kHz mono sound as the backbone computes it: [128, len(audio) / 160] float32."""
    frames = len(audio) // 160
    padded = np.concatenate([audio, np.zeros(400, np.float32)])[None]
    return torch.from_numpy(_extractor()._torch_extract_fbank_features(padded)[0][:, :frames])


_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]) * 255
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]) * 255


def patchify(frames: Tensor) -> tuple[Tensor, list[int]]:
    n, h, w, _ = frames.shape
    x = ((frames.float() - _MEAN) / _STD).permute(0, 3, 1, 2)
    x = x.reshape(n // 2, 2, 3, h // 28, 2, 14, w // 28, 2, 14).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return x.reshape(n // 2 * (h // 14) * (w // 14), 1176), [n // 2, h // 14, w // 14]


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


def _equal_windows(module, query, key, value, attention_mask, *, scaling, cu_seq_lens_q, **kwargs):
    """Attention inside the windows of a packed sequence, [1, heads, L, d] each, all windows as one batch. Nano's frames
    are square and its sound comes in stretches of 2 s, so only the last window can be shorter."""
    length = int(cu_seq_lens_q[1])
    whole = query.shape[2] // length * length
    split = [x[0, :, :whole].unflatten(1, (-1, length)).transpose(0, 1) for x in (query, key, value)]
    out = F.scaled_dot_product_attention(*split, scale=scaling).transpose(1, 2).flatten(0, 1)  # [whole, heads, d]
    if whole < query.shape[2]:
        rest = F.scaled_dot_product_attention(*(x[0, :, whole:] for x in (query, key, value)), scale=scaling)
        out = torch.cat([out, rest.transpose(0, 1)])
    return out[None], None


def tower_attention(model) -> None:
    """Let both towers of ``model`` attend to all windows at once (the name makes transformers pass them packed)."""
    AttentionInterface.register("nano_flash", _equal_windows)
    model.set_attn_implementation({"vision_config": "nano_flash", "audio_config": "nano_flash", "text_config": "sdpa"})


def clip_features(model, world: int, index: int, longest: int) -> dict[str, Tensor]:
    """What the frozen towers say about one clip: video [grids * cells, D] and audio [25 * duration, D], bfloat16."""
    script = write_script(world, index, longest)
    rng = np.random.default_rng([world, index, 2])
    frames = torch.from_numpy(np.stack([picture(script, t) for t in frame_clock(script.duration)]))
    patches, grid = patchify(soften(frames, rng))
    mel = mel_of(soundtrack(script))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        video = model.model.visual(patches, grid_thw=torch.tensor([grid])).pooler_output
        audio = model.model.audio_tower(mel, feature_lens=torch.tensor([mel.shape[1]])).last_hidden_state
    return {"video": video.to(torch.bfloat16), "audio": audio.to(torch.bfloat16)}


def feature_file(folder: Path, world: int, index: int) -> Path:
    return folder / f"{world}-{index:06d}.pt"


def produce(towers: Path, folder: Path, jobs: list[tuple[int, int, int]]) -> None:
    """Write the features of each (world, index, longest) of ``jobs`` that is not there yet. Runs as a process of its own."""
    torch.set_num_threads(1)
    model, _ = blank(0)
    saved = torch.load(towers, weights_only=True)
    model.model.visual.load_state_dict(saved["visual"])
    model.model.audio_tower.load_state_dict(saved["audio"])
    tower_attention(model)
    for world, index, longest in jobs:
        target = feature_file(folder, world, index)
        if not target.exists():
            torch.save(clip_features(model, world, index, longest), target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)
