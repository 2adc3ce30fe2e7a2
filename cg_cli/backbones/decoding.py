"""Choosing tokens, turning them into text, and leaving a cache as it was found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cg_cli.errors import ItemError, UsageError

HALF_CHARACTER = "\ufffd"  # what a decoder puts for bytes that are not (yet) a character
DECODE_VERSION = 1  # part of a record's key: raised when the same logits become another text


def check(max_new_tokens: int, temperature: float) -> None:
    """UsageError for a limit or a temperature that makes no sense."""
    if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
        raise UsageError(f"need max_new_tokens >= 1 and temperature >= 0, not {max_new_tokens} and {temperature}")


def make_sampler(temperature: float, seed: int) -> Callable[[Tensor], int]:
    """A function from logits [vocabulary] to a token id: the likeliest at temperature 0, else drawn with ``seed``.

    Drawing happens on the CPU in float32, so a seed means the same on every device.

    Raises (the returned function):
        ItemError: stage "decode", when a logit is not a number or infinite.
    """
    generator = torch.Generator().manual_seed(seed)

    def sample(logits: Tensor) -> int:
        best, index = logits.max(dim=-1)
        if not math.isfinite(best.item()):
            raise ItemError("decode", "the model's output is not finite; try --dtype float32 or bfloat16", "not_finite")
        if temperature == 0:
            return int(index)
        probabilities = torch.softmax(logits.to("cpu", torch.float32) / temperature, dim=-1)
        return int(torch.multinomial(probabilities, 1, generator=generator))

    return sample


class TextStream:
    """Tokens in, text out, never half of a multi-byte character before the end.

    A byte-level tokenizer decodes token by token to bytes, so text may be cut after any complete character: pieces
    join to what decoding all tokens at once gives.
    """

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None] | None = None):
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._pending: list[int] = []
        self._pieces: list[str] = []

    def push(self, token: int) -> None:
        """Take one token; hand on its text unless it may end inside a character."""
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if not text.endswith(HALF_CHARACTER):
            self._emit(text)

    def close(self) -> str:
        """Hand on what is pending, complete or not, and return the whole text."""
        if self._pending:
            self._emit(
                self._tokenizer.decode(self._pending, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            )
        return "".join(self._pieces)

    def _emit(self, text: str) -> None:
        self._pending.clear()
        if text:
            self._pieces.append(text)
            if self._on_text is not None:
                self._on_text(text)


@dataclass
class DecodeState:
    """One answer in the making."""

    sample: Callable[[Tensor], int]
    text: TextStream
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None

    def append(self, logits: Tensor, stop_ids: frozenset[int], max_new_tokens: int) -> None:
        """Choose the next token from ``logits`` [vocabulary]; sets ``finish`` when it is the last."""
        token = self.sample(logits)
        if token in stop_ids:
            self.finish = "stop"
            return
        self.tokens.append(token)
        self.text.push(token)
        if len(self.tokens) == max_new_tokens:
            self.finish = "length"


def cut_back(cache: Any, length: int) -> None:
    """Cut a ``DynamicCache`` to its first ``length`` entries.

    By absolute length and tensor by tensor, since an interrupt may leave layers, or a layer's keys and values, uneven;
    ``DynamicCache.crop`` would remove the same count from all.
    """
    for layer in cache.layers:
        layer.keys = layer.keys[..., :length, :]
        layer.values = layer.values[..., :length, :]
