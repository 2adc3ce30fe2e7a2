"""What a backbone is: a clip becomes a token stream, a stream a reusable prefix, a prefix and a question an answer."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cg_cli.backbones import decoding
from cg_cli.media.clip import Clip
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.decoder import DecoderPruner
from cg_cli.pruning.stream import TokenStream


@dataclass(frozen=True)
class Prefix:
    """The KV cache of one clip; it does not depend on the question and serves many.

    Attributes:
        cache: the family's KV cache with ``length`` entries; ``answer`` grows it and cuts it back.
        length: tokens in the cache, text included.
        next_position: rotary position of the question's first token.
        kv_bytes: bytes of keys and values.
    """

    cache: Any
    length: int
    next_position: int | float
    kv_bytes: int


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: what the model said, special tokens left out; "" when it stopped at once.
        token_ids: the tokens of the answer, without the one that stopped it.
        finish: "stop" (the model ended it) or "length" (``max_new_tokens`` did).
        question_tokens: tokens fed after the prefix: the question and the turn's marks.
        seconds_to_first_token: from the call to the first token's choice, question prefill included.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: str
    question_tokens: int
    seconds_to_first_token: float


@dataclass(frozen=True)
class LayerwisePrefill:
    """A clip and a question, read by layers that see fewer and fewer rows (decoder-stage pruning).

    Attributes:
        cache: the family's KV cache; its layers differ in length.
        logits: [vocabulary] after the question.
        rows: of each layer, how many rows it read.
        media: of these, how many are (video, audio).
        depth: [L] float32, of each row of the stream, the share of layers that read it.
        next_position: rotary position of the answer's first token.
        kv_bytes: bytes of keys and values.
        seconds: that reading took.
    """

    cache: Any
    logits: Tensor
    rows: tuple[int, ...]
    media: tuple[tuple[int, int], ...]
    depth: Tensor
    next_position: int | float
    kv_bytes: int
    seconds: float


class Backbone(ABC):
    """One loaded Omni-LLM. A family supplies the encoders, the prompt and one step of its decoder.

    Attributes:
        id: the model as it was asked for.
        revision: the hub's commit hash, or a short content hash of a local directory.
        device, dtype: where and in what the weights are.
        context_length: positions the model was made for; sound and pictures take some a second however much is pruned.
        hidden_size: width of a token embedding.
        prompt_version: changes whenever the words or marks around clip and question do, as answers then may too.
        warnings: one line each about how the model was loaded, for the record.
    """

    side_multiple: ClassVar[int]
    frame_multiple: ClassVar[int]
    prompt_version: ClassVar[str]

    id: str
    revision: str
    device: torch.device
    dtype: torch.dtype
    context_length: int
    hidden_size: int
    warnings: tuple[str, ...] = ()

    @classmethod
    @abstractmethod
    def media_tokens(cls, frames: int, height: int, width: int, samples: int) -> tuple[int, int, int]:
        """How many (grids, video tokens, audio tokens) a clip becomes: ``frames`` of ``height`` x ``width`` pixels, and
        ``samples`` of sound."""

    @abstractmethod
    def encode(self, clip: Clip) -> TokenStream:
        """Run the encoders: the clip as the language model would read it, up to and with the end-of-media mark.

        Raises:
            ItemError: stage "encode", when there is neither picture nor sound.
        """

    @abstractmethod
    def prefill(self, stream: TokenStream) -> Prefix:
        """Run the language model over a stream, pruned or not, and keep its KV cache. Computes no logits.

        A row that stands for several tokens weighs as many in attention, here and in everything that follows.
        """

    @abstractmethod
    def prefill_layerwise(
        self, stream: TokenStream, question: str, pruner: DecoderPruner, budget: Budget
    ) -> LayerwisePrefill:
        """Run the language model over a stream and a question, dropping rows between layers as ``pruner`` says.

        Raises:
            ValueError: rows that stand for several tokens, which no such pruner has been made for.
        """

    @abstractmethod
    def encode_flops(self, clip: Clip) -> tuple[int, int]:
        """Operations that ``encode(clip)`` takes: (vision, audio)."""

    @abstractmethod
    def prefill_bytes(self, tokens: int) -> int:
        """Bytes of memory that ``prefill`` of so many rows takes at least, beside the weights."""

    @abstractmethod
    def decoder_flops(self, new: int, past: int, logit_rows: int) -> int:
        """Operations for ``new`` tokens after ``past`` cached ones, with logits for ``logit_rows`` of them."""

    @abstractmethod
    def layer_flops(self, new: int, past: int) -> int:
        """Operations of one layer for ``new`` tokens after ``past`` cached ones."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The transformers tokenizer (byte-level)."""

    @property
    @abstractmethod
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""

    @abstractmethod
    def question_ids(self, question: str) -> list[int]:
        """Tokens after the prefix: the question, typed marks kept as plain text, and the start of the answer's turn."""

    @abstractmethod
    def step(self, ids: Sequence[int], position: float, cache: Any) -> Tensor:
        """Feed text tokens at positions ``position``, ``position + 1`` ...; grows ``cache``.

        Returns:
            Logits [vocabulary] after the last token.
        """

    @abstractmethod
    def decode_step(
        self, ids: Sequence[int], positions: Sequence[float], seen: Tensor, last: Sequence[int], cache: Any
    ) -> Tensor:
        """Feed text tokens of several questions in one go; grows ``cache`` by n entries.

        Args:
            ids, positions: [n], tokens and their rotary positions.
            seen: [n, cached + n] bool, True where a token attends to an entry of the cache or to one of these tokens.
            last: [m] places in ``ids``.

        Returns:
            Logits [m, vocabulary] after the tokens at ``last``.
        """

    def answer(
        self,
        prefix: Prefix,
        question: str,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """Answer one question; the prefix is as before afterwards, also after an exception or an interrupt.

        Args:
            prefix: from ``prefill``; not usable by two threads at once.
            question: plain text.
            max_new_tokens: at least 1.
            temperature: 0 takes the likeliest token; above, tokens are drawn with ``seed``.
            on_text: called with every new piece of text; pieces never hold half a character and join to the text.

        Raises:
            UsageError: ``max_new_tokens`` or ``temperature`` makes no sense.
            ItemError: stage "decode", when the logits are not finite.
        """
        decoding.check(max_new_tokens, temperature)
        started = time.perf_counter()
        question_ids = self.question_ids(question)
        state = decoding.DecodeState(
            decoding.make_sampler(temperature, seed), decoding.TextStream(self.tokenizer, on_text)
        )
        try:
            logits = self.step(question_ids, prefix.next_position, prefix.cache)
            first_s = self._generate(
                state, logits, prefix.next_position + len(question_ids), prefix.cache, max_new_tokens, started
            )
        finally:
            decoding.cut_back(prefix.cache, prefix.length)
        return Generation(state.text.close(), tuple(state.tokens), state.finish, len(question_ids), first_s)

    def answer_layerwise(
        self,
        narrowed: LayerwisePrefill,
        question: str,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """The answer to the question that ``narrowed`` has read; its cache grows, and serves no other. As ``answer``
        otherwise."""
        decoding.check(max_new_tokens, temperature)
        started = time.perf_counter()
        state = decoding.DecodeState(
            decoding.make_sampler(temperature, seed), decoding.TextStream(self.tokenizer, on_text)
        )
        first_s = self._generate(
            state, narrowed.logits, narrowed.next_position, narrowed.cache, max_new_tokens, started
        )
        return Generation(
            state.text.close(), tuple(state.tokens), state.finish, len(self.question_ids(question)), first_s
        )

    def _generate(
        self,
        state: decoding.DecodeState,
        logits: Tensor,
        position: float,
        cache: Any,
        max_new_tokens: int,
        started: float,
    ) -> float:
        """Choose tokens from ``logits`` on until ``state`` is finished. Returns the seconds from ``started`` to the
        first choice."""
        state.append(logits, self.stop_ids, max_new_tokens)
        first_s = time.perf_counter() - started
        while state.finish is None:
            state.append(self.step(state.tokens[-1:], position, cache), self.stop_ids, max_new_tokens)
            position += 1
        return first_s

    def answer_all(
        self, prefix: Prefix, questions: Sequence[str], *, max_new_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Generation]:
        """Answer several questions side by side: what ``answer`` says to each, in fewer and larger steps.

        The questions follow the prefix in one sequence; each sees the prefix and itself, at the positions it would have
        alone. ``seconds_to_first_token`` is the time until all first tokens were there. Raises as ``answer`` does.
        """
        decoding.check(max_new_tokens, temperature)
        started = time.perf_counter()
        asked = [self.question_ids(question) for question in questions]
        states = [
            decoding.DecodeState(decoding.make_sampler(temperature, seed), decoding.TextStream(self.tokenizer))
            for _ in asked
        ]
        owner = torch.tensor([number for number, ids in enumerate(asked) for _ in ids], dtype=torch.long)
        ids = [token for own in asked for token in own]
        positions = [prefix.next_position + place for own in asked for place in range(len(own))]
        seen = (owner[:, None] == owner) & torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
        last = (torch.tensor([len(own) for own in asked]).cumsum(0) - 1).tolist() if asked else []
        first_s, active = 0.0, list(range(len(asked)))
        try:
            while active:
                seen = torch.cat([torch.ones(len(ids), prefix.length, dtype=torch.bool), seen], dim=1)
                logits = self.decode_step(ids, positions, seen.to(self.device), last, prefix.cache)
                for number, row in zip(active, logits):
                    states[number].append(row, self.stop_ids, max_new_tokens)
                first_s = first_s or time.perf_counter() - started
                active = [number for number in active if states[number].finish is None]
                ids = [states[number].tokens[-1] for number in active]
                positions = [prefix.next_position + len(asked[n]) + len(states[n].tokens) - 1 for n in active]
                last = list(range(len(active)))
                owner = torch.cat([owner, torch.tensor(active, dtype=torch.long)])
                seen = torch.tensor(active, dtype=torch.long)[:, None] == owner
        finally:
            decoding.cut_back(prefix.cache, prefix.length)
        return [
            Generation(state.text.close(), tuple(state.tokens), state.finish, len(own), first_s)
            for state, own in zip(states, asked)
        ]
