"""The training set of a predictor: a backbone's tokens of many clips, encoded once and cached on disk.

Kept of each clip: its audio tokens, the mean video token of each window, and a sample of single video tokens, for the
principal directions. A clip that cannot be used is reported and left out.
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
from cg_cli.media.opening import web_address
from cg_cli.pruning.stream import AUDIO, VIDEO, TokenStream
from cg_cli.util.checkpoints import save_checkpoint
from cg_cli.util.hashing import cached_sha256

SAMPLE_SIZE = 64  # single video tokens kept of a clip
CACHE_VERSION = 2  # of the files of encoded clips


@dataclass(frozen=True)
class ClipWindows:
    """The windows of one clip that have both audio and video tokens.

    Attributes:
        audio: [A, D] float16, audio tokens of those windows.
        audio_window: [A] int64, the window of each, 0..W - 1, ascending.
        video_mean: [W, D] float16, the mean video token of each window.
        video_sample: [S, D] float16, video tokens evenly spaced over the clip.
    """

    audio: Tensor
    audio_window: Tensor
    video_mean: Tensor
    video_sample: Tensor


def find_videos(inputs: Sequence[Path]) -> list[Path]:
    """The files among ``inputs``, and the media files in the folders among them, sorted, each once.

    Raises:
        UsageError: an input does not exist, or there is no file at all.
    """
    paths: dict[Path, None] = {}  # an ordered set
    for item in inputs:
        if item.is_dir():
            paths |= dict.fromkeys(walk(item, VIDEO_SUFFIXES, _unreadable))
        elif item.exists():
            paths[item] = None
        else:
            raise UsageError(f"{item} {web_address(str(item)) or 'does not exist: name video files or folders'}")
    if not paths:
        raise UsageError(f"no video in {', '.join(map(str, inputs))}: name video files, or folders that hold some")
    return list(paths)


def _unreadable(error: OSError) -> None:
    raise UsageError(f"{error.filename}: {error.strerror}") from error


def split_windows(stream: TokenStream, window_s: float) -> ClipWindows:
    """A stream's windows of ``window_s`` seconds that have both audio and video. ItemError if there is none."""
    number = (stream.time_s / window_s + 1e-4).long()
    is_video, is_audio = stream.modality == VIDEO, stream.modality == AUDIO
    both = set(number[is_video].tolist()) & set(number[is_audio].tolist())
    if not both:
        raise ItemError("encode", "has no moment with both sound and picture to learn from: leave it out", "no_sound")
    rank = torch.full((int(number.max()) + 1,), -1)
    rank[sorted(both)] = torch.arange(len(both))
    window = rank[number.clamp_min(0).cpu()].to(number.device)
    audio, video = is_audio & (window >= 0), is_video & (window >= 0)
    tokens = stream.embeddings[video].float()
    total = torch.zeros(len(both), tokens.shape[1], device=tokens.device).index_add_(0, window[video], tokens)
    count = torch.bincount(window[video], minlength=len(both))[:, None]
    sample_size = min(SAMPLE_SIZE, len(tokens))
    sample = torch.linspace(0, len(tokens) - 1, sample_size, device=tokens.device).round().long()
    half = lambda x: x.to(torch.float16).cpu()
    return ClipWindows(half(stream.embeddings[audio]), window[audio].cpu(), half(total / count), half(tokens[sample]))


def encode_all(
    videos: Sequence[Path],
    backbone: Backbone,
    options: DecodeOptions,
    window_s: float,
    cache: Path,
    on_fault: Callable[[str], None],
) -> Iterator[ClipWindows | None]:
    """The windows of each video, from ``cache`` where it has been encoded before; None for one that cannot be used,
    after ``on_fault`` was called with the reason in one line."""  # fmt: skip
    cache.mkdir(parents=True, exist_ok=True)
    with media.DecodeWorker() as worker:
        for video in videos:
            try:
                inputs = f"{CACHE_VERSION}|{_content(video)}|{backbone.id}|{backbone.revision}|{options}|{window_s}"
                file = cache / f"{hashlib.sha256(inputs.encode()).hexdigest()[:32]}.pt"
                if file.exists():
                    yield ClipWindows(**torch.load(file, weights_only=True))
                else:
                    yield _encode(video, backbone, worker, options, window_s, file)
            except ItemError as error:
                on_fault(f"{video}: {error}")
                yield None


def _content(video: Path) -> str:
    try:
        return cached_sha256(video)
    except OSError as error:
        raise ItemError("media", f"cannot be read: {error.strerror or error}", "unreadable") from error


def _encode(
    video: Path, backbone: Backbone, worker: media.DecodeWorker, options: DecodeOptions, window_s: float, file: Path
) -> ClipWindows:
    with torch.no_grad():
        windows = split_windows(backbone.encode(worker.decode(str(video), options)), window_s)
    save_checkpoint(vars(windows), file)
    return windows
