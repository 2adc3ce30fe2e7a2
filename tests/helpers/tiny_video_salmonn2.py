"""A tiny random video-SALMONN 2+ on disk, in the keys and the flat config of the published checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from helpers import tiny

MARKS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "audio_token": "<|audio_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
}
MEL, WIDTH, FEED, INNER, OUTER = 128, 32, 48, 24, 40  # of Whisper and of the Q-Former
TEXT = {
    "hidden_size": tiny.HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128_000,
}
VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": tiny.HIDDEN,
    "fullatt_block_indexes": [1],
    "tokens_per_second": 2,
}
AUDIO = {
    "num_mel_bins": MEL,
    "d_model": WIDTH,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": FEED,
    "second_per_window": 0.5,
    "second_stride": 0.5,
    "qformer_config": {
        "hidden_size": INNER, "num_attention_heads": 3, "intermediate_size": OUTER, "encoder_width": WIDTH,
        "query_length": 1,
    },
}  # fmt: skip


def audio_weights() -> dict[str, torch.Tensor]:
    """Random weights under the published names."""
    linear, out = {}, {}

    def pair(name: str, wide: int, into: int, bias: bool = True) -> None:
        linear[name] = (into, wide, bias)

    for n in range(AUDIO["encoder_layers"]):
        layer = f"audio.layers.{n}"
        for part in "qkv":
            pair(f"{layer}.self_attn.{part}_proj", WIDTH, WIDTH, bias=part != "k")
        pair(f"{layer}.self_attn.out_proj", WIDTH, WIDTH)
        pair(f"{layer}.fc1", WIDTH, FEED)
        pair(f"{layer}.fc2", FEED, WIDTH)
    for n in range(2):
        layer = f"audio.qformer.bert.encoder.layer.{n}"
        for kind, source in (("attention", INNER), ("crossattention", WIDTH)):
            pair(f"{layer}.{kind}.self.query", INNER, INNER)
            pair(f"{layer}.{kind}.self.key", source, INNER)
            pair(f"{layer}.{kind}.self.value", source, INNER)
            pair(f"{layer}.{kind}.output.dense", INNER, INNER)
        pair(f"{layer}.intermediate_query.dense", INNER, OUTER)
        pair(f"{layer}.output_query.dense", OUTER, INNER)
    pair("audio.audio_proj", INNER, tiny.HIDDEN)
    for name, (into, wide, bias) in linear.items():
        out[f"{name}.weight"] = torch.randn(into, wide) / wide**0.5
        if bias:
            out[f"{name}.bias"] = 0.1 * torch.randn(into)
    norms = [
        "audio.layer_norm",
        *(f"audio.layers.{n}.{part}layer_norm" for n in range(2) for part in ("self_attn_", "final_")),
    ]
    inner = [f"audio.qformer.bert.encoder.layer.{n}.{part}.LayerNorm" for n in range(2) for part in
              ("attention.output", "crossattention.output", "output_query")]  # fmt: skip
    for name in (*norms, "audio.qformer.bert.embeddings.LayerNorm", *inner):
        size = INNER if "qformer" in name else WIDTH
        out |= {f"{name}.weight": 1 + 0.1 * torch.randn(size), f"{name}.bias": 0.1 * torch.randn(size)}
    out |= {
        "audio.conv1.weight": torch.randn(WIDTH, MEL, 3) / 20,
        "audio.conv1.bias": torch.randn(WIDTH) / 10,
        "audio.conv2.weight": torch.randn(WIDTH, WIDTH, 3) / 10,
        "audio.conv2.bias": torch.randn(WIDTH) / 10,
        "audio.embed_positions.weight": torch.randn(1500, WIDTH) / 4,
        "audio.q_tokens": torch.randn(1, 1, INNER),
        "audio.qformer.cls.predictions.bias": torch.zeros(7),  # never used
    }
    return out


def build(directory: Path) -> Path:
    """Write a merged checkpoint in two shards."""
    torch.manual_seed(2)  # with other seeds every question gets the same answer
    tok = tiny.tokenizer(MARKS)
    ids = tok.get_vocab()
    rotary = {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3]}
    marked = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    flat = TEXT | marked | {"vocab_size": len(tok), "rope_theta": 1e6, "rope_scaling": rotary}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**flat, vision_config=dict(VISION))).to(torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(tiny.WEIGHT_SCALE)
    model.generation_config = GenerationConfig(eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"])
    model.save_pretrained(directory)
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    assert {"model.layers.1.mlp.up_proj.weight", "visual.blocks.1.attn.qkv.weight", "lm_head.weight"} <= weights.keys()
    shards = {"model-00001-of-00002.safetensors": weights, "model-00002-of-00002.safetensors": audio_weights()}
    for name, part in shards.items():
        save_file(part, directory / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: name for name, part in shards.items() for key in part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    config = flat | {
        "model_type": "qwen2_5_vl",
        "architectures": ["video_SALMONN2_plus"],
        "tie_word_embeddings": False,
        "audio_token_id": ids["<|audio_pad|>"],
        "vision_config": VISION | {"model_type": "qwen2_5_vl"},
        "audio_config": AUDIO | {"model_type": "whisper"},
    }
    (directory / "config.json").write_text(json.dumps(config))
    norm = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (directory / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "Qwen2VLImageProcessor"} | norm)
    )
    tok.save_pretrained(directory)
    return directory
