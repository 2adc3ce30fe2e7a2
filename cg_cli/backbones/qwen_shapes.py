"""The shapes of Qwen2.5-Omni's thinkers, for models with random weights that cost what the real ones cost."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5OmniThinkerConfig

# Where 3B and 7B differ; the rest are the family's defaults, except the vision tower's width, whose default fits
# neither.
SIZES = {
    "3b": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
           "num_key_value_heads": 2, "vocab_size": 151936},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064},
}  # fmt: skip
VISION_WIDTH = 1280
ROTARY = {
    "rope_type": "default",
    "rope_theta": 1e6,
    "mrope_section": [16, 24, 24],
}  # pairs of a head's 128: time, height, width
POSITIONS = 32768


def config(size: str, layers: int | None) -> Qwen2_5OmniThinkerConfig:
    """The config of ``size``, cut to at most ``layers`` layers in the language model and in each tower."""
    text = SIZES[size] | {"max_position_embeddings": POSITIONS, "use_sliding_window": False, "rope_parameters": ROTARY}
    thinker = Qwen2_5OmniThinkerConfig(
        text_config=text,
        vision_config={"hidden_size": VISION_WIDTH, "out_hidden_size": text["hidden_size"]},
        audio_config={"output_dim": text["hidden_size"]},
        tie_word_embeddings=False,
    )
    if layers is not None:
        cut(thinker.text_config, thinker.vision_config, layers)
        thinker.audio_config.encoder_layers = min(layers, thinker.audio_config.encoder_layers)
    return thinker


def cut(text: Any, vision: Any, layers: int) -> None:
    """Cut a language model's and a windowed vision tower's config to at most ``layers`` layers, in place."""
    text.num_hidden_layers = min(layers, text.num_hidden_layers)
    text.layer_types = text.layer_types[:layers]
    vision.depth = min(layers, vision.depth)
    vision.fullatt_block_indexes = [i for i in vision.fullatt_block_indexes if i < layers]
