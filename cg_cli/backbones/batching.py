"""Decoding the questions of several clips together: one step of the language model for all of them.

A row of the batch is a clip: its padded KV cache, then the tokens of its questions side by side, each of which attends
to the prefix and to its own question. What ``Backbone.answer`` says to each question, in fewer and larger steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cg_cli.backbones import decoding
from cg_cli.backbones.base import Backbone, Generation, Prefix
from cg_cli.backbones.batch_cache import ROOM, BatchCache

NOBODY = -1  # owner of an entry that pads
# (ids [B, n], positions [B, n], mask [B, 1, n, filled + n], cache, rows, columns) -> logits [m, vocabulary] after the
# tokens at ``rows`` and ``columns``; extends ``cache``.
Step = Callable[[Tensor, Tensor, Tensor, BatchCache, list[int], list[int]], Tensor]


class _Question:
    """One question: the row of its clip, its tokens, and its answer so far."""

    def __init__(self, number: int, row: int, ids: list[int], start: float, state: decoding.DecodeState):
        self.number, self.row, self.ids, self.start, self.state = number, row, ids, start, state
        self.seconds = self.first_s = 0.0

    def pending(self) -> tuple[list[int], float]:
        """The tokens that are fed next, and the position of the first."""
        tokens = self.state.tokens
        if not tokens:
            return self.ids, self.start
        return tokens[-1:], self.start + len(self.ids) + len(tokens) - 1


def answer_batch(
    backbone: Backbone,
    step: Step,
    config: Any,
    prefixes: Sequence[Prefix],
    questions: Sequence[tuple[int, str]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[tuple[int, Generation, float]]:
    """See ``Backbone.answer_batch``. ``config`` is the language model's, ``step`` feeds it."""
    decoding.check(max_new_tokens, temperature)
    device = backbone.device
    active = []
    for number, (row, text) in enumerate(questions):
        state = decoding.DecodeState(decoding.make_sampler(temperature, seed), decoding.TextStream(backbone.tokenizer))
        active.append(_Question(number, row, backbone.question_ids(text), prefixes[row].next_position, state))
    cache = BatchCache(
        config,
        [prefix.cache for prefix in prefixes],
        [prefix.length for prefix in prefixes],
        ROOM + max(sum(len(q.ids) for q in active if q.row == row) for row in range(len(prefixes))),
    )
    owner = torch.empty(len(prefixes), 0, dtype=torch.long)  # which question each entry after the prefix is of
    began = last = time.perf_counter()
    while active:
        pieces: list[list[tuple[_Question, list[int], float]]] = [[] for _ in range(len(owner))]
        for question in active:
            pieces[question.row].append((question, *question.pending()))
        width = max(sum(len(tokens) for _, tokens, _ in piece) for piece in pieces)
        ids = torch.zeros(len(pieces), width, dtype=torch.long)
        positions = torch.zeros(len(pieces), width)
        new_owner = torch.full((len(pieces), width), NOBODY)
        place: dict[int, tuple[int, int]] = {}
        for number, piece in enumerate(pieces):
            at = 0
            for question, tokens, start in piece:
                stop = at + len(tokens)
                ids[number, at:stop] = torch.tensor(tokens)
                positions[number, at:stop] = torch.arange(len(tokens)) + start
                new_owner[number, at:stop] = question.number
                place[question.number] = (number, stop - 1)
                at = stop
        mask = _mask(cache, owner, new_owner, backbone.dtype).to(device)
        last_rows, last_columns = zip(*(place[question.number] for question in active))
        logits = step(ids.to(device), positions.to(device), mask, cache, list(last_rows), list(last_columns))
        cache.advance(width)
        owner = torch.cat([owner, new_owner], dim=1)
        _append(active, logits, temperature, backbone.stop_ids, max_new_tokens)
        now = time.perf_counter()
        share, last = (now - last) / len(active), now
        for question in active:
            question.seconds += share
            question.first_s = question.first_s or now - began
        for question in [question for question in active if question.state.finish]:
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


def _mask(cache: BatchCache, owner: Tensor, new_owner: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the logits of attention, [rows, 1, n, filled + n]: a token attends to the prefix of its row, and
    to the tokens of its own question that are not after it."""
    rows, width = new_owner.shape
    lowest = torch.finfo(dtype).min
    prefix = cache.bias.to(dtype).clamp_min(lowest)[:, None].expand(rows, width, cache.start)
    before = new_owner[:, :, None] == owner[:, None]
    among = (new_owner[:, :, None] == new_owner[:, None]) & torch.ones(width, width, dtype=torch.bool).tril()
    after = torch.cat([before, among], dim=2).to(cache.bias.device)
    own = torch.zeros(after.shape, dtype=dtype, device=after.device).masked_fill(~after, lowest)
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
