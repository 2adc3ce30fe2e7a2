"""The layout of a Qwen2.5-Omni prompt: order, places, times and rotary positions of its tokens.

    <|im_start|>system\\n ... <|im_end|>\\n<|im_start|>user\\n    header
    <|vision_bos|><|audio_bos|> V..A..V..A.. <|audio_eos|><|vision_eos|>    media; the prefix ends here
    question <|im_end|>\\n<|im_start|>assistant\\n

The prefix ends on a special token, which no tokenizer rule crosses, so tokens(prefix) + tokens(rest) are
tokens(whole). The rules are those of transformers' ``Qwen2_5OmniThinkerModel.get_rope_index``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cg_cli.backbones.layout import Layout, MediaShape, compose, nested, raster

SYSTEM_PROMPT = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving auditory and "
    "visual inputs, as well as generating text and speech."
)
HEADER = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n"
QUESTION_END = "<|im_end|>\n<|im_start|>assistant\n"
VISION_DELIMITERS = ("<|vision_bos|>", "<|vision_eos|>")
AUDIO_DELIMITERS = ("<|audio_bos|>", "<|audio_eos|>")


@dataclass(frozen=True)
class Rates:
    """Clock of the rotary positions: ``per_second`` a second, interleaved in chunks of ``chunk_s`` seconds."""

    per_second: int = 25
    chunk_s: int = 2

    @property
    def per_chunk(self) -> int:
        return self.per_second * self.chunk_s


def audio_token_count(mel_frames: int) -> int:
    """Audio tokens of ``mel_frames`` frames of 10 ms: one strided convolution, then pooling by two (25 a second)."""
    return ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1


def delimiters(shape: MediaShape) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Special tokens that open and close the media: vision outside, audio inside."""
    return nested(shape, VISION_DELIMITERS, AUDIO_DELIMITERS)


def prefix_layout(header: int, shape: MediaShape, rates: Rates = Rates()) -> Layout:
    """Lay out ``header`` text tokens, the delimiters and the media.

    Both opening delimiters share one position, and so do both closing ones. Time runs at ``rates.per_second``
    positions; rows and columns are not shifted by time. The closing ones follow the last *listed* chunk, so with a wide
    frame and short sound they may repeat positions of the picture: the model was trained that way. Without pictures the
    same rules give plain 0, 1, 2, ...
    """
    opening = len(delimiters(shape)[0])
    start = header + 1  # position of the first media token
    grid, row, column = raster(shape)
    time, sound = (shape.starts()[grid] * rates.per_second).long(), torch.arange(shape.audio)
    positions = torch.cat([torch.stack([time, row, column]), sound.expand(3, -1)], dim=1) + start
    # Between grids that stand where something happens the original's rule would come late: each is in its own chunk.
    of_grids = _chunks(time, rates) if shape.grid_starts is None else time // rates.per_chunk
    chunk = torch.cat([of_grids, _chunks(sound, rates)])
    # Within a chunk the video comes first; a stable sort keeps each modality's own order.
    listed = chunk * 2 + (torch.arange(len(chunk)) >= shape.video)
    order = torch.argsort(listed, stable=True)
    last = positions[:, listed == listed.max()].max()
    return compose(
        shape,
        order,
        positions[:, order],
        before=torch.cat([torch.arange(header), torch.full((opening,), header)]),
        after=torch.full((opening,), int(last) + 1),
        audio_s=sound.to(torch.float32) / rates.per_second,
    )


def _chunks(time: Tensor, rates: Rates) -> Tensor:
    """Chunk of each token from its sorted time positions, as ``get_chunked_index`` cuts them.

    The original moves on by at most one chunk a token, even inside a grid:
    ``c[i] = min(c[i-1] + 1, time[i] // chunk)``, here in closed form.
    """
    index = torch.arange(len(time))
    return torch.cummin(time // rates.per_chunk - index, dim=0).values + index
