"""Questions on several clips, decoded together, get the answers that they get alone."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from test_proportional_attention import merged

from cg_cli.backbones import step_graph
from cg_cli.backbones.batch_cache import BatchCache
from cg_cli.errors import ItemError, UsageError

NEW = 12
QUESTIONS = ["What do you see?", " hear the bell", "How many red balls are there?", "Why?"]
CLIPS = [
    tiny.clip(6, 56, 84, 3.0),
    tiny.clip(2, 28, 56, 1.0, seed=1),
    tiny.clip(8, 84, 56, None, seed=2),
    tiny.clip(None, seconds=2.0, seed=3),
]
ASKED = [
    (0, QUESTIONS[0]),
    (1, QUESTIONS[1]),
    (1, QUESTIONS[2]),
    (2, QUESTIONS[0]),
    (3, QUESTIONS[3]),
    (0, QUESTIONS[2]),
]


@pytest.fixture(params=["plain", "merged"])
def prefixes(backbone, request):
    """Of clips of different lengths, without and with merged tokens."""
    streams = [backbone.encode(clip) for clip in CLIPS]
    if request.param == "merged":
        streams = [
            merged(stream) if number % 2 == 0 else stream for number, stream in enumerate(streams[:3])
        ] + streams[3:]
    return [backbone.prefill(stream) for stream in streams]


def state(prefix):
    return [(layer.keys.clone(), layer.values.clone()) for layer in prefix.cache.layers]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "seed": 3}], ids=["greedy", "sampled"])
def test_together_is_as_alone(backbone, prefixes, sampling):
    before = [state(prefix) for prefix in prefixes]
    alone = [backbone.answer(prefixes[row], text, max_new_tokens=NEW, **sampling) for row, text in ASKED]
    done = list(backbone.answer_batch(prefixes, ASKED, max_new_tokens=NEW, **sampling))
    together = {number: generation for number, generation, _ in done}
    assert sorted(together) == list(range(len(ASKED)))
    for number, one in enumerate(alone):
        other = together[number]
        assert (one.token_ids, one.text, one.finish, one.question_tokens) == (
            other.token_ids, other.text, other.finish, other.question_tokens,
        )  # fmt: skip
    assert all(seconds > 0 for *_, seconds in done)
    for prefix, layers in zip(prefixes, before):  # what is shared is as it was
        assert len(prefix.cache.layers[0].keys[0, 0]) == prefix.length
        for layer, (keys, values) in zip(prefix.cache.layers, layers):
            assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)


def test_answers_come_as_they_are_done_and_rows_leave(backbone, prefixes, monkeypatch):
    """Clips of which every question is answered are not fed any more, once they are half."""
    alone = [backbone.answer(prefixes[row], text, max_new_tokens=NEW).token_ids for row, text in ASKED]
    monkeypatch.setattr(backbone, "_stop_ids", backbone.stop_ids | {alone[0][2], alone[3][4]})
    alone = [backbone.answer(prefixes[row], text, max_new_tokens=NEW).token_ids for row, text in ASKED]
    rows, step = [], backbone.batch_step
    monkeypatch.setattr(backbone, "batch_step", lambda ids, *more: rows.append(len(ids)) or step(ids, *more))
    done = [(number, one.token_ids) for number, one, _ in backbone.answer_batch(prefixes, ASKED, max_new_tokens=NEW)]
    assert dict(done) == dict(enumerate(alone)) and len({len(tokens) for tokens in alone}) > 1
    assert [len(tokens) for _, tokens in done] == sorted(map(len, alone))  # the short ones first
    assert rows[0] == len(prefixes) and rows == sorted(rows, reverse=True)


def test_what_follows_is_written_in_place_and_room_is_made(backbone, prefixes):
    caches, lengths = [prefix.cache for prefix in prefixes], [prefix.length for prefix in prefixes]
    cache = BatchCache(caches, lengths, room=3)
    heads, dim = caches[0].layers[0].keys.shape[1], caches[0].layers[0].keys.shape[3]
    fed = [torch.randn(len(prefixes), heads, width, dim) for width in (2, 1, 4)]
    place = cache._keys[0].data_ptr()
    for number, new in enumerate(fed):
        assert cache.reserve(new.shape[2]) == cache.filled + new.shape[2]
        for layer in range(len(caches[0].layers)):
            keys, values = cache.update(new, -new, layer)
        cache.advance(new.shape[2])
        assert torch.equal(keys[:, :, max(lengths) :], torch.cat(fed[: number + 1], dim=2))
        assert torch.equal(values[:, :, max(lengths) :], -keys[:, :, max(lengths) :])
        assert (cache._keys[0].data_ptr() == place) == (number < 2)  # only the last one needs more room
    cache.keep_rows([1, 3])
    assert torch.equal(cache._keys[0][1, :, : lengths[3]], caches[3].layers[0].keys[0])
    assert cache.get_seq_length() == max(lengths) + 7


class Replayed:
    """Stands in for a recorded step: computes anew with the tensors that it was made with, as a graph would."""

    made = 0

    def __init__(self, step, ids, positions, mask, cache, last):
        Replayed.made += 1
        self.step, self.cache = step, cache
        self.inputs = [x.clone() for x in (ids, positions, mask, cache.slots, last)]

    def replay(self, *inputs):
        for own, new in zip(self.inputs, inputs):
            own.copy_(new)
        ids, positions, mask, self.cache.slots, last = self.inputs
        return self.step(ids, positions, mask, self.cache, last)


@pytest.mark.parametrize("room", [3, 64])
def test_steps_with_shapes_that_stay_give_the_same(backbone, prefixes, monkeypatch, room):
    """What CUDA graphs need of the steps, without CUDA: with little room, what was recorded is recorded again."""
    monkeypatch.setattr("cg_cli.backbones.batch_cache.ROOM", room)
    monkeypatch.setattr("cg_cli.backbones.batching.ROOM", room)
    alone = [backbone.answer(prefixes[row], text, max_new_tokens=NEW).token_ids for row, text in ASKED]
    monkeypatch.setattr(backbone, "_stop_ids", backbone.stop_ids | {alone[0][2], alone[3][4]})
    alone = [backbone.answer(prefixes[row], text, max_new_tokens=NEW).token_ids for row, text in ASKED]
    monkeypatch.setattr(backbone, "graphs", True)
    monkeypatch.setattr(step_graph, "_Recorded", Replayed)
    Replayed.made, shapes, step = 0, [], backbone.batch_step

    def recording(ids, positions, mask, *more):
        shapes.append(mask.shape)
        return step(ids, positions, mask, *more)

    monkeypatch.setattr(backbone, "batch_step", recording)
    done = {number: one.token_ids for number, one, _ in backbone.answer_batch(prefixes, ASKED, max_new_tokens=NEW)}
    assert done == dict(enumerate(alone))
    changes = sum(one != other for one, other in zip(shapes[1:], shapes))
    assert 0 < Replayed.made <= changes and (room == 3 or changes <= 4)  # rows leave twice, columns once
    one = backbone.answer(prefixes[0], QUESTIONS[0], max_new_tokens=NEW)
    assert one.token_ids == alone[0]


def unrecordable(*_):
    raise RuntimeError("not permitted\nat all")


def test_steps_that_cannot_be_recorded_go_on_as_they_are(backbone, prefixes, monkeypatch, caplog):
    alone = [backbone.answer(prefixes[row], text, max_new_tokens=NEW).token_ids for row, text in ASKED]
    monkeypatch.setattr(backbone, "graphs", True)
    monkeypatch.setattr(
        step_graph, "_Recorded", lambda *_: (_ for _ in ()).throw(RuntimeError("not permitted\nat all"))
    )
    done = {number: one.token_ids for number, one, _ in backbone.answer_batch(prefixes, ASKED, max_new_tokens=NEW)}
    assert done == dict(enumerate(alone))
    assert [record.getMessage() for record in caplog.records] == [
        "decoding goes on without CUDA graphs, and slower: not permitted"
    ]


def test_what_is_wrong_is_told_as_for_one(backbone, prefixes, monkeypatch):
    with pytest.raises(UsageError, match="max_new_tokens"):
        list(backbone.answer_batch(prefixes, ASKED, max_new_tokens=0))
    monkeypatch.setattr(backbone.model.lm_head, "forward", lambda rows: torch.full((*rows.shape[:-1], 5), torch.nan))
    with pytest.raises(ItemError, match="not finite"):
        list(backbone.answer_batch(prefixes, ASKED, max_new_tokens=NEW))
