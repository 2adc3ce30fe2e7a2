"""The families with a small checkpoint: a new one is one more row, and gets the tests of
``test_families.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cg_cli.backbones import qwen_shapes
from cg_cli.backbones.qwen3_omni import model as qwen3_omni
from cg_cli.media.clip import Clip
from helpers import tiny, tiny_qwen3_omni, tiny_video_salmonn2


@dataclass(frozen=True)
class Family:
    """How a family is tested.

    Attributes:
        build: writes a small random checkpoint, in shards with an index, to a directory, and returns that.
        height, width: of a clip, in whole merged patches.
        log_mel: the function that makes its spectrograms.
        essential: of each part of the model, a piece of a weight's name.
        sizes: the table of its built-in shapes.
    """

    build: Callable[[Path], Path]
    height: int
    width: int
    log_mel: str
    essential: tuple[str, ...]
    sizes: dict[str, dict[str, int]]

    def clip(self, seed: int = 0, *, picture: bool = True, sound: bool = True) -> Clip:
        """Three seconds of noise."""
        return tiny.clip(6 if picture else None, self.height, self.width, 3.0 if sound else None, seed=seed)


FAMILIES = {
    "qwen3_omni": Family(
        tiny_qwen3_omni.build, 64, 96, "cg_cli.backbones.qwen_inputs.log_mel",
        ("visual.merger_list", "audio_tower.layers", "layers.1.self_attn.q_norm"), qwen3_omni.SIZES,
    ),
    "video_salmonn2": Family(
        tiny_video_salmonn2.build, 56, 84, "cg_cli.backbones.video_salmonn2.audio_tower.log_mel",
        ("visual.merger", "audio.conv2", "audio.q_tokens", "audio.qformer.bert.embeddings.LayerNorm",
         "model.layers.1.mlp"), qwen_shapes.SIZES,
    ),
}  # fmt: skip
