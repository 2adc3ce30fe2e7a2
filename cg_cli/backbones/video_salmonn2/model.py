"""video-SALMONN 2+: the vision tower and the language model of Qwen2.5-VL, with an audio tower of its own
(``audio_tower``).

    <|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n<|im_start|>user\\n    header
    <|vision_start|> VVVVAVVVVAVVVV..A <|vision_end|>    each grid, then its sound; the prefix ends here
    \\nquestion <|im_end|>\\n<|im_start|>assistant\\n

Two sets of positions are published. The model was trained on one in which picture and sound run on the clip's clock;
the published inference code loses the sound's length and the frames' times on the way and computes another
(``run_test`` in dataset.py and ``get_rope_index`` in modeling_qwen2_5_vl.py of bytedance/video-SALMONN-2). Which are
used is the backbone's ``positions``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from cg_cli.backbones import grouped_attention, loading, lora, mrope, qwen_shapes, repeated
from cg_cli.backbones.checkpoint import Checkpoint
from cg_cli.backbones.layout import Layout, MediaShape, compose, raster
from cg_cli.backbones.video_salmonn2 import FAMILY, audio_tower
from cg_cli.backbones.video_salmonn2.audio_tower import SEGMENT_TOKENS, WINDOW_S, AudioTower
from cg_cli.errors import UsageError
from cg_cli.media.repeats import block_sources

AUDIO_TOKEN = "<|audio_pad|>"  # stands for sound in the prompt of its own code
DELIMITERS = ("<|vision_start|>", "<|vision_end|>")
PER_SECOND = 2  # positions, and audio tokens
TRAINING, INFERENCE = FAMILY.positions
POSITIONS = 128_000
TIED = {"3b": True, "7b": False}  # whether the head is the embedding


def shape_config(size: str, layers: int | None) -> tuple[Qwen2_5_VLConfig, dict[str, Any]]:
    """The config of ``size`` and its ``audio_config``, cut to at most ``layers`` layers in each part."""
    text = qwen_shapes.SIZES[size]
    config = Qwen2_5_VLConfig(
        text_config=text
        | {"max_position_embeddings": POSITIONS, "rms_norm_eps": 1e-6, "rope_parameters": qwen_shapes.ROTARY},
        vision_config={"hidden_size": qwen_shapes.VISION_WIDTH, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=TIED[size],
    )
    encoder_layers, qformer_layers = audio_tower.ENCODER_LAYERS, audio_tower.QFORMER_LAYERS
    audio: dict[str, Any] = {"encoder_layers": encoder_layers}
    if layers is not None:
        qwen_shapes.cut(config.text_config, config.vision_config, layers)
        audio["encoder_layers"] = min(layers, encoder_layers)
        audio["qformer_config"] = {"num_hidden_layers": min(layers, qformer_layers)}
    return config, audio


class VideoSalmonn2(mrope.MRopeBackbone):
    """A loaded model. See ``Backbone`` for the contract."""

    family = FAMILY.name
    model_class = Qwen2_5_VLForConditionalGeneration
    side_multiple = 28  # pixels of a merged patch: 2 x 2 patches of 14
    frame_multiple = 2  # of a grid
    # Its own code reads sound alone, from the first sample on, and libswresample mixes it (``process_audio`` in
    # dataset.py, by torchcodec's AudioDecoder with one channel).
    audio_on_clock = False
    stereo_gain = math.sqrt(0.5)
    prompt_version = "video-salmonn2-chat/1"
    header = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    question_start = "\n"
    special_tokens = DELIMITERS

    def __init__(self, checkpoint: Checkpoint, model: Any, tower: AudioTower, tokenizer: Any):
        self._tower = tower.eval().requires_grad_(False)
        super().__init__(checkpoint, model, tokenizer)
        if "positions" in checkpoint.config:
            raise UsageError(f'config.json of {self.id} has "positions": take it out, and give --positions instead')
        self.positions = TRAINING
        self._audio_token = checkpoint.config.get("audio_token_id", tokenizer.get_vocab().get(AUDIO_TOKEN))
        self._extractor = audio_tower.extractor(self._tower.sizes["num_mel_bins"])
        grouped_attention.use_in_towers(model)

    @classmethod
    def load(cls, checkpoint: Checkpoint, *, device: str, dtype: str, quantize: str) -> Self:
        model, tokenizer = cls._load_model(checkpoint, device=device, dtype=dtype, quantize=quantize)
        tower = audio_tower.load(checkpoint, model.config.text_config.hidden_size, model.device, model.dtype)
        if checkpoint.adapter:
            lora.merge(nn.ModuleDict({"rest": model, "audio": tower}), checkpoint.adapter, _name_with_tower)
        return cls(checkpoint, model, tower, tokenizer)

    @classmethod
    def random_init(cls, size: str, layers: int | None, *, device: str, dtype: str, tokenizer: Path) -> Self:
        config, audio = shape_config(size, layers)

        def build(torch_dtype: torch.dtype) -> tuple[Any, AudioTower]:
            model = cls.model_class._from_config(config, dtype=torch_dtype, attn_implementation="sdpa")
            return model, AudioTower(audio, config.text_config.hidden_size, torch_dtype)

        checkpoint, (model, tower), tokens = loading.random_init(
            build, size, DELIMITERS, device=device, dtype=dtype, tokenizer=tokenizer
        )
        return cls(checkpoint, model, tower, tokens)

    @classmethod
    def _audio_tokens(cls, samples: int) -> int:
        return audio_tower.segment_count(samples) * SEGMENT_TOKENS

    def _delimiters(self, shape: MediaShape) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return DELIMITERS[:1], DELIMITERS[1:]

    def build_layout(self, header: int, shape: MediaShape) -> Layout:
        return prefix_layout(header, shape, self.positions or TRAINING)

    def _placeholders(self) -> tuple[int | None, int | None]:
        return self.model.config.video_token_id, self._audio_token

    @property
    def sound_block(self) -> int:
        return audio_tower.SEGMENT

    def sound_sources(self, audio: np.ndarray) -> np.ndarray:
        return block_sources(audio, audio_tower.SEGMENT, 0)

    def encode_audio(self, audio: np.ndarray, sources: np.ndarray) -> Tensor:
        fresh = repeated.compact(torch.from_numpy(audio), sources, audio_tower.SEGMENT).numpy()
        mel = audio_tower.log_mel(fresh, self._extractor, self.device).to(self.dtype)
        return torch.cat([self._tower(piece) for piece in mel.split(audio_tower.SEGMENTS)])

    def _audio_flops(self, samples: int) -> int:
        return self._tower.flops(audio_tower.segment_count(samples))


def _name_with_tower(name: str) -> str | None:
    """Where a weight of the published names is, in the transformers model (``rest``) or the tower (``audio``)."""
    if name.startswith(audio_tower.ROOT):
        inside = audio_tower.rename(name)
        return f"audio.{inside}" if inside.startswith(audio_tower.PARTS) else None
    return f"rest.{lora.qwen_name(name)}"


def prefix_layout(header: int, shape: MediaShape, rule: str) -> Layout:
    """Lay out ``header`` text tokens, the delimiters and the media.

    A grid's sound follows it: what starts before the next grid does, and after the last grid all that is left, the
    silence that fills the last segment included. Sound before the first grid, if that does not start at 0, precedes it.

    Args:
        rule: TRAINING: pictures at (time, row, column), sound beside them at (time, 0, time), without pictures at
            (time, time, 0); the text goes on after the latest time, or, without sound, after the largest position.
            INFERENCE: as if there were no sound and a grid a second: the first tokens get the pictures' positions,
            whatever they are, and the rest goes on as text.
    """
    start = header + 1
    grid, row, column = raster(shape)
    sound = torch.arange(shape.audio)
    starts = (shape.starts() * PER_SECOND).long()
    listed = torch.cat([2 * grid, 2 * torch.searchsorted(starts, sound, right=True) - 1])
    order = torch.argsort(listed, stable=True)
    if rule == TRAINING:
        picture = torch.stack([starts[grid], row, column])
        audio = torch.stack([sound, 0 * sound, sound] if shape.video else [sound, sound, 0 * sound])
        positions = torch.cat([picture, audio], dim=1)[:, order]
        reach = positions[0] if shape.audio else positions
    else:
        picture = torch.stack([grid * PER_SECOND, row, column])
        rest = sound + (int(picture.max()) + 1 if shape.video else 0)
        positions = reach = torch.cat([picture, rest.expand(3, -1)], dim=1)
    return compose(
        shape,
        order,
        positions + start,
        before=torch.arange(start),
        after=reach.max()[None] + start + 1,
        audio_s=sound * WINDOW_S,
    )
