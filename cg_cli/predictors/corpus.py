"""What the predictor learns from: a backbone's tokens of many clips, encoded once and kept on disk.

Of each clip its audio tokens stay, the mean video token of each window, and a few single video tokens, from which the
principal directions are taken. A clip that cannot be used is reported and left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cg_cli import media
from cg_cli.backbones.base import Backbone
from cg_cli.errors import ItemError, UsageError
from cg_cli.media.clip import DecodeOptions
from cg_cli.media.files import VIDEO_SUFFIXES, walk
from cg_cli.pruning.stream import AUDIO, VIDEO, TokenStream
from cg_cli.records import video_identity
from cg_cli.util.checkpoints import save_checkpoint

SAMPLE = 64  # single video tokens kept of a clip


@dataclass(frozen=True)
class ClipWindows:
    """One clip, cut into windows that have both sound and picture.

    Attributes:
        audio: [A, D] float16, audio tokens of those windows.
        window: [A] int64, the window of each, 0..W - 1, ascending.
        picture: [W, D] float16, the mean video token of each window.
        sample: [S, D] float16, video tokens spread over the clip.
    """

    audio: Tensor
    window: Tensor
    picture: Tensor
    sample: Tensor


def find_videos(inputs: Sequence[Path]) -> list[Path]:
    """The files among ``inputs``, and the media files in the folders among them, sorted, each once.

    Raises:
        UsageError: an input does not exist, or there is no file at all.
    """
    out: dict[Path, None] = {}
    for item in inputs:
        if item.is_dir():
            out |= dict.fromkeys(walk(item, VIDEO_SUFFIXES, _refuse))
        elif item.exists():
            out[item] = None
        else:
            raise UsageError(f"{item}: no such file or folder")
    if not out:
        raise UsageError(f"no video in {', '.join(map(str, inputs))}: name video files, or folders that hold some")
    return list(out)


def _refuse(error: OSError) -> None:
    raise UsageError(f"{error.filename}: {error.strerror}") from error


def cut(stream: TokenStream, window_s: float) -> ClipWindows:
    """A stream's windows of ``window_s`` seconds that have sound and picture. ItemError if there is none."""
    number = (stream.time_s / window_s + 1e-4).long()
    is_video, is_audio = stream.modality == VIDEO, stream.modality == AUDIO
    both = set(number[is_video].tolist()) & set(number[is_audio].tolist())
    if not both:
        raise ItemError("encode", "has no moment with both sound and picture to learn from: leave it out", "no_sound")
    rank = torch.full((int(number.max()) + 1,), -1)
    rank[sorted(both)] = torch.arange(len(both))
    of = rank[number.clamp_min(0).cpu()].to(number.device)
    audio, video = is_audio & (of >= 0), is_video & (of >= 0)
    tokens = stream.embeddings[video].float()
    total = torch.zeros(len(both), tokens.shape[1], device=tokens.device).index_add_(0, of[video], tokens)
    count = torch.bincount(of[video], minlength=len(both))[:, None]
    chosen = torch.linspace(0, len(tokens) - 1, min(SAMPLE, len(tokens)), device=tokens.device).round().long()
    half = lambda x: x.to(torch.float16).cpu()
    return ClipWindows(half(stream.embeddings[audio]), of[audio].cpu(), half(total / count), half(tokens[chosen]))


def encode_all(
    videos: Sequence[Path],
    backbone: Backbone,
    options: DecodeOptions,
    window_s: float,
    cache: Path,
    on_fault: Callable[[str], None],
) -> Iterator[ClipWindows | None]:
    """The windows of each video, from ``cache`` where it has been encoded before; None for one that cannot be used,
    after ``on_fault`` was told why in one line."""  # fmt: skip
    cache.mkdir(parents=True, exist_ok=True)
    with media.DecodeWorker() as worker:
        for video in videos:
            recipe = f"{video_identity(str(video))}|{backbone.id}|{backbone.revision}|{options}|{window_s}"
            kept = cache / f"{hashlib.sha256(recipe.encode()).hexdigest()[:32]}.pt"
            try:
                yield (
                    ClipWindows(**torch.load(kept, weights_only=True))
                    if kept.exists()
                    else _encode(video, backbone, worker, options, window_s, kept)
                )
            except ItemError as error:
                on_fault(f"{video}: {error}")
                yield None


def _encode(
    video: Path, backbone: Backbone, worker, options: DecodeOptions, window_s: float, kept: Path
) -> ClipWindows:
    with torch.no_grad():
        out = cut(backbone.encode(worker.decode(str(video), options)), window_s)
    save_checkpoint(vars(out), kept)
    return out
