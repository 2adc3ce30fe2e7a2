"""The training set of a predictor: a backbone's tokens of many clips, encoded once and kept on disk (``features``).

Files are decoded ahead, while the model encodes those before them. A clip that cannot be used is reported and left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cg_cli import media
from cg_cli.backbones.base import Backbone
from cg_cli.errors import ItemError, UsageError
from cg_cli.media.clip import SAMPLE_RATE, Clip, DecodeOptions
from cg_cli.media.files import VIDEO_SUFFIXES, walk
from cg_cli.media.opening import web_address
from cg_cli.predictors.features import ClipFile, ClipWindows, open_clip
from cg_cli.pruning.stream import AUDIO, VIDEO, TokenStream
from cg_cli.util.hashing import cached_sha256

TOKENS = 32  # video tokens kept of a window: they say which words it shows
CACHE_VERSION = 3  # of the files of encoded clips
DECODERS = 4  # decode processes, at most
ITEM_BYTES = 2  # of a number in a file


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
    audio, video = ((kind & (window >= 0)).nonzero()[:, 0] for kind in (is_audio, is_video))
    total = torch.zeros(len(both), stream.embeddings.shape[1], device=stream.embeddings.device)
    total.index_add_(0, window[video], stream.embeddings[video].float())
    count = torch.bincount(window[video], minlength=len(both))
    mean = total / count[:, None]
    audio = audio[torch.argsort(window[audio], stable=True)]
    token = video[_drawn(window[video].cpu(), count.cpu()).to(video.device)]
    half = lambda x: x.to(torch.float16).cpu()
    starts = [_starts(window[rows].cpu(), len(both)) for rows in (audio, token)]
    return ClipWindows(half(stream.embeddings[audio]), starts[0], half(stream.embeddings[token]), starts[1], half(mean))


def _drawn(window: Tensor, count: Tensor) -> Tensor:
    """Places of up to TOKENS video tokens of each window, by ``window`` [V] of each, with ``count`` [W] of them; always
    the same at random, since evenly spaced ones would stand in a few columns of the picture."""
    shuffled = torch.randperm(len(window), generator=torch.Generator().manual_seed(0))
    shuffled = shuffled[torch.argsort(window[shuffled], stable=True)]
    rank = torch.arange(len(window)) - (count.cumsum(0) - count)[window[shuffled]]
    return shuffled[rank < TOKENS]


def _starts(window: Tensor, windows: int) -> Tensor:
    """Where the rows of each of ``windows`` windows begin [W + 1], those of ``window`` [n] being in order."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(window, minlength=windows).cumsum(0)])


@dataclass(frozen=True)
class Corpus:
    """Videos as one backbone encodes them.

    Attributes:
        videos: the files.
        cache: folder for the encoded ones.
    """

    videos: Sequence[Path]
    backbone: Backbone
    options: DecodeOptions
    window_s: float
    cache: Path

    def encoded_file(self, video: Path) -> Path:
        """Where the encoded ``video`` is, once it is. ItemError for one that cannot be read."""
        backbone = self.backbone
        try:
            content = cached_sha256(video)
        except OSError as error:
            raise ItemError("media", f"cannot be read: {error.strerror or error}", "unreadable") from error
        inputs = f"{CACHE_VERSION}|{content}|{backbone.id}|{backbone.revision}|{self.options}|{self.window_s}"
        return self.cache / f"{hashlib.sha256(inputs.encode()).hexdigest()[:32]}.safetensors"

    def to_encode(self) -> list[Path]:
        """The videos that are not encoded yet, but for those that cannot be read."""
        return [video for video in self.videos if (file := self._file(video)) and not file.exists()]

    def _file(self, video: Path) -> Path | None:
        with contextlib.suppress(ItemError):
            return self.encoded_file(video)
        return None

    def encode(self, on_fault: Callable[[str], None]) -> Iterator[ClipFile | None]:
        """The windows of each video, from ``cache`` where it has been encoded before; None for one that cannot be used,
        after ``on_fault`` was called with the reason in one line."""
        self.cache.mkdir(parents=True, exist_ok=True)
        waiting = set(self.to_encode())
        with _decoding(self.options) as decode:
            clips = decode([video for video in self.videos if video in waiting])
            for video in self.videos:
                try:
                    clip = next(clips) if video in waiting else None
                    file = self.encoded_file(video)
                    if clip is not None:
                        self._encode(clip.result()).save(file)
                    yield open_clip(file) or self._again(video, file)
                except ItemError as error:
                    on_fault(f"{video}: {error}")
                    yield None

    def streams(self, videos: Sequence[Path]) -> Iterator[TokenStream]:
        """The token streams of ``videos``, but for those that cannot be read."""
        with _decoding(self.options) as decode:
            for clip in decode(videos):
                with contextlib.suppress(ItemError), torch.no_grad():
                    yield self.backbone.encode(clip.result())

    def _encode(self, clip: Clip) -> ClipWindows:
        with torch.no_grad():
            return split_windows(self.backbone.encode(clip), self.window_s)

    def _again(self, video: Path, file: Path) -> ClipFile | None:
        """Encode a clip whose file is damaged."""
        with media.DecodeWorker() as worker:
            self._encode(worker.decode(str(video), self.options)).save(file)
        return open_clip(file)


@contextlib.contextmanager
def _decoding(options: DecodeOptions) -> Iterator[Callable[[Sequence[Path]], Iterator[Future[Clip]]]]:
    """A function that decodes files, a few ahead of the one that is asked for, in processes that leave the model a
    core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
    workers = [media.DecodeWorker() for _ in range(max(1, min(DECODERS, cores - 1)))]
    idle: queue.SimpleQueue[media.DecodeWorker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)
    threads = ThreadPoolExecutor(len(workers))

    def decode_one(video: Path) -> Clip:
        worker = idle.get()
        try:
            return worker.decode(str(video), options)
        finally:
            idle.put(worker)

    def decode(videos: Sequence[Path]) -> Iterator[Future[Clip]]:
        ahead: deque[Future[Clip]] = deque()
        for video in videos:
            ahead.append(threads.submit(decode_one, video))
            if len(ahead) > len(workers):
                yield ahead.popleft()
        yield from ahead

    try:
        yield decode
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.close()


def disk_bytes(backbone: Backbone, seconds: float, window_s: float) -> int:
    """Bytes that clips of ``seconds`` in all take when they are encoded, at most."""
    minute = 60 * SAMPLE_RATE
    _, _, audio = backbone.media_tokens(backbone.frame_multiple, backbone.side_multiple, backbone.side_multiple, minute)
    rows = audio * seconds / 60 + (TOKENS + 1) * seconds / window_s
    return int(rows * backbone.hidden_size * ITEM_BYTES)


def stated_seconds(videos: Sequence[Path]) -> float:
    """Seconds of ``videos`` in all, as their headers state them."""
    total = 0.0
    with media.DecodeWorker() as worker:
        for video in videos:
            with contextlib.suppress(ItemError):
                total += worker.stated_duration(str(video)) or 0.0
    return total
