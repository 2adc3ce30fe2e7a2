"""The formulas against torch's own operation counter, exactly. It counts whole rectangles of queries and keys: causal
attention is counted by what its kernel skips, and by tokens that are fed one at a time, which leave nothing to skip."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import tiny
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import (
    Qwen2_5OmniAudioEncoderConfig,
    Qwen2_5OmniTextConfig,
    Qwen2_5OmniVisionEncoderConfig,
)
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerTextModel
from transformers.utils import logging as transformers_logging

from cg_cli import backbones
from cg_cli.backbones import cost, qwen_inputs
from cg_cli.pruning.stream import VIDEO, Selection, apply

QWEN_3B = dict(
    hidden_size=2048, intermediate_size=11008, num_attention_heads=16, num_key_value_heads=2, vocab_size=151936
)
QWEN_7B = dict(
    hidden_size=3584, intermediate_size=18944, num_attention_heads=28, num_key_value_heads=4, vocab_size=152064
)


def fused_attention(
    query: Any, key: Any, value: Any, dropout: float = 0.0, is_causal: bool = False, out_shape: Any = None, **_: Any
) -> int:
    """Two products of [rows, head_dim] and [head_dim, keys], for each head of each sequence; in causal order without
    the keys after each row."""
    batch, heads, rows, head_dim = query
    skipped = sum(range(rows)) if is_causal else 0
    return 2 * 2 * batch * heads * (rows * key[2] - skipped) * head_dim


def grouped_product(rows: Any, matrices: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Each of [rows, in] with one of the matrices [group, in, out]."""
    return 2 * rows[0] * rows[1] * matrices[2]


# torch has no formulas for the CPU's fused attention and for products by group, and would count them as nothing.
UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused_attention,
    torch.ops.aten._grouped_mm: grouped_product,
}


def counted(function: Any, *args: Any, **kwargs: Any) -> int:
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter, torch.no_grad():
        function(*args, **kwargs)
    return counter.get_total_flops()


def counted_one_by_one(backbone: Any, ids: list[int], prefix: Any) -> int:
    """Of a question's tokens after a prefix, with one row of logits; extends the prefix's cache."""
    steps = [counted(backbone.extend, [token], prefix.next_position + at, prefix.cache) for at, token in enumerate(ids)]
    return sum(steps) - (len(ids) - 1) * backbone.decoder_flops(0, 0, 1)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    transformers_logging.disable_progress_bar()
    directory = tiny.build(tmp_path_factory.mktemp("cost"))
    return backbones.load(str(directory), device="cpu", dtype="float32", offline=True)


@pytest.mark.parametrize(("grids", "height", "width"), [(1, 4, 4), (2, 8, 16), (3, 14, 22), (1, 2, 40)])
def test_vision(backbone, grids, height, width):
    model = backbone.model
    pixels = torch.zeros(grids * height * width, 1176)
    grid = torch.tensor([[grids, height, width]])
    sizes = cost.VisionSizes.from_config(model.config.vision_config)
    assert cost.vision_flops(sizes, grids, height, width) == counted(model.get_video_features, pixels, grid)


@pytest.mark.parametrize("frames", [3, 150, 200, 333, 1000, 1001])
def test_audio(backbone, frames):
    model = backbone.model
    mel, mask = torch.zeros(1, 128, frames), torch.ones(1, frames, dtype=torch.long)
    sizes = cost.AudioSizes.from_config(model.config.audio_config)
    assert cost.audio_flops(sizes, frames) == counted(model.get_audio_features, mel, mask)


@pytest.mark.parametrize(
    "clip", [tiny.clip(5, 56, 84, 121.5), tiny.clip(4, 56, 56, None), tiny.clip(None, seconds=0.01)]
)
def test_encode(backbone, clip, monkeypatch):
    if clip.audio is not None:
        # The spectrogram's filter bank is no work of the model.
        mel = qwen_inputs.log_mel(clip.audio, backbone._extractor)
        monkeypatch.setattr(qwen_inputs, "log_mel", lambda *_: mel)
    vision, audio = backbone.encode_flops(clip)
    assert (vision > 0, audio > 0) == (clip.frames is not None, clip.audio is not None)
    assert vision + audio == counted(backbone.encode, clip)


def test_prefill_pruned_prefill_and_decode(backbone):
    stream = backbone.encode(tiny.clip(6, 56, 84, 3.0))
    assert counted(backbone.prefill, stream) == backbone.decoder_flops(len(stream), 0, 0)
    pruned = apply(stream, Selection((stream.modality != VIDEO).nonzero()[:, 0]))
    assert counted(backbone.prefill, pruned) == backbone.decoder_flops(len(pruned), 0, 0)
    prefix = backbone.prefill(pruned)
    assert counted_one_by_one(backbone, [5, 6, 7], prefix) == backbone.decoder_flops(3, len(pruned), 1)


@pytest.mark.parametrize("shape", [QWEN_3B, QWEN_7B])
def test_real_decoder_shapes_on_the_meta_device(shape):
    config = Qwen2_5OmniTextConfig(**shape, num_hidden_layers=2, attn_implementation="sdpa")
    sizes = cost.TextSizes.from_config(config)
    assert sizes.head_dim == 128
    with torch.device("meta"):
        model = Qwen2_5OmniThinkerTextModel(config).eval()
        head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        row, position = torch.zeros(1, 1, config.hidden_size), torch.zeros(3, 1, 1, dtype=torch.long)

        def run() -> None:
            cache = DynamicCache(config=config)
            for _ in range(40):
                hidden = model(inputs_embeds=row, position_ids=position, past_key_values=cache)
            head(hidden.last_hidden_state)

        assert counted(run) == cost.decoder_flops(sizes, 40, 0, 1)
        assert counted(run) == cost.decoder_flops(sizes, 30, 0, 0) + cost.decoder_flops(sizes, 10, 30, 1)


def test_kv_bytes_of_the_real_models():
    """36,864 and 57,344 bytes a token in bfloat16."""
    for shape, layers, expected in ((QWEN_3B, 36, 36_864), (QWEN_7B, 28, 57_344)):
        sizes = cost.TextSizes.from_config(Qwen2_5OmniTextConfig(**shape, num_hidden_layers=layers))
        assert cost.kv_bytes_per_token(sizes, 2) == expected


def test_kv_bytes_equal_the_cache(backbone):
    stream = backbone.encode(tiny.clip(2, 28, 28, 1.0))
    sizes = cost.TextSizes.from_config(backbone.model.config.text_config)
    assert backbone.prefill(stream).kv_bytes == len(stream) * cost.kv_bytes_per_token(sizes, 4)


def test_a_minute_of_video_on_the_7b():
    """60 s at 364 x 644, 2 fps: about 95, 4 and 330 TFLOP; of these the published 407 with attention's rectangle
    counted in full."""
    text = cost.TextSizes.from_config(Qwen2_5OmniTextConfig(**QWEN_7B))
    vision = cost.VisionSizes.from_config(Qwen2_5OmniVisionEncoderConfig(hidden_size=1280))
    audio = cost.AudioSizes.from_config(Qwen2_5OmniAudioEncoderConfig())
    assert cost.vision_flops(vision, 60, 26, 46) == pytest.approx(94.6e12, rel=0.01)
    assert cost.audio_flops(audio, 6000) == pytest.approx(3.9e12, rel=0.02)
    tokens = 17_940 + 1_500
    prefill, skipped = cost.decoder_flops(text, tokens, 0, 1), 28 * 4 * 3584 * sum(range(tokens))
    assert prefill == pytest.approx(330e12, rel=0.01) and prefill + skipped == pytest.approx(407e12, rel=0.01)
