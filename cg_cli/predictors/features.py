"""Encoded clips on disk, and the windows of many of them, read in pieces: memory does not grow with their number.

A file of safetensors a clip holds:

    audio         [A, D] float16   audio tokens of the windows that have both sound and picture, in their order
    audio_start   [W + 1] int64    where each window's begin
    token         [T, D] float16   of each window up to ``corpus.TOKENS`` video tokens, drawn at random
    token_start   [W + 1] int64
    video_mean    [W, D] float16   the mean of all video tokens of each window
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cg_cli.util.atomic import atomic_path

PARTS = ("audio", "audio_start", "token", "token_start", "video_mean")


@dataclass(frozen=True)
class ClipWindows:
    """The windows of one clip that have both audio and video tokens; tensors as in a file."""

    audio: Tensor
    audio_start: Tensor
    token: Tensor
    token_start: Tensor
    video_mean: Tensor

    def save(self, path: Path) -> None:
        """Write the file of the clip; a kill leaves none that is half done."""
        with atomic_path(path) as temporary:
            save_file({name: getattr(self, name).contiguous() for name in PARTS}, temporary)


@dataclass(frozen=True)
class ClipFile:
    """The file of one clip: its tokens stay on disk."""

    path: Path
    audio_start: Tensor
    token_start: Tensor

    @property
    def windows(self) -> int:
        return len(self.audio_start) - 1

    def read(self, name: str, first: int = 0, last: int | None = None) -> Tensor:
        """Rows ``first`` to ``last`` of a tensor of the file, as they are."""
        with safe_open(self.path, "pt") as file:
            return file.get_slice(name)[first:last]

    def rows(self, name: str, index: Tensor) -> Tensor:
        """The rows ``index`` [n] of a tensor of the file."""
        with safe_open(self.path, "pt") as file:
            rows = file.get_slice(name)
            return torch.cat([rows[i : i + 1] for i in index.tolist()])


def open_clip(path: Path) -> ClipFile | None:
    """The clip in the file ``path``; None where there is none that is whole."""
    try:
        with safe_open(path, "pt") as file:
            return ClipFile(path, file.get_tensor("audio_start"), file.get_tensor("token_start"))
    except (OSError, SafetensorError):
        return None


class WindowSet:
    """The windows of many clips, numbered end to end.

    Attributes:
        clips: their files.
        clip: [W] int64, the clip of each window.
        first: [C] int64, the first window of each clip.
    """

    def __init__(self, clips: Sequence[ClipFile]):
        self.clips = clips
        count = torch.tensor([clip.windows for clip in clips])
        self.count = count
        self.first = count.cumsum(0) - count
        self.clip = torch.repeat_interleave(torch.arange(len(clips)), count)

    def __len__(self) -> int:
        return len(self.clip)

    def audio(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Audio tokens of ``windows`` [w] in their order [a, D] float16, and the place in ``windows`` of each [a]."""
        parts = []
        for window in windows.tolist():
            number = int(self.clip[window])
            clip, own = self.clips[number], window - int(self.first[number])
            parts.append(clip.read("audio", int(clip.audio_start[own]), int(clip.audio_start[own + 1])))
        length = torch.tensor([len(part) for part in parts])
        return torch.cat(parts), torch.repeat_interleave(torch.arange(len(parts)), length)

    def by_clip(self, *names: str) -> Iterator[tuple[Tensor, ...]]:
        """The tensors ``names`` of one clip after the other."""
        for clip in self.clips:
            yield tuple(clip.read(name) for name in names)

    def samples(self, most: int) -> Iterator[Tensor]:
        """Up to ``most`` video tokens of one clip after the other, evenly spaced in time [s, D] float16."""
        for clip in self.clips:
            yield clip.rows("token", spaced(int(clip.token_start[-1]), most))

    def one_each(self, most: int, generator: torch.Generator) -> Tensor:
        """A window [w] of each of up to ``most`` clips, at random."""
        clips = torch.randperm(len(self.clips), generator=generator)[:most]
        offset = torch.rand(len(clips), generator=generator) * self.count[clips]
        return self.first[clips] + offset.long()

    def spaced(self, most: int) -> Tensor:
        """Up to ``most`` windows of each clip, evenly spaced, in order [w]."""
        return torch.cat(
            [first + spaced(count, most) for first, count in zip(self.first.tolist(), self.count.tolist())]
        )


def spaced(count: int, most: int) -> Tensor:
    """Up to ``most`` of ``range(count)``, evenly spaced, ascending [m] int64."""
    return torch.linspace(0, count - 1, min(most, count)).round().long()
