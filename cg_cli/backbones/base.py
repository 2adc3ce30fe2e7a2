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

from cg_cli.backbones import batching, decoding
from cg_cli.backbones.batch_cache import BatchCache
from cg_cli.backbones.decoding import Generation
from cg_cli.backbones.generation import GenerationSettings
from cg_cli.media.clip import Clip
from cg_cli.pruning.budget import Budget
from cg_cli.pruning.decoder import DecoderPruner
from cg_cli.pruning.stream import TokenStream

if TYPE_CHECKING:
    from cg_cli.backbones.checkpoint import Checkpoint


@dataclass(frozen=True)
class Prefix:
    """The KV cache of one clip; it does not depend on the question and serves many.

    Attributes:
        cache: the family's KV cache with ``length`` entries; answers are decoded in a copy of it.
        length: tokens in the cache, text included.
        next_position: rotary position of the question's first token.
        kv_bytes: bytes of keys and values.
        prompt_ids: ``TokenStream.prompt_ids``.
    """

    cache: Any
    length: int
    next_position: int | float
    kv_bytes: int
    prompt_ids: frozenset[int] = frozenset()


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
        prompt_ids: ``TokenStream.prompt_ids``.
    """

    cache: Any
    logits: Tensor
    rows: tuple[int, ...]
    media: tuple[tuple[int, int], ...]
    depth: Tensor
    next_position: int | float
    kv_bytes: int
    seconds: float
    prompt_ids: frozenset[int] = frozenset()


class Backbone(ABC):
    """One loaded Omni-LLM. A family supplies the encoders, the prompt and the forward pass of its decoder.

    Attributes:
        family: name of the family, as records give it.
        side_multiple: of a frame's height and width in pixels.
        frame_multiple: frames of a grid.
        audio_on_clock, stereo_gain: how it wants its sound, as in ``DecodeOptions``.
        prompt_version: changes whenever the words or special tokens around clip and question do, as answers then may.
        id: the model's name: what it was loaded by.
        revision: the hub's commit hash, or a short content hash of a local directory.
        device, dtype: of the weights.
        context_length: positions the model was made for; sound and pictures take some a second however much is pruned.
        hidden_size: width of a token embedding.
        warnings: one line each about how the model was loaded, for the record.
        generation: what the checkpoint says about choosing tokens.
        positions: of ``Family.positions``, the set in use; None for a family with one.
        adapter: the LoRA adapter that was merged into it; its hash or commit is part of ``revision``.
        graphs: whether ``batch_step`` is recorded as a CUDA graph: on a CUDA device, and not where what is computed
            depends on data.
    """

    family: ClassVar[str]
    side_multiple: ClassVar[int]
    frame_multiple: ClassVar[int]
    audio_on_clock: ClassVar[bool] = True
    stereo_gain: ClassVar[float] = 0.5
    prompt_version: ClassVar[str]

    id: str
    revision: str
    device: torch.device
    dtype: torch.dtype
    context_length: int
    hidden_size: int
    warnings: tuple[str, ...] = ()
    generation: GenerationSettings = GenerationSettings()
    positions: str | None = None
    adapter: str | None = None
    graphs: bool = False

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

    @property
    def repetition_penalty(self) -> float:
        """What answers are generated with unless something else is asked for; 1 is none."""
        return self.generation.repetition_penalty

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
    def batch_step(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: BatchCache, last: Tensor) -> Tensor:
        """Feed text tokens to several clips; writes n entries to ``cache``, which knows their places.

        Args:
            ids, positions: [B, n], tokens and their rotary positions.
            mask: [B, 1, n, L], what is added to the logits of attention to the entries of the cache.
            last: [m] int64, indices into the B * n tokens.

        Returns:
            Logits [m, vocabulary] after the tokens ``last``.
        """

    def answer(
        self,
        prefix: Prefix,
        question: str,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        repetition_penalty: float | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """Answer one question; the prefix stays as it is.

        Args:
            prefix: from ``prefill``.
            question: plain text.
            max_new_tokens: at least 1.
            temperature: 0 is greedy; above, tokens are sampled with ``seed``.
            repetition_penalty: above 0; 1 is off, None is what the checkpoint says.
            on_text: called with every new piece of text; pieces never hold half a character and join to the text.

        Raises:
            UsageError: ``max_new_tokens``, ``temperature`` or ``repetition_penalty`` makes no sense.
            ItemError: stage "decode", when the logits are not finite.
        """
        ((_, generation, _),) = batching.answer_batch(
            self,
            [prefix],
            [(0, question)],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            repetition_penalty=repetition_penalty,
            on_text=on_text,
        )
        return generation

    def answer_all(
        self,
        prefix: Prefix,
        questions: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        repetition_penalty: float | None = None,
    ) -> list[Generation]:
        """Answer several questions side by side: what ``answer`` says to each, in fewer and larger steps. Raises as
        ``answer``."""
        asked = [(0, question) for question in questions]
        answers = self.answer_batch(
            [prefix],
            asked,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            repetition_penalty=repetition_penalty,
        )
        by_number = {number: generation for number, generation, _ in answers}
        return [by_number[number] for number in range(len(questions))]

    def answer_batch(
        self,
        prefixes: Sequence[Prefix],
        questions: Sequence[tuple[int, str]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        repetition_penalty: float | None = None,
    ) -> Iterator[tuple[int, Generation, float]]:
        """Answer questions on several clips together.

        Args:
            prefixes: of the clips; they are as before afterwards.
            questions: each with the number of its prefix.

        Yields:
            The number of a question, its answer, and its share of the seconds, as each is done. Raises as ``answer``.
        """
        yield from batching.answer_batch(
            self,
            prefixes,
            questions,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            repetition_penalty=repetition_penalty,
        )

    def answer_layerwise(
        self,
        prefilled: LayerwisePrefill,
        question: str,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        repetition_penalty: float | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """Answer the question that ``prefilled`` holds, as ``answer`` does; its cache grows and cannot be reused."""
        penalty = self.repetition_penalty if repetition_penalty is None else repetition_penalty
        decoding.check(max_new_tokens, temperature, penalty)
        started = time.perf_counter()
        asked = self.question_ids(question)
        repetition = decoding.RepetitionPenalty(penalty, [{*prefilled.prompt_ids, *asked}])
        state = decoding.DecodeState(
            decoding.make_sampler(temperature, seed), decoding.TextStream(self.tokenizer, on_text)
        )

        def append(logits: Tensor) -> None:
            newest = state.tokens[-1] if state.tokens else None
            state.append(repetition.apply(logits[None], [0], [newest])[0], self.stop_ids, max_new_tokens)

        append(prefilled.logits)
        first_s, position = time.perf_counter() - started, prefilled.next_position
        while not state.finish:
            append(self.extend(state.tokens[-1:], position, prefilled.cache))
            position += 1
        return Generation(state.text.close(), tuple(state.tokens), state.finish, len(asked), first_s)
