"""How many tokens stay: the one place where a keep ratio becomes counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cg_cli.pruning.stream import AUDIO, VIDEO, TokenStream

# One in so many video tokens is kept before audio shrinks. With one token a grid as the floor, nano answers 20 points
# fewer at keep 0.25 (docs/notes/pruning.md), and a 7B clip at keep 0.15 would keep all of its sound and next to no
# picture. Published methods that go lower thin the sound too: SEATS at 25 % keeps 20 % of video, 55 % of audio.
VIDEO_FLOOR = 5


@dataclass(frozen=True)
class Budget:
    """Exact numbers of audio and video tokens that a selection keeps. Text is never counted.

    ``keep`` is the ratio that they come from, for a method that has to budget a stream before it has seen all of it.
    """

    video: int
    audio: int
    keep: float | None = field(default=None, compare=False)

    @property
    def count(self) -> int:
        return self.video + self.audio


def kept_count(tokens: int, keep: float) -> int:
    """Tokens that stay of ``tokens`` at ratio ``keep`` in (0, 1]: rounded half up, at least one if there are any."""
    return min(tokens, max(min(tokens, 1), math.floor(keep * tokens + 0.5)))


def split(video: int, audio: int, grids: int, keep: float) -> Budget:
    """Counts for a stream of ``video`` tokens in ``grids`` temporal patches and ``audio`` tokens.

    Audio stays whole while the video keeps its floor: one token in VIDEO_FLOOR, or its share of the budget where that
    is less, and at least one token a grid. Below that audio shrinks too. When even one token a grid is more than half
    of the budget, video and audio share it evenly.
    """
    count = kept_count(video + audio, keep)
    share = count * video // max(video + audio, 1)
    floor = max(min(grids, math.ceil(count / 2), video), min(share, video // VIDEO_FLOOR))
    kept_video = min(video, max(count - audio, floor))
    return Budget(video=kept_video, audio=count - kept_video, keep=keep)


def wide(values: Tensor) -> Tensor:
    """``values`` as float64, or as float32 on devices that have no float64 (Apple's)."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def plan(stream: TokenStream, keep: float) -> Budget:
    """The budget of ``stream`` at ratio ``keep``: of all of its tokens, for those that repeat no other. Video that does
    not take its part leaves it to the audio, and the other way round. Reads its counts from the device at once."""
    kinds = [stream.modality == VIDEO, stream.modality == AUDIO]
    counts = [*(kind.sum() for kind in kinds), stream.grid.max() + 1]
    if stream.same_as is not None and keep < 1:
        is_copy = stream.same_as != torch.arange(len(stream), device=stream.same_as.device)
        counts += [(kind & is_copy).sum() for kind in kinds]
    video, audio, grids, *copies = torch.stack(counts).tolist()
    budget = split(video, audio, grids, keep)
    if not copies:
        return budget
    fresh_video, fresh_audio = video - copies[0], audio - copies[1]
    kept_audio = min(fresh_audio, budget.count - min(budget.video, fresh_video))
    return Budget(min(fresh_video, budget.count - kept_audio), kept_audio, keep)
