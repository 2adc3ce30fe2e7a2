"""Sampling, streaming detokenization, and the answer that comes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from cg_cli.errors import ItemError, UsageError

DECODE_VERSION = 2  # part of a record's key: raised when the same logits become another text


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: the answer without special tokens; "" when the model stopped at once.
        token_ids: the tokens of the answer, without the one that stopped it.
        finish: "stop" (the model ended it) or "length" (``max_new_tokens`` did).
        question_tokens: tokens fed after the prefix: the question and the special tokens around it.
        seconds_to_first_token: from the call to the first token's choice, question prefill included.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: str
    question_tokens: int
    seconds_to_first_token: float


def check(max_new_tokens: int, temperature: float, repetition_penalty: float = 1.0) -> None:
    """UsageError for a limit, a temperature or a penalty that makes no sense."""
    if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
        raise UsageError(f"need max_new_tokens >= 1 and temperature >= 0, not {max_new_tokens} and {temperature}")
    if not 0 < repetition_penalty < float("inf"):
        raise UsageError(f"need repetition_penalty > 0, not {repetition_penalty}")


def finite(logit: float, token: int) -> int:
    """``token``. ItemError, stage "decode", if its logit, the largest, is not a number or infinite."""
    if not math.isfinite(logit):
        raise ItemError("decode", "the model's output is not finite; try --dtype float32 or bfloat16", "not_finite")
    return token


def make_sampler(temperature: float, seed: int) -> Callable[[Tensor], int]:
    """A function from logits [vocabulary] to a token id: greedy at temperature 0, else sampled with ``seed``.

    Sampling happens on the CPU in float32, so a seed means the same on every device.

    Raises (the returned function):
        ItemError: stage "decode", when a logit is not a number or infinite.
    """
    generator = torch.Generator().manual_seed(seed)

    def sample(logits: Tensor) -> int:
        best, index = logits.max(dim=-1)
        token = finite(best.item(), int(index))
        if temperature == 0:
            return token
        probabilities = torch.softmax(logits.to("cpu", torch.float32) / temperature, dim=-1)
        return int(torch.multinomial(probabilities, 1, generator=generator))

    return sample


class RepetitionPenalty:
    """The repetition penalty (CTRL, arXiv 1909.05858, section 4.1) as transformers' ``generate`` has it: of tokens that
    are in the prompt or the answer already, positive logits are divided by it, negative ones multiplied.

    Args:
        penalty: above 0; 1 changes nothing.
        prompts: the tokens of each question's whole prompt, those included that stand for pictures and sound.
    """

    def __init__(self, penalty: float, prompts: Sequence[Iterable[int]]):
        self._penalty, self._prompts = penalty, prompts
        self._seen: Tensor | None = None  # [questions, vocabulary]

    def apply(self, logits: Tensor, questions: Sequence[int], newest: Sequence[int | None]) -> Tensor:
        """Logits [m, vocabulary] of ``questions``, by number, after the penalty, in float32; as they are where it is 1.

        Args:
            newest: of each question, the token that was chosen last; None before the first.
        """
        if self._penalty == 1:
            return logits
        if self._seen is None:
            self._seen = torch.zeros(len(self._prompts), logits.shape[-1], dtype=torch.bool, device=logits.device)
            self._mark([(row, token) for row, prompt in enumerate(self._prompts) for token in prompt])
        self._mark([(row, token) for row, token in zip(questions, newest) if token is not None])
        scores = logits.to(torch.float32)
        penalized = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
        return torch.where(self._seen[list(questions)], penalized, scores)

    def _mark(self, places: Sequence[tuple[int, int]]) -> None:
        assert self._seen is not None
        if places:
            rows, tokens = torch.tensor(places, device=self._seen.device).unbind(1)
            self._seen[rows, tokens] = True


class TextStream:
    """Tokens in, text out, never half of a multi-byte character before the end.

    Pieces join to what decoding all tokens at once gives.
    """

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None] | None = None):
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._stream = DecodeStream(skip_special_tokens=True)
        self._tokens: list[int] = []
        self._text = ""

    def push(self, token: int) -> None:
        """Take one token; hand on the text that it completes."""
        self._tokens.append(token)
        self._emit(self._stream.step(self._tokenizer.backend_tokenizer, token))

    def close(self) -> str:
        """Hand on what is pending, complete or not, and return the whole text."""
        # DecodeStream never hands out an unfinished character at the end.
        text = self._tokenizer.decode(self._tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self._emit(text[len(self._text) :])
        return self._text

    def _emit(self, piece: str | None) -> None:
        if piece:
            self._text += piece
            if self._on_text is not None:
                self._on_text(piece)


@dataclass
class DecodeState:
    """One answer in the making; ``finish`` is "" until its last token, then "stop" or "length"."""

    sample: Callable[[Tensor], int]
    text: TextStream
    tokens: list[int] = field(default_factory=list)
    finish: str = ""

    def append(self, logits: Tensor, stop_ids: frozenset[int], max_new_tokens: int) -> None:
        """Choose the next token from ``logits`` [vocabulary]; sets ``finish`` when it is the last."""
        self.take(self.sample(logits), stop_ids, max_new_tokens)

    def take(self, token: int, stop_ids: frozenset[int], max_new_tokens: int) -> None:
        """Append ``token``; sets ``finish`` when it is the last."""
        if token in stop_ids:
            self.finish = "stop"
            return
        self.tokens.append(token)
        self.text.push(token)
        if len(self.tokens) == max_new_tokens:
            self.finish = "length"
