"""The interface of a backbone: a clip becomes a token stream, a stream a reusable prefix (KV cache), a prefix and a
question an answer."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from cg_cli.backbones import decoding
from cg_cli.media.clip import Clip
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.decoder import DecoderPruner
from cg_cli.pruning.stream import TokenStream

if TYPE_CHECKING:
    from cg_cli.backbones.checkpoint import Checkpoint

QUESTION_BLOCK = 2048  # tokens of questions that are read at once


@dataclass(frozen=True)
class Prefix:
    """The KV cache of one clip; it does not depend on the question and serves many.

    Attributes:
        cache: the family's KV cache with ``length`` entries; ``answer`` extends and truncates it.
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


@dataclass(frozen=True)
class LayerwisePrefill:
    """A clip and a question after layer-wise prefill, in which later layers read fewer rows (decoder-stage pruning).

    Attributes:
        cache: the family's KV cache; its layers differ in length.
        logits: [vocabulary] after the question.
        rows: how many rows each layer read.
        media: of these, how many are (video, audio).
        depth: [L] float32, for each row of the stream, the share of layers that read it.
        next_position: rotary position of the answer's first token.
        kv_bytes: bytes of keys and values.
        seconds: that the prefill took.
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
    """One loaded Omni-LLM. A family supplies the encoders, the prompt and the forward pass of its decoder.

    Attributes:
        family: name of the family, as records give it.
        side_multiple: of a frame's height and width in pixels.
        frame_multiple: frames of a grid.
        prompt_version: changes whenever the words or special tokens around clip and question do, as answers then may.
        id: the model's name: what it was loaded by.
        revision: the hub's commit hash, or a short content hash of a local directory.
        device, dtype: of the weights.
        context_length: positions the model was made for; sound and pictures take some a second however much is pruned.
        hidden_size: width of a token embedding.
        warnings: one line each about how the model was loaded, for the record.
    """

    family: ClassVar[str]
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
    def load(cls, checkpoint: Checkpoint, *, device: str, dtype: str, quantize: str) -> Self:
        """Load the weights and the tokenizer of ``checkpoint``; the arguments are those of ``backbones.load``.

        Raises:
            UsageError: files that cannot be read, incomplete weights, or too little memory.
        """

    @classmethod
    @abstractmethod
    def random_init(cls, size: str, layers: int | None, *, device: str, dtype: str, tokenizer: Path) -> Self:
        """A model in the built-in shape ``size`` with random weights; see ``backbones.random_init``."""

    @classmethod
    @abstractmethod
    def media_tokens(cls, frames: int, height: int, width: int, samples: int) -> tuple[int, int, int]:
        """Counts (grids, video tokens, audio tokens) of a clip with ``frames`` of ``height`` x ``width`` pixels and
        ``samples`` of sound."""

    @abstractmethod
    def encode(self, clip: Clip) -> TokenStream:
        """Run the encoders: the clip as the language model would read it, up to and with the end-of-media token.

        Raises:
            ItemError: stage "encode", when there is neither picture nor sound.
        """

    @abstractmethod
    def prefill(self, stream: TokenStream) -> Prefix:
        """Run the language model over a stream, pruned or not, and keep its KV cache. Computes no logits.

        A merged token gets log(merge size) added to its attention logits (proportional attention), here and in
        everything that follows.
        """

    @abstractmethod
    def prefill_layerwise(
        self, stream: TokenStream, question: str, pruner: DecoderPruner, budget: Budget
    ) -> LayerwisePrefill:
        """Run the language model over a stream and a question, dropping rows between layers as ``pruner`` selects.

        Raises:
            ValueError: a stream with merged tokens, which no such pruner supports.
        """

    @abstractmethod
    def encode_flops(self, clip: Clip) -> tuple[int, int]:
        """Operations that ``encode(clip)`` takes: (vision, audio)."""

    @abstractmethod
    def prefill_bytes(self, tokens: int) -> int:
        """Bytes of memory that ``prefill`` of ``tokens`` rows takes at least, beside the weights."""

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
        """Tokens after the prefix: the question, special tokens in it as plain text, and the start of the answer's
        turn."""

    @abstractmethod
    def extend(self, ids: Sequence[int], position: float, cache: Any) -> Tensor:
        """Feed text tokens at positions ``position``, ``position + 1`` ...; extends ``cache``.

        Returns:
            Logits [vocabulary] after the last token.
        """

    @abstractmethod
    def decode_step(
        self,
        ids: Sequence[int],
        positions: Sequence[float],
        attention_mask: Tensor,
        last_index: Sequence[int],
        cache: Any,
    ) -> Tensor:
        """Feed text tokens of several questions, packed into one sequence; extends ``cache`` by n entries.

        Args:
            ids, positions: [n], tokens and their rotary positions.
            attention_mask: [n, cached + n] bool, True where a token attends to an entry of the cache or to one of
                these tokens.
            last_index: [m], indices into ``ids``.

        Returns:
            Logits [m, vocabulary] after the tokens at ``last_index``.
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
            temperature: 0 is greedy; above, tokens are sampled with ``seed``.
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
            # In blocks, as the attention of all its tokens to all of them takes memory in the square.
            for start in range(0, len(question_ids), QUESTION_BLOCK):
                block = question_ids[start : start + QUESTION_BLOCK]
                logits = self.extend(block, prefix.next_position + start, prefix.cache)
            first_s = self._generate(
                state, logits, prefix.next_position + len(question_ids), prefix.cache, max_new_tokens, started
            )
        finally:
            decoding.truncate(prefix.cache, prefix.length)
        return Generation(state.text.close(), tuple(state.tokens), state.finish, len(question_ids), first_s)

    def answer_batch(
        self,
        prefixes: Sequence[Prefix],
        questions: Sequence[tuple[int, str]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[tuple[int, Generation, float]]:
        """Answer questions on several clips together, as far as the family can: here, clip by clip.

        Args:
            prefixes: of the clips; they are as before afterwards.
            questions: each with the number of its prefix.

        Yields:
            The number of a question, its answer, and its share of the seconds, as each is done. Raises as ``answer``.
        """
        for number, prefix in enumerate(prefixes):
            own = [at for at, (of, _) in enumerate(questions) if of == number]
            began = time.perf_counter()
            texts = [questions[at][1] for at in own]
            answers = self.answer_all(prefix, texts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
            share = (time.perf_counter() - began) / max(len(own), 1)
            for at, answer in zip(own, answers):
                yield at, answer, share

    def answer_layerwise(
        self,
        prefilled: LayerwisePrefill,
        question: str,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """Answer the question that ``prefilled`` holds, as ``answer`` does; its cache grows and cannot be reused."""
        decoding.check(max_new_tokens, temperature)
        started = time.perf_counter()
        state = decoding.DecodeState(
            decoding.make_sampler(temperature, seed), decoding.TextStream(self.tokenizer, on_text)
        )
        first_s = self._generate(
            state, prefilled.logits, prefilled.next_position, prefilled.cache, max_new_tokens, started
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
        """Sample tokens from ``logits`` on until ``state`` is finished. Returns the seconds from ``started`` to the
        first token."""
        state.append(logits, self.stop_ids, max_new_tokens)
        first_s = time.perf_counter() - started
        while not state.finish:
            state.append(self.extend(state.tokens[-1:], position, cache), self.stop_ids, max_new_tokens)
            position += 1
        return first_s

    def answer_all(
        self, prefix: Prefix, questions: Sequence[str], *, max_new_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Generation]:
        """Answer several questions in one packed batch: what ``answer`` says to each, in fewer and larger steps.

        The questions follow the prefix in one sequence; each attends to the prefix and itself, at the positions it
        would have alone. ``seconds_to_first_token`` is the time until all first tokens are there. Raises as ``answer``
        does.
        """
        decoding.check(max_new_tokens, temperature)
        started = time.perf_counter()
        question_ids = [self.question_ids(question) for question in questions]
        states = [
            decoding.DecodeState(decoding.make_sampler(temperature, seed), decoding.TextStream(self.tokenizer))
            for _ in question_ids
        ]
        # Which question each token after the prefix belongs to.
        owner = torch.tensor([number for number, ids in enumerate(question_ids) for _ in ids], dtype=torch.long)
        ids = [token for own in question_ids for token in own]
        positions = [prefix.next_position + offset for own in question_ids for offset in range(len(own))]
        mask = (owner[:, None] == owner) & torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
        lengths = torch.tensor([len(own) for own in question_ids], dtype=torch.long)
        last_index = (lengths.cumsum(0) - 1).tolist()
        first_s, active = 0.0, list(range(len(question_ids)))
        try:
            while active:
                mask = torch.cat([torch.ones(len(ids), prefix.length, dtype=torch.bool), mask], dim=1)
                logits = self.decode_step(ids, positions, mask.to(self.device), last_index, prefix.cache)
                for number, row in zip(active, logits):
                    states[number].append(row, self.stop_ids, max_new_tokens)
                first_s = first_s or time.perf_counter() - started
                active = [number for number in active if not states[number].finish]
                ids = [states[number].tokens[-1] for number in active]
                positions = [prefix.next_position + len(question_ids[n]) + len(states[n].tokens) - 1 for n in active]
                last_index = list(range(len(active)))
                owner = torch.cat([owner, torch.tensor(active, dtype=torch.long)])
                mask = torch.tensor(active, dtype=torch.long)[:, None] == owner
        finally:
            decoding.truncate(prefix.cache, prefix.length)
        return [
            Generation(state.text.close(), tuple(state.tokens), state.finish, len(own), first_s)
            for state, own in zip(states, question_ids)
        ]
