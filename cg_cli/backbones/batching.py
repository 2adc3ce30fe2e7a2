"""Decoding: questions on one clip or several, in steps of the language model that all of them share.

A row of the batch is a clip: its padded KV cache, then the tokens of its questions side by side, each of which attends
to the prefix and to its own question, at the positions that it would have alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cg_cli.backbones import decoding
from cg_cli.backbones.batch_cache import ROOM, BatchCache
from cg_cli.backbones.decoding import Generation
from cg_cli.backbones.step_graph import GraphedStep

if TYPE_CHECKING:
    from cg_cli.backbones.base import Backbone, Prefix

BLOCK = 2048  # tokens of a clip's questions that are fed at once, as the mask grows with their square
NOBODY, FREE = -1, -2  # owners of an entry that pads, and of one that is not in use


class _Question:
    """One question: the row of its clip, its tokens, how many of them were fed, and its answer so far."""

    def __init__(self, number: int, row: int, ids: list[int], start: float, state: decoding.DecodeState):
        self.number, self.row, self.ids, self.start, self.state = number, row, ids, start, state
        self.fed = 0
        self.seconds = self.first_s = 0.0

    def take(self, most: int) -> tuple[list[int], float]:
        """The tokens that are fed next, ``most`` at most, and the position of the first."""
        tokens = [*self.ids, *self.state.tokens][self.fed : self.fed + most]
        first, self.fed = self.start + self.fed, self.fed + len(tokens)
        return tokens, first

    @property
    def is_read(self) -> bool:
        """Whether all of it was fed, so that the next token can be chosen."""
        return self.fed == len(self.ids) + len(self.state.tokens)


def answer_batch(
    backbone: Backbone,
    prefixes: Sequence[Prefix],
    questions: Sequence[tuple[int, str]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    repetition_penalty: float | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Iterator[tuple[int, Generation, float]]:
    """See ``Backbone.answer_batch``.

    Args:
        on_text: told each piece of text as it is generated, of whichever question.
    """
    penalty = backbone.repetition_penalty if repetition_penalty is None else repetition_penalty
    decoding.check(max_new_tokens, temperature, penalty)
    if not questions:
        return
    began = last = time.perf_counter()
    active = []
    for number, (row, text) in enumerate(questions):
        state = decoding.DecodeState(
            decoding.make_sampler(temperature, seed), decoding.TextStream(backbone.tokenizer, on_text)
        )
        active.append(_Question(number, row, backbone.question_ids(text), prefixes[row].next_position, state))
    repetition = decoding.RepetitionPenalty(penalty, [{*prefixes[q.row].prompt_ids, *q.ids} for q in active])
    rows = range(len(prefixes))
    cache = BatchCache(
        [prefix.cache for prefix in prefixes],
        [prefix.length for prefix in prefixes],
        max(sum(len(q.ids) + min(max_new_tokens, ROOM) for q in active if q.row == row) for row in rows),
        static=backbone.graphs,
    )
    step = GraphedStep(backbone.batch_step, cache)
    owner = torch.empty(len(prefixes), 0, dtype=torch.long)  # which question each entry after the prefix is of
    least = 0  # columns of a step
    while active:
        ids, positions, new_owner, place = _next_tokens(active, len(owner), least)
        width = ids.shape[1]
        owner = torch.cat([owner, new_owner], dim=1)
        mask = _mask(cache, owner, width)
        fed = [question for question in active if question.is_read]
        # After all of them, where that leaves the shape as it is when questions finish.
        every = cache.static and all(question.state.tokens for question in active)
        chosen = list(range(ids.numel())) if every else [place[question.number] for question in fed]
        least = width // 2 + 1 if every else 0  # shapes that stay save more than columns that leave
        logits = step(
            ids.to(backbone.device),
            positions.to(backbone.device),
            mask,
            torch.tensor(chosen, dtype=torch.long, device=backbone.device),
        )
        cache.advance(width)
        at = {flat: number for number, flat in enumerate(chosen)}
        logits = logits[[at[place[question.number]] for question in fed]]
        newest = [question.state.tokens[-1] if question.state.tokens else None for question in fed]
        logits = repetition.apply(logits, [question.number for question in fed], newest)
        _append(fed, logits, temperature, backbone.stop_ids, max_new_tokens)
        now = time.perf_counter()
        share, last = (now - last) / len(active), now
        for question in active:
            question.seconds += share
        for question in fed:
            question.first_s = question.first_s or now - began
        for question in [question for question in fed if question.state.finish]:
            state = question.state
            generation = Generation(
                state.text.close(), tuple(state.tokens), state.finish, len(question.ids), question.first_s
            )
            yield question.number, generation, question.seconds
        active = [question for question in active if not question.state.finish]
        busy = sorted({question.row for question in active})
        if busy and 2 * len(busy) <= len(owner):  # copying what is left pays when it is half
            cache.keep_rows(busy)
            owner = owner[busy]
            moved = {row: number for number, row in enumerate(busy)}
            for question in active:
                question.row = moved[question.row]


def _next_tokens(active: Sequence[_Question], rows: int, least: int) -> tuple[Tensor, Tensor, Tensor, dict[int, int]]:
    """What is fed next: tokens, positions and owners [rows, n], with ``n`` at least ``least``; and of each question,
    where its last token is among the rows * n."""
    pieces: list[list[tuple[_Question, list[int], float]]] = [[] for _ in range(rows)]
    left = [BLOCK] * rows
    for question in active:
        tokens, start = question.take(left[question.row])
        left[question.row] -= len(tokens)
        pieces[question.row].append((question, tokens, start))
    width = max(least, BLOCK - min(left))
    ids = torch.zeros(rows, width, dtype=torch.long)
    positions = torch.zeros(rows, width)
    owner = torch.full((rows, width), NOBODY)
    place: dict[int, int] = {}
    for row, piece in enumerate(pieces):
        at = 0
        for question, tokens, start in piece:
            stop = at + len(tokens)
            ids[row, at:stop] = torch.tensor(tokens, dtype=torch.long)
            positions[row, at:stop] = torch.arange(len(tokens)) + start
            owner[row, at:stop] = question.number
            place[question.number] = row * width + stop - 1
            at = stop
    return ids, positions, owner, place


def _mask(cache: BatchCache, owner: Tensor, new: int) -> Tensor:
    """What is added to the logits of attention for the ``new`` last entries, [rows, 1, new, entries]: a token attends
    to the prefix of its row, and to the tokens of its own question that are not after it."""
    rows, fed = owner.shape
    dtype, lowest = cache.bias.dtype, torch.finfo(cache.bias.dtype).min
    prefix = cache.bias[:, None].expand(rows, new, cache.start)
    entries = cache.reserve(new) - cache.start
    owner = torch.nn.functional.pad(owner, (0, entries - fed), value=FREE)
    order = torch.arange(entries)
    allowed = (owner[:, fed - new : fed, None] == owner[:, None]) & (order <= order[fed - new : fed, None])
    own = torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, lowest).to(cache.bias.device)
    return torch.cat([prefix, own], dim=2)[:, None]


def _append(
    active: Sequence[_Question], logits: Tensor, temperature: float, stop_ids: frozenset[int], max_new_tokens: int
) -> None:
    """Choose the next token of each question from logits [m, vocabulary], with one wait for the device."""
    if temperature == 0:  # the best token is all that is needed of them
        best, index = logits.max(dim=-1)
        chosen = torch.stack([best.double(), index.double()]).tolist()
        for question, value, token in zip(active, *chosen):
            question.state.take(decoding.finite(value, int(token)), stop_ids, max_new_tokens)
        return
    for question, row in zip(active, logits.to("cpu", torch.float32)):
        question.state.append(row, stop_ids, max_new_tokens)
