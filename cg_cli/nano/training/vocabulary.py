"""More words for a trained nano: new tokens after the old ones, whose ids, and old texts, stay as they are.

A BPE applies its merges in their order. Those of new words come after all old ones, so a text that has none of the new
words reads as before; a test asks for that of every phrase and answer of the world of things.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker
from transformers import Qwen2Tokenizer

from cg_cli.nano.ambience.questions import PHRASES
from cg_cli.nano.ambience.script import Script
from cg_cli.nano.ambience.surfaces import HEARD, SURFACES
from cg_cli.nano.training.ambience import sound_labels, token_labels
from cg_cli.nano.training.recipe import CHAT_TEMPLATE, SPECIAL, TOKEN_SCALE, config
from cg_cli.nano.training.words import HEAD_SCALE


def forms(word: str) -> tuple[str, str]:
    """``word`` as an answer, and within a sentence."""
    return word, f" {word}"


def ambience_texts() -> list[str]:
    """The texts whose words are to be tokens: every phrase of the ambience world, and every surface."""
    fills = dict.fromkeys("abc", SURFACES[0])
    phrases = [phrase.format(**fills) for same in PHRASES.values() for phrase in same]
    return [*phrases, *(phrase[0].lower() + phrase[1:] for phrase in phrases), *sum(map(forms, SURFACES), ())]


def extended(tok: Qwen2Tokenizer, texts: Iterable[str]) -> Qwen2Tokenizer:
    """``tok`` with a token for each word of ``texts``, a word with the space before it."""
    state = json.loads(tok.backend_tokenizer.to_str())
    vocabulary = dict(sorted(tok.get_vocab().items(), key=lambda item: item[1]))
    merges = [tuple(merge) for merge in state["model"]["merges"]]
    split = tok.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    for word in dict.fromkeys(word for text in texts for word, _ in split(text)):
        pieces = tok.backend_tokenizer.model.tokenize(word) if word not in vocabulary else []
        whole = ""
        for piece in (piece.value for piece in pieces):
            if whole:
                merges.append((whole, piece))
                vocabulary.setdefault(whole + piece, len(vocabulary))
            whole += piece
        if pieces:
            tok = _tokenizer(vocabulary, merges)
    return tok


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Qwen2Tokenizer:
    tok = Qwen2Tokenizer(
        vocab=dict(vocabulary), merges=list(merges), unk_token=None, bos_token=None, eos_token="<|im_end|>",
        pad_token="<|endoftext|>", extra_special_tokens=SPECIAL,
    )  # fmt: skip
    tok.add_tokens(["<|im_start|>"], special_tokens=True)
    tok.chat_template = CHAT_TEMPLATE
    return tok


@torch.no_grad()
def grown(model: Thinker, old: Qwen2Tokenizer, new: Qwen2Tokenizer) -> Thinker:
    """``model``, which reads by ``old``, with rows for the tokens that only ``new`` has: each the mean of the rows of
    the old tokens that it replaces."""
    out = Thinker(config(new)).float()
    state = model.state_dict()
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        rows = out.state_dict()[name].clone()
        rows[: len(old)] = state[name]
        for i in range(len(old), len(new)):
            rows[i] = state[name][old(new.decode([i])).input_ids].mean(0)
        state[name] = rows
    out.load_state_dict(state)
    out.generation_config = model.generation_config
    return out


@torch.no_grad()
def name_surfaces(model: Thinker, tok: Qwen2Tokenizer, clips: Iterable[tuple[Script, dict[str, Tensor]]]) -> None:
    """Let each name of a surface start at the mean of the tokens that show it or sound like it, less that of all tokens
    (as ``words.name_words`` does for things)."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for script, features in clips:
        for name, tokens in _named_tokens(script, features):
            sums[name] = sums.get(name, torch.zeros(tokens.shape[1])) + tokens.float().sum(0)
            counts[name] = counts.get(name, 0) + len(tokens)
    means = {name: sums[name] / counts[name] for name in sums if counts[name]}
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    for surface in SURFACES:
        parts = [means[f"{way} {surface}"] - means[way] for way in ("video", "audio") if f"{way} {surface}" in means]
        if not parts:
            continue
        total = torch.stack([F.normalize(part, dim=0) for part in parts]).sum(0)
        vector = F.normalize(total, dim=0) * len(total) ** 0.5
        for form in forms(surface):
            (row,) = tok(form).input_ids
            embedding[row], head[row] = vector * TOKEN_SCALE, vector * HEAD_SCALE


def _named_tokens(script: Script, features: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """(what it shows or sounds like, tokens [n, D]); "video" and "audio" alone are all tokens."""
    labels = token_labels(script)
    ground = labels["ground"].where(labels["covered"] == 0, torch.tensor(0, dtype=torch.int16))
    yield "video", features["video"]
    yield "audio", features["audio"]
    for index, surface in enumerate(SURFACES, start=1):
        yield f"video {surface}", features["video"][ground == index]
    sounds = sound_labels(script)
    for index, surface in enumerate(HEARD):
        yield f"audio {surface}", features["audio"][sounds[:, index] > 0]
