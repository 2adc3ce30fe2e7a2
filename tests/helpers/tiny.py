"""A tiny random Qwen2.5-Omni thinker on disk: the real classes and files, about a megabyte, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)

from cg_cli.media.clip import SAMPLE_RATE, Clip

MARKS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
PLAIN_MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CORPUS = (
    "system\nYou are a helpful assistant, capable of perceiving auditory and visual inputs.",
    "user\nWhat do you see and hear in this video? How many red balls are there?",
    "assistant\nA red ball rolls to the left while a bell rings twice.",
)
# ChatML with the placeholders of Qwen2.5-Omni's own template.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for c in m.content %}"
    "{% if c.type == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif c.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN = 64
WEIGHT_SCALE = 5.0  # fresh weights give flat logits, on which greedy decoding proves nothing


def tokenizer(marks: dict[str, str] = MARKS) -> Qwen2Tokenizer:
    """A byte-level BPE of a few hundred tokens with ``marks``, by default those of Qwen2.5-Omni."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    )
    bpe = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in bpe["merges"]]
    tok = Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=merges,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=marks,
    )
    tok.add_special_tokens({"additional_special_tokens": list(PLAIN_MARKS)}, replace_extra_special_tokens=False)
    tok.chat_template = CHAT_TEMPLATE
    return tok


def config(tok: Qwen2Tokenizer, layers: int = 2) -> Qwen2_5OmniThinkerConfig:
    """Two-layer towers, 64 wide, with the real geometry of patches, windows and audio blocks."""
    ids = tok.get_vocab()
    return Qwen2_5OmniThinkerConfig(
        text_config={
            "vocab_size": len(tok),
            "hidden_size": HIDDEN,
            "intermediate_size": 96,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": [1],
        },
        audio_config={
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "output_dim": HIDDEN,
        },
        image_token_index=ids["<|IMAGE|>"],
        video_token_index=ids["<|VIDEO|>"],
        audio_token_index=ids["<|AUDIO|>"],
        vision_start_token_id=ids["<|vision_bos|>"],
        vision_end_token_id=ids["<|vision_eos|>"],
        audio_start_token_id=ids["<|audio_bos|>"],
        audio_end_token_id=ids["<|audio_eos|>"],
    )


def build(directory: Path, *, seed: int = 0, layers: int = 2) -> Path:
    """Write a loadable thinker checkpoint with random weights and return its directory."""
    torch.manual_seed(seed)
    tok = tokenizer()
    model = Qwen2_5OmniThinkerForConditionalGeneration(config(tok, layers)).to(torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(WEIGHT_SCALE)
    model.generation_config = GenerationConfig(
        eos_token_id=tok.convert_tokens_to_ids("<|im_end|>"), pad_token_id=tok.convert_tokens_to_ids("<|endoftext|>")
    )
    model.save_pretrained(directory)
    tok.save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=128, chunk_length=300, return_attention_mask=True).save_pretrained(directory)
    return directory


def clip(
    frames: int | None = 4,
    height: int = 56,
    width: int = 84,
    seconds: float | None = 2.0,
    *,
    seconds_per_frame: float = 0.5,
    seed: int = 0,
) -> Clip:
    """A clip of noise pictures and noise sound; None leaves a track out."""
    random = np.random.default_rng(seed)
    pictures = times = sound = None
    if frames is not None:
        pictures = random.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        times = np.arange(frames) * seconds_per_frame
    if seconds is not None:
        sound = random.standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32) * 0.1
    return Clip(
        path="noise.mp4",
        frames=pictures,
        frame_times=times,
        seconds_per_frame=seconds_per_frame if frames is not None else 0.0,
        audio=sound,
        audio_status="used" if sound is not None else "absent",
        duration_s=max((frames or 0) * seconds_per_frame, seconds or 0.0),
        source_width=width if frames is not None else 0,
        source_height=height if frames is not None else 0,
    )
