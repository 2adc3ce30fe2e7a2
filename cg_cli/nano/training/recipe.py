"""The nano model before training: a Qwen2.5-Omni Thinker config and its tokenizer, in the official file layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from torch import nn
from transformers import (
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)

from cg_cli.backbones.qwen2_5_omni.layout import SYSTEM_PROMPT
from cg_cli.nano.questions import PHRASES, questions
from cg_cli.nano.script import write_script
from cg_cli.nano.things import AUDIBLE, COLOURS, COUNTS, PLACES, SILENT, VERBS

VOCABULARY = 1024
HIDDEN = 256
TOKEN_SCALE = 0.3  # root mean square of every kind of token before training, so that none drowns the others
SPECIAL = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (  # ChatML; content is text, or parts of type video, audio and text
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif c.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ c.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _corpus() -> list[str]:
    """Text that the tokenizer should know by the word: every phrase and answer of the world, and some plain English."""
    rng = np.random.default_rng(0)
    lines = [SYSTEM_PROMPT, "system\n", "user\n", "assistant\n"]
    for index in range(400):
        for question in questions(write_script(0, index)):
            lines += [question.text(rng), question.answer, question.text(rng).lower()]
    words = [*AUDIBLE, *SILENT, *COLOURS, *COUNTS, *PLACES, *VERBS.values(), *sum(PHRASES.values(), ())]
    return lines * 3 + [f"{w} {w.capitalize()} {w}s" for w in words] * 20


def tokenizer() -> Qwen2Tokenizer:
    """A byte-level BPE with Qwen's pre-tokenizer and special tokens."""
    bpe = Tokenizer(models.BPE())
    split = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[]).backend_tokenizer
    bpe.normalizer, bpe.pre_tokenizer = normalizers.NFC(), split.pre_tokenizer
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = VOCABULARY - len(SPECIAL) - len(CHAT)
    bpe.train_from_iterator(
        _corpus(), trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False)
    )
    trained = json.loads(bpe.to_str())["model"]
    tok = Qwen2Tokenizer(
        vocab=trained["vocab"], merges=[tuple(m) for m in trained["merges"]], unk_token=None, bos_token=None,
        eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=SPECIAL,
    )  # fmt: skip
    tok.add_tokens(list(CHAT), special_tokens=True)
    tok.chat_template = CHAT_TEMPLATE
    return tok


def config(tok: Qwen2Tokenizer) -> Qwen2_5OmniThinkerConfig:
    """Sizes of nano. Everything that the 7B model has is there, narrower and with fewer layers."""
    ids = tok.convert_tokens_to_ids
    return Qwen2_5OmniThinkerConfig(
        text_config={
            "hidden_size": HIDDEN, "intermediate_size": 768, "num_hidden_layers": 5, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": len(tok), "max_position_embeddings": 32768,
            "use_sliding_window": False,
            # Order words need some temporal frequencies that are slow; finding a thing by its name from a question
            # hundreds of positions away needs many that hardly turn at all. Hence the real model's theta, and half for
            # time.
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 8, 8]},
            "tie_word_embeddings": False, "pad_token_id": tok.pad_token_id, "bos_token_id": None,
            "eos_token_id": tok.eos_token_id,
        },
        vision_config={
            "depth": 4, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4, "out_hidden_size": HIDDEN,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
            "fullatt_block_indexes": [1, 3],
        },
        audio_config={
            "num_mel_bins": 128, "d_model": 128, "encoder_layers": 2, "encoder_attention_heads": 4,
            "encoder_ffn_dim": 256, "n_window": 100, "output_dim": HIDDEN, "max_source_positions": 1500,
        },
        image_token_id=ids("<|IMAGE|>"), video_token_id=ids("<|VIDEO|>"), audio_token_id=ids("<|AUDIO|>"),
        vision_start_token_id=ids("<|vision_bos|>"), vision_end_token_id=ids("<|vision_eos|>"),
        audio_start_token_id=ids("<|audio_bos|>"), audio_end_token_id=ids("<|audio_eos|>"),
        position_id_per_seconds=25, seconds_per_chunk=2, initializer_range=0.02,
    )  # fmt: skip


def feature_extractor() -> WhisperFeatureExtractor:
    """The official Omni settings."""
    return WhisperFeatureExtractor(
        feature_size=128, chunk_length=300, hop_length=160, n_fft=400, return_attention_mask=True
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random initialization from ``seed`` that leaves the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def blank(seed: int) -> tuple[Qwen2_5OmniThinkerForConditionalGeneration, Qwen2Tokenizer]:
    """Nano with random weights, float32, and its tokenizer."""
    tok = tokenizer()
    with seeded(seed):
        model = Qwen2_5OmniThinkerForConditionalGeneration(config(tok)).float()
        nn.init.normal_(model.get_input_embeddings().weight, std=TOKEN_SCALE)
    return model, tok


def save(model: Qwen2_5OmniThinkerForConditionalGeneration, tok: Qwen2Tokenizer, folder: Path) -> None:
    """Write the files of a Thinker checkpoint in bfloat16, as the hub has them."""
    model.generation_config.eos_token_id = [tok.eos_token_id, tok.pad_token_id]
    model.generation_config.pad_token_id = tok.pad_token_id
    state = model.state_dict()
    clone = Qwen2_5OmniThinkerForConditionalGeneration(config(tok)).to(torch.bfloat16)  # without training's attention
    clone.load_state_dict(state)
    clone.generation_config = model.generation_config
    clone.save_pretrained(folder)
    tok.save_pretrained(folder)
    feature_extractor().save_pretrained(folder)
