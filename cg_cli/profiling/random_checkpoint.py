"""A checkpoint of a real model's shape with random weights, for what has to load one from a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cg_cli.settings import models


def write(folder: Path, name: str, layers: int, dtype: str) -> None:
    """Write a checkpoint in the shape of ``name`` with ``layers`` layers of each part, some gigabytes, to ``folder``.

    It answers with words without a meaning, and never ends an answer by itself.
    """
    backbone: Any = models.random_init(name, layers, device="cpu", dtype=dtype)
    _never_silent(backbone)
    _name_tokens(backbone)
    for part in (backbone.model, backbone.tokenizer, backbone._extractor):
        part.save_pretrained(folder)


def _never_silent(backbone: Any) -> None:
    """Tokens that end an answer, and those that are no word of the tokenizer, get logits of 0, less than the largest of
    the others."""
    tokenizer, head = backbone.tokenizer, backbone.model.lm_head.weight
    texts = (tokenizer.decode([token], skip_special_tokens=True) for token in range(len(tokenizer)))
    blank = [token for token, text in enumerate(texts) if not text.strip()]
    with torch.no_grad():
        head[len(tokenizer) :] = 0
        head[blank] = 0


def _name_tokens(backbone: Any) -> None:
    """Put the ids of the tokenizer's media tokens into the config, where transformers looks for them."""
    ids = backbone.tokenizer.get_vocab()
    for kind in ("image", "video", "audio"):
        setattr(backbone.model.config, f"{kind}_token_id", ids[f"<|{kind.upper()}|>"])
    for kind in ("vision", "audio"):
        for end, name in (("start", "bos"), ("end", "eos")):
            setattr(backbone.model.config, f"{kind}_{end}_token_id", ids[f"<|{kind}_{name}|>"])
