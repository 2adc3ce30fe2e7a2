"""A tiny random Qwen3-Omni on disk, in the keys and files of the published checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GenerationConfig,
    Qwen2Tokenizer,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from helpers import tiny

MARKS = {
    "image_token": "<|image_pad|>",
    "audio_token": "<|audio_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}
EXPERTS = 6


def config(tok: Qwen2Tokenizer) -> Qwen3OmniMoeThinkerConfig:
    """Three-layer decoder, two deepstack layers, 64 wide, with the real geometry of patches and audio chunks."""
    ids = tok.get_vocab()
    return Qwen3OmniMoeThinkerConfig(
        text_config={
            "vocab_size": len(tok),
            "hidden_size": tiny.HIDDEN,
            "intermediate_size": 24,
            "moe_intermediate_size": 24,
            "num_experts": EXPERTS,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [6, 5, 5], "mrope_interleaved": True
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": tiny.HIDDEN,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 2],
        },
        audio_config={
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "output_dim": tiny.HIDDEN,
            "downsample_hidden_size": 8,
        },
        position_id_per_seconds=13,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        audio_token_id=ids["<|audio_pad|>"],
        audio_start_token_id=ids["<|audio_start|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip


def build(directory: Path) -> Path:
    """Write a full checkpoint: two shards under ``thinker.`` with an expert a key, one with the talker and the
    vocoder."""
    torch.manual_seed(0)
    tok = tiny.tokenizer(MARKS)
    model = Qwen3OmniMoeThinkerForConditionalGeneration(config(tok)).to(torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.mul_(tiny.WEIGHT_SCALE)
    model.generation_config = GenerationConfig(eos_token_id=tok.convert_tokens_to_ids("<|im_end|>"))
    model.save_pretrained(directory)
    weights = {f"thinker.{name}": weight for name, weight in load_file(directory / "model.safetensors").items()}
    (directory / "model.safetensors").unlink()
    assert f"thinker.model.layers.2.mlp.experts.{EXPERTS - 1}.gate_proj.weight" in weights  # the published keys
    assert "thinker.visual.merger_list.1.mlp.0.weight" in weights and "thinker.lm_head.weight" in weights
    names = sorted(weights)
    shards = {
        "model-00001-of-00003.safetensors": {name: weights[name] for name in names[::2]},
        "model-00002-of-00003.safetensors": {name: weights[name] for name in names[1::2]},
        "model-00003-of-00003.safetensors": {"talker.head.weight": torch.zeros(4, 4), "code2wav.x": torch.zeros(2)},
    }
    for name, part in shards.items():
        save_file(part, directory / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: name for name, part in shards.items() for key in part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    thinker = json.loads((directory / "config.json").read_text())
    text = thinker["text_config"]  # the published file is older than rope_parameters
    text["rope_scaling"] = text.pop("rope_parameters")
    text["rope_theta"] = text["rope_scaling"].pop("rope_theta")
    full = {
        "model_type": "qwen3_omni_moe",
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "thinker_config": thinker,
    }
    (directory / "config.json").write_text(json.dumps(full))
    tok.save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=128, chunk_length=300, return_attention_mask=True).save_pretrained(directory)
    path = directory / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return directory
