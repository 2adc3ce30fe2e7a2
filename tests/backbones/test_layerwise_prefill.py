"""Layer-wise prefill: equal to the plain one where nothing is dropped, and to masked keys where something is."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from helpers.pruner_matrix import DECODER_CASES

from cg_cli.errors import UsageError
from cg_cli.pruning import registry
from cg_cli.pruning.budget import Budget, plan
from cg_cli.pruning.decoder import DecoderPruner, LayerView
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO, apply

QUESTION = "What do you see?"


class Scripted(DecoderPruner):
    """Drops every ``n``-th media row after the layers in ``plan`` {layer: n}, and keeps the views."""

    def __init__(self, plan: dict[int, int]):
        object.__setattr__(self, "plan", plan)
        object.__setattr__(self, "views", [])

    def after(self, view: LayerView, budget: Budget):
        self.views.append(view)
        if view.layer not in self.plan:
            return None
        count = view.media.cumsum(0)
        return ((~view.media) | (count % self.plan[view.layer] != 0)).nonzero()[:, 0]


@pytest.fixture(scope="module")
def stream(backbone):
    return backbone.encode(tiny.clip(6, 56, 84, 3.0))


def test_with_nothing_dropped_it_is_the_plain_prefill(backbone, stream):
    pruner = Scripted({})
    prefilled = backbone.prefill_layerwise(stream, QUESTION, pruner, plan(stream, 1.0))
    prefix = backbone.prefill(stream)
    expected = backbone.answer(prefix, QUESTION, max_new_tokens=12)
    assert backbone.answer_layerwise(prefilled, QUESTION, max_new_tokens=12).token_ids == expected.token_ids
    question_ids = backbone.question_ids(QUESTION)
    torch.testing.assert_close(
        prefilled.logits, backbone.extend(question_ids, prefix.next_position, prefix.cache), atol=2e-5, rtol=1e-4
    )
    layers = len(backbone.model.model.language_model.layers)
    assert prefilled.rows == (len(stream) + len(question_ids),) * layers and len(pruner.views) == layers
    assert prefilled.media == (((stream.modality == VIDEO).sum(), (stream.modality == AUDIO).sum()),) * layers
    assert sum(backbone.layer_flops(n, 0) for n in prefilled.rows) == backbone.decoder_flops(
        len(stream) + len(question_ids), 0, 0
    )


def reference(backbone, stream, question, drops: dict[int, int], answer: list[int]) -> torch.Tensor:
    """Logits after the question and each token of ``answer``, with a mask a layer over the full sequence, no cache."""
    decoder = backbone.model.model.language_model
    ids = backbone.question_ids(question) + answer
    hidden = torch.cat([stream.embeddings, backbone.model.get_input_embeddings()(torch.tensor(ids))])[None]
    positions = torch.cat([stream.positions, (torch.arange(len(ids)) + stream.next_position).expand(3, -1)], dim=1)
    rotary = decoder.rotary_emb(hidden, positions[:, None])
    media = torch.cat([stream.modality != TEXT, torch.zeros(len(ids), dtype=torch.bool)])
    remaining = torch.ones(hidden.shape[1], dtype=torch.bool)
    for number, layer in enumerate(decoder.layers):
        mask = remaining & torch.ones(len(remaining), len(remaining), dtype=torch.bool).tril()
        mask |= torch.eye(len(mask), dtype=torch.bool)  # a dropped row attends to itself: nothing is undefined
        hidden = layer(hidden, attention_mask=mask[None, None], position_embeddings=rotary)
        if number in drops:
            count = (media & remaining).cumsum(0)
            remaining = remaining & ~(media & remaining & (count % drops[number] == 0))
    return backbone.model.lm_head(decoder.norm(hidden[0, -len(answer) - 1 :]))


@pytest.mark.parametrize("drops", [{0: 2}, {0: 3, 1: 2}])
def test_dropping_between_layers_equals_masking_the_keys_from_there_on(backbone, stream, drops):
    prefilled = backbone.prefill_layerwise(stream, QUESTION, Scripted(drops), plan(stream, 1.0))
    first, position = prefilled.logits, prefilled.next_position
    answer, ours = [int(first.argmax())], [first]
    for _ in range(3):
        ours.append(backbone.extend(answer[-1:], position, prefilled.cache))
        answer.append(int(ours[-1].argmax()))
        position += 1
    with torch.no_grad():
        expected = reference(backbone, stream, QUESTION, drops, answer[:-1])
    torch.testing.assert_close(torch.stack(ours), expected, atol=5e-5, rtol=1e-4)
    assert list(prefilled.rows) == sorted(prefilled.rows, reverse=True) and prefilled.rows[-1] < prefilled.rows[0]


def test_the_attention_that_a_pruner_sees_is_the_layers_own(backbone, stream):
    pruner, attentions = Scripted({0: 2}), []

    def record(view, budget, real=pruner.after):
        attentions.append(view.attention(torch.arange(len(view.modality))))
        return real(view, budget)

    object.__setattr__(pruner, "after", record)
    backbone.prefill_layerwise(stream, QUESTION, pruner, plan(stream, 1.0))
    decoder, config = backbone.model.model.language_model, backbone.model.config
    ids = backbone.question_ids(QUESTION)
    rows = torch.cat([stream.embeddings, backbone.model.get_input_embeddings()(torch.tensor(ids))])
    positions = torch.cat([stream.positions, (torch.arange(len(ids)) + stream.next_position).expand(3, -1)], dim=1)
    kinds = [part for part in (config, config.text_config, decoder.config) if hasattr(part, "_attn_implementation")]
    before = [part._attn_implementation for part in kinds]
    try:
        for part in kinds:
            part._attn_implementation = "eager"
        mask = torch.full((len(rows), len(rows)), torch.finfo(torch.float32).min).triu(1)[None, None]
        with torch.no_grad():
            rotary = decoder.rotary_emb(rows[None], positions[:, None])
            layer = decoder.layers[0]
            _, weights = layer.self_attn(
                layer.input_layernorm(rows[None]), attention_mask=mask, position_embeddings=rotary
            )
    finally:
        for part, kind in zip(kinds, before):
            part._attn_implementation = kind
    torch.testing.assert_close(attentions[0], weights[0].mean(0), atol=1e-5, rtol=1e-3)
    assert attentions[1].shape[0] == attentions[1].shape[1] < attentions[0].shape[0]
    torch.testing.assert_close(attentions[1].sum(-1), torch.ones(len(attentions[1])))


@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_fastv_keeps_the_budget_and_what_the_last_token_attends_to(backbone, stream, keep):
    budget, pruner, views = plan(stream, keep), registry.make("fastv", layer=1), []

    class Watched(type(pruner)):
        def after(self, view, budget):
            out = super().after(view, budget)
            if out is not None:
                views.append((view, out))
            return out

    prefilled = backbone.prefill_layerwise(stream, QUESTION, Watched(layer=1), budget)
    assert sum(prefilled.media[-1]) == budget.count
    ((view, kept_rows),) = views
    assert view.layer == 0 and (kept_rows[1:] > kept_rows[:-1]).all()
    attention = view.attention(torch.tensor([len(view.modality) - 1]))[0]
    kept = torch.zeros(len(view.modality), dtype=torch.bool).scatter(0, kept_rows, True)
    assert kept[~view.media].all()
    assert attention[view.media & kept].min() >= attention[view.media & ~kept].max()
    text = len(stream) - int((stream.modality != TEXT).sum()) + view.question
    assert prefilled.rows[0] == len(stream) + view.question and set(prefilled.rows[1:]) == {budget.count + text}


@pytest.mark.parametrize("case", DECODER_CASES, ids=str)
@pytest.mark.parametrize("keep", [1.0, 0.45, 0.1])
def test_the_contract_of_a_pruner_between_layers(backbone, stream, case, keep):
    pruner, budget = case.make(), plan(stream, keep)
    assert pruner.stage == "decoder" and pruner.needs_question
    entered = apply(stream, pruner.select(stream, budget))
    prefilled, again = (backbone.prefill_layerwise(entered, QUESTION, pruner, budget) for _ in range(2))
    assert sum(pruner.kept(prefilled.media)) == budget.count  # exactly
    assert torch.equal(prefilled.logits, again.logits) and prefilled.rows == again.rows
    text = int((stream.modality == TEXT).sum()) + len(backbone.question_ids(QUESTION))
    assert prefilled.rows == tuple(sum(media) + text for media in prefilled.media)  # no text is ever dropped
    layers = len(prefilled.rows)
    for number, media in enumerate(prefilled.media):  # a row's depth says which layers read it
        read = (prefilled.depth * layers + 1e-3).long() > number
        assert tuple(int((read & (entered.modality == kind)).sum()) for kind in (VIDEO, AUDIO)) == media
    assert list(prefilled.rows) == sorted(prefilled.rows, reverse=True)
    if keep == 1:
        whole = backbone.prefill_layerwise(stream, QUESTION, Scripted({}), budget)
        assert torch.equal(prefilled.logits, whole.logits)


def test_fastv_needs_a_layer_before_it():
    with pytest.raises(UsageError, match="layer must be at least 1"):
        registry.make("fastv", layer=0)
