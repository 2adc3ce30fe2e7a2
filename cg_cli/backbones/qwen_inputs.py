"""Pixels and sound as the Qwen2.5-Omni towers want them, without the official processor.

transformers' ``Qwen2_5OmniProcessor`` needs torchvision, assumes 2 frames a second, and cuts sound at 300 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cg_cli.media.repeats import block_sources

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # RGB, of values 0..1: what the tower was trained with
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HOP = 160  # samples a mel frame: 10 ms
N_FFT = 400  # samples a mel window; sound shorter than that gives no audio token
OMNI_EXTRACTOR = {"chunk_length": 300, "hop_length": HOP, "n_fft": N_FFT, "return_attention_mask": True}
MAX_PATCHES = 16_384  # of a vision piece: bounds activations to some hundred MB
MEL_PIECE = 6000  # frames of a spectrogram that are computed at a time: a minute
AUDIO_PIECE_BLOCKS = 60  # attention blocks of an audio piece: two minutes


@dataclass(frozen=True)
class PixelNorm:
    """Mean and standard deviation of RGB values 0..1."""

    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD


def even_frames(frames: np.ndarray, multiple: int) -> np.ndarray:
    """[N, H, W, 3] with the last frame repeated until N is a multiple of ``multiple``."""
    missing = -len(frames) % multiple
    return frames if not missing else np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])


def patchify(frames: Tensor, norm: PixelNorm, *, patch: int = 14, merge: int = 2, temporal: int = 2) -> Tensor:
    """Frames as rows of patches, as ``Qwen2VLVideoProcessor`` makes them, without its resizing.

    Args:
        frames: [N, H, W, 3] uint8; N a multiple of ``temporal``, H and W multiples of ``patch * merge``.

    Returns:
        [(N / temporal) * (H / patch) * (W / patch), 3 * temporal * patch * patch] float32. Rows go grid by grid, in
        merged blocks of ``merge`` x ``merge`` patches; a row goes channel, frame, y, x.

    Raises:
        ValueError: sizes that do not divide.
    """
    count, height, width, channels = frames.shape
    side = patch * merge
    if count % temporal or height % side or width % side:
        raise ValueError(f"{count} frames of {height} x {width}: need multiples of {temporal} and {side}")
    split = frames.reshape(
        count // temporal, temporal, height // side, merge, patch, width // side, merge, patch, channels
    )
    rows = split.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, channels, temporal * patch * patch)
    mean = torch.tensor(norm.mean, device=frames.device)[:, None] * 255.0
    std = torch.tensor(norm.std, device=frames.device)[:, None] * 255.0
    return rows.to(torch.float32).sub_(mean).div_(std).flatten(1)


def grid_pieces(grids: int, patches_per_grid: int) -> Iterator[tuple[int, int]]:
    """Cut ``grids`` into runs (start, stop) of at most MAX_PATCHES patches, at least one grid each.

    Exact: no attention of the tower reaches across grids.
    """
    size = max(1, MAX_PATCHES // patches_per_grid)
    return ((start, min(start + size, grids)) for start in range(0, grids, size))


def mel_frame_count(samples: int) -> int:
    """Mel frames of ``samples`` samples: one for each 10 ms begun, at least enough for one audio token."""
    return -(-max(samples, N_FFT) // HOP)


def log_mel(audio: np.ndarray, extractor: Any, device: torch.device | str = "cpu") -> Tensor:
    """Log-mel spectrogram [bins, frames] float32 of mono sound [S] at 16 kHz, of any length.

    Equal to the official processor's features of the same sound: those see zeros after the sound's end, so the
    same zeros follow here, and the frames of these zeros alone are cut off again. Some frames at a time: the spectrum
    of an hour takes gigabytes.

    Args:
        extractor: transformers ``WhisperFeatureExtractor``, for its filters.
        device: of the model, where it is computed.
    """
    padded = _padded(audio)
    window = torch.hann_window(N_FFT, device=device)
    filters = torch.from_numpy(extractor.mel_filters).to(device, torch.float32).T
    total, pieces = (len(padded) - N_FFT) // HOP, []
    for start in range(0, total, MEL_PIECE):
        stop = min(start + MEL_PIECE, total)
        sound = torch.from_numpy(padded[start * HOP : (stop - 1) * HOP + N_FFT]).to(device)
        spectrum = torch.stft(sound, N_FFT, HOP, window=window, center=False, return_complex=True)
        pieces.append((filters @ spectrum.abs().square()).clamp_(min=1e-10).log10_())
    mel = torch.cat(pieces, dim=1)
    mel = torch.maximum(mel, mel.max() - 8.0)
    return ((mel + 4.0) / 4.0)[:, : mel_frame_count(len(audio))]


def _padded(audio: np.ndarray) -> np.ndarray:
    """The samples that the frames of ``log_mel`` see: frame f those from ``f * HOP`` on, N_FFT of them."""
    padded = np.zeros(max(len(audio), N_FFT) + 2 * N_FFT, dtype=np.float32)
    half = N_FFT // 2
    padded[half : half + len(audio)] = audio
    padded[:half] = padded[2 * half : half : -1]  # the start is mirrored; what mirrors the zeros at the end is zero
    return padded


def sound_sources(audio: np.ndarray, block: int) -> np.ndarray:
    """Of sound as for ``log_mel``, in whole blocks of ``block`` mel frames, the block that each one repeats, sample for
    sample, or its own number [B] int64."""
    whole = mel_frame_count(len(audio)) // block
    return block_sources(_padded(audio), block * HOP, N_FFT - HOP)[:whole]


def mel_pieces(frames: int, n_window: int) -> list[tuple[int, int]]:
    """Cut ``frames`` mel frames into runs (start, stop) of whole attention blocks (``2 * n_window`` frames).

    Exact: blocks do not see each other. A tail too short for a token of its own (under 3 frames) is left out; the
    whole has no token for it either.
    """
    size = AUDIO_PIECE_BLOCKS * 2 * n_window
    pieces = [(start, min(start + size, frames)) for start in range(0, frames, size)]
    return [(start, stop) for start, stop in pieces if stop - start >= 3]
