"""Quantized weights: which layers, how near the answers stay, and what is refused before anything is loaded or
fetched."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from helpers import tiny

from cg_cli import backbones
from cg_cli.backbones import device
from cg_cli.errors import UsageError
from cg_cli.settings import models

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_only_the_language_model_is_quantized(quantize, caplog):
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    caplog.clear()
    # Nano: blocks of 64 weights do not divide the layers of the smaller model that other tests take.
    options = {"device": "cpu", "dtype": "float32", "offline": True}
    backbone, quantized = (
        backbones.load(models.NANO.source, **options),
        backbones.load(models.NANO.source, **options, quantize=quantize),
    )
    kinds = {
        name: type(module).__module__
        for name, module in quantized.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    inside = {name for name, kind in kinds.items() if kind.startswith("bitsandbytes")}
    assert inside and all("language_model" in name for name in inside)
    assert {name for name in kinds if "language_model.layers" in name} == inside
    stream = backbone.encode(tiny.clip())
    assert torch.equal(quantized.encode(tiny.clip()).embeddings, stream.embeddings)  # the towers are as they were
    question_ids = backbone.question_ids("What?")
    ours, plain = (
        b.extend(question_ids, p.next_position, p.cache)
        for b, p in ((x, x.prefill(stream)) for x in (quantized, backbone))
    )
    assert (ours - plain).abs().max() > 0 and torch.nn.functional.cosine_similarity(ours, plain, dim=0) > (
        0.99 if quantize == "int8" else 0.8
    )
    assert len(quantized.answer(quantized.prefill(stream), "What?", max_new_tokens=4).token_ids) > 0
    assert not caplog.records  # a line a layer and token, otherwise


def test_what_cannot_be_quantized_is_refused_first(thinker_dir, monkeypatch, tmp_path):
    def fails(message: str, quantize: str = "int8", where: str = "cpu") -> None:
        with pytest.raises(UsageError, match=message):
            backbones.load(str(thinker_dir), device=where, dtype="float32", offline=True, quantize=quantize)

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("bitsandbytes", "accelerate") else find_spec(name)
    )
    fails("--quantize int2: give none, int8 or int4", "int2")
    fails(r"--quantize int8 needs bitsandbytes and accelerate: pip install 'cg-cli\[quantize\]'")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    fails("--quantize int8 works on CUDA and on the CPU, not on mps", where="mps")
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_omni_moe"}')
    with pytest.raises(UsageError, match="--quantize int4: the experts of this family are no linear layers"):
        backbones.load(str(tmp_path), device="cpu", dtype="float32", offline=True, quantize="int4")


def test_free_memory_is_told():
    free = device.free_bytes(torch.device("cpu"))
    assert free is None or free > 1 << 20
