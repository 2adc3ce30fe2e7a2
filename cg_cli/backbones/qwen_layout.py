"""Where a clip's tokens stand in a Qwen2.5-Omni prompt: order, places, times and rotary positions.

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

from ..pruning.stream import AUDIO, TEXT, VIDEO

SYSTEM_PROMPT = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving auditory and "
    "visual inputs, as well as generating text and speech."
)
HEADER = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n"
QUESTION_END = "<|im_end|>\n<|im_start|>assistant\n"
VISION_MARKS = ("<|vision_bos|>", "<|vision_eos|>")
AUDIO_MARKS = ("<|audio_bos|>", "<|audio_eos|>")


@dataclass(frozen=True)
class Rates:
    """Clock of the rotary positions: ``per_second`` a second, interleaved in chunks of ``chunk_s`` seconds."""

    per_second: int = 25
    chunk_s: int = 2

    @property
    def per_chunk(self) -> int:
        return self.per_second * self.chunk_s


@dataclass(frozen=True)
class MediaShape:
    """Token counts of a clip: ``grids`` x ``rows`` x ``columns`` video tokens and ``audio`` audio tokens.

    ``seconds_per_grid`` is the time one grid really covers, which is not 1 s when the frames were capped.
    """

    grids: int
    rows: int
    columns: int
    audio: int
    seconds_per_grid: float

    @property
    def video(self) -> int:
        """Video tokens in all."""
        return self.grids * self.rows * self.columns


@dataclass(frozen=True)
class Layout:
    """The prefix, one entry a token, on the CPU; the fields mean what they mean in ``TokenStream``."""

    modality: Tensor
    grid: Tensor
    row: Tensor
    column: Tensor
    time_s: Tensor
    positions: Tensor
    next_position: int


def audio_token_count(mel_frames: int) -> int:
    """Audio tokens of ``mel_frames`` frames of 10 ms: one strided convolution, then pooling by two (25 a second)."""
    return ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1


def marks(shape: MediaShape) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Special tokens that open and close the media: vision outside, audio inside."""
    kinds = [names for count, names in ((shape.video, VISION_MARKS), (shape.audio, AUDIO_MARKS)) if count]
    return tuple(names[0] for names in kinds), tuple(names[1] for names in reversed(kinds))


def prefix_layout(header: int, shape: MediaShape, rates: Rates = Rates()) -> Layout:
    """Lay out ``header`` text tokens, the marks and the media.

    Both opening marks share one position, and so do both closing ones. Time runs at ``rates.per_second`` positions;
    rows and columns are not shifted by time. The closing marks follow the last *listed* chunk, so with a wide frame
    and short sound they may repeat positions of the picture: the model was trained that way. Without pictures the
    same rules give plain 0, 1, 2, ...
    """
    opening = len(marks(shape)[0])
    start = header + 1  # position of the first media token
    video = _video_rows(shape, start, rates)
    audio = torch.arange(shape.audio) + start
    positions = torch.cat([video["positions"], audio.expand(3, -1)], dim=1)
    kind = torch.cat([torch.full((shape.video,), VIDEO), torch.full((shape.audio,), AUDIO)])
    chunk = torch.cat([_chunks(video["positions"][0] - start, rates), _chunks(audio - start, rates)])
    # Within a chunk the video comes first; a stable sort keeps each modality's own order.
    listed = chunk * 2 + (kind == AUDIO)
    order = torch.argsort(listed, stable=True)
    last = positions[:, listed == listed.max()].max()
    closing_position = int(last) + 1

    def rows(media: Tensor, text: float = -1) -> Tensor:
        return torch.cat([media.new_full((header + opening,), text), media[order], media.new_full((opening,), text)])

    blank = torch.full((shape.audio,), -1)
    before = torch.cat([torch.arange(header), torch.full((opening,), header)])
    after = torch.full((opening,), closing_position)
    audio_s = torch.arange(shape.audio, dtype=torch.float32) / rates.per_second
    return Layout(
        modality=rows(kind, TEXT),
        grid=rows(torch.cat([video["grid"], blank])),
        row=rows(torch.cat([video["row"], blank])),
        column=rows(torch.cat([video["column"], blank])),
        time_s=rows(torch.cat([video["grid"].to(torch.float32) * shape.seconds_per_grid, audio_s])),
        positions=torch.cat([before.expand(3, -1), positions[:, order], after.expand(3, -1)], dim=1),
        next_position=closing_position + 1,
    )


def _video_rows(shape: MediaShape, start: int, rates: Rates) -> dict[str, Tensor]:
    """Grid, row, column [V] and positions [3, V] of the video tokens in raster order."""
    index = torch.cartesian_prod(torch.arange(shape.grids), torch.arange(shape.rows), torch.arange(shape.columns))
    grid, row, column = index.reshape(-1, 3).unbind(1)
    # In float32 like the original: a grid's time may fall just below a whole position.
    seconds = grid.to(torch.float32) * torch.tensor(shape.seconds_per_grid, dtype=torch.float32)
    time = (seconds * rates.per_second).long()
    return {"grid": grid, "row": row, "column": column, "positions": torch.stack([time, row, column]) + start}


def _chunks(time: Tensor, rates: Rates) -> Tensor:
    """Chunk of each token from its sorted time positions, as ``get_chunked_index`` cuts them.

    The original moves on by at most one chunk a token, even inside a grid:
    ``c[i] = min(c[i-1] + 1, time[i] // chunk)``, here in closed form.
    """
    index = torch.arange(len(time))
    return torch.cummin(time // rates.per_chunk - index, dim=0).values + index
