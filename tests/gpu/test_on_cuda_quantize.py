"""Quantized weights on a device: near the answers of the others, in less memory."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from helpers.official import logits_of

from cg_cli import backbones
from cg_cli.settings import models

QUESTION = "What do you see?"


@pytest.mark.slow
@pytest.mark.parametrize("quantize, near", [("int8", 0.98), ("int4", 0.8)])
def test_quantized_answers_are_near_and_weights_smaller(load, device, quantize, near):
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    plain = load(device, "bfloat16")
    small = backbones.load(models.NANO.source, device=device, dtype="bfloat16", offline=True, quantize=quantize)
    stream = plain.encode(tiny.clip())
    ours, expected = (logits_of(b, b.prefill(stream), QUESTION, [0])[0].float() for b in (small, plain))
    assert torch.nn.functional.cosine_similarity(ours, expected, dim=0) > near
    sizes = [sum(p.nbytes for p in b.model.model.language_model.layers.parameters()) for b in (small, plain)]
    assert sizes[0] < 0.6 * sizes[1]
    assert small.answer(small.prefill(stream), QUESTION, max_new_tokens=4).token_ids
