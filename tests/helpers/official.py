"""The same clip as transformers' own code wants it: raw inputs for ``model.generate``, made without cg_cli's layout."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList, WhisperFeatureExtractor
from transformers.models.qwen2_5_omni.processing_qwen2_5_omni import Qwen2_5OmniProcessor

from cg_cli.backbones.qwen2_5_omni.layout import SYSTEM_PROMPT
from cg_cli.media.clip import SAMPLE_RATE, Clip

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


def patches(frames: np.ndarray, side: int = 14, mean: np.ndarray = MEAN, std: np.ndarray = STD) -> np.ndarray:
    """Patch rows from the definition, one by one, in float64: [grids * h * w, 6 * side * side]."""
    if len(frames) % 2:
        frames = np.concatenate([frames, frames[-1:]])
    scaled = (frames / 255.0 - mean) / std
    rows = []
    for grid in range(len(frames) // 2):
        for block_y in range(frames.shape[1] // (2 * side)):
            for block_x in range(frames.shape[2] // (2 * side)):
                for dy in range(2):
                    for dx in range(2):
                        y, x = (block_y * 2 + dy) * side, (block_x * 2 + dx) * side
                        patch = scaled[2 * grid : 2 * grid + 2, y : y + side, x : x + side]  # [2, side, side, 3]
                        rows.append(np.moveaxis(patch, -1, 0).ravel())
    return np.stack(rows)


def placeholders(tokenizer: Any, grid: tuple[int, int, int] | None, audio: int, seconds_per_grid: float) -> str:
    """Media part of the prompt, by the official processor's own method (which cannot be built without torchvision)."""
    fake = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2),
        **{
            name: getattr(tokenizer, name)
            for name in ("audio_bos_token", "audio_eos_token", "audio_token", "video_token")
        },
    )
    fake.get_chunked_index = lambda *args: Qwen2_5OmniProcessor.get_chunked_index(fake, *args)
    if grid is None:
        return f"<|audio_bos|>{tokenizer.audio_token * audio}<|audio_eos|>"
    if not audio:
        return f"<|vision_bos|>{tokenizer.video_token * (int(np.prod(grid)) // 4)}<|vision_eos|>"
    inside = Qwen2_5OmniProcessor.replace_video_with_audio_token(
        fake,
        {"video_grid_thw": np.array([grid]), "video_second_per_grid": [seconds_per_grid]},
        0,
        {"num_audio_tokens": np.array([audio])},
        0,
        position_id_per_seconds=25,
        seconds_per_chunk=2,
    )
    return f"<|vision_bos|>{inside}<|vision_eos|>"


def inputs(tokenizer: Any, clip: Clip, question: str) -> dict[str, Any]:
    """Keyword arguments for ``model.generate``: the chat template with placeholders written out, pixels and mel."""
    arguments: dict[str, Any] = {}
    grid, audio = None, 0
    kind = "video" if clip.frames is not None else "audio"
    if clip.frames is not None:
        grid = ((len(clip.frames) + 1) // 2, clip.frames.shape[1] // 14, clip.frames.shape[2] // 14)
        arguments["pixel_values_videos"] = torch.tensor(patches(clip.frames), dtype=torch.float32)
        arguments["video_grid_thw"] = torch.tensor([grid])
        arguments["video_second_per_grid"] = torch.tensor([2 * clip.seconds_per_frame])
    if clip.audio is not None:
        extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300, return_attention_mask=True)
        mel = extractor(clip.audio, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt")
        arguments["input_features"], arguments["feature_attention_mask"] = mel["input_features"], mel["attention_mask"]
        audio = int(((mel["attention_mask"].sum() - 1) // 2 + 1 - 2) // 2 + 1)
        arguments["use_audio_in_video"] = clip.frames is not None
    seconds_per_grid = 2 * clip.seconds_per_frame
    text = chat(tokenizer, kind, question)
    media = placeholders(tokenizer, grid, audio, seconds_per_grid)
    bare = {"video": "<|vision_bos|><|VIDEO|><|vision_eos|>", "audio": "<|audio_bos|><|AUDIO|><|audio_eos|>"}[kind]
    assert text.count(bare) == 1
    ids = tokenizer(text.replace(bare, media), return_tensors="pt")["input_ids"]
    return arguments | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def chat(tokenizer: Any, kind: str, question: str) -> str:
    """The chat template's rendering of one question about one medium."""
    messages = [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]},
        {"role": "user", "content": [{"type": kind}, {"type": "text", "text": question}]},
    ]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


class Recorder:
    """A logits processor that keeps what it sees."""

    def __init__(self):
        self.logits = []

    def __call__(self, ids, scores):
        self.logits.append(scores[0].clone())
        return scores


def generate(backbone: Any, inputs: dict[str, Any], new: int) -> tuple[list[int], torch.Tensor]:
    """transformers' greedy tokens, at most ``new``, and the logits before each."""
    recorder = Recorder()
    with torch.no_grad():
        output = backbone.model.generate(
            **inputs, max_new_tokens=new, do_sample=False, logits_processor=LogitsProcessorList([recorder])
        )
    tokens = output[0, inputs["input_ids"].shape[1] :].tolist()
    stops = [index for index, token in enumerate(tokens) if token in backbone.stop_ids]
    return tokens[: stops[0]] if stops else tokens, torch.stack(recorder.logits)


def logits_of(backbone: Any, prefix: Any, question: str, tokens: list[int]) -> torch.Tensor:
    """The engine's logits before each of ``tokens``, [len(tokens), vocabulary]; leaves the prefix grown."""
    ids, position, rows = backbone.question_ids(question), prefix.next_position, []
    for token in tokens:
        rows.append(backbone.extend(ids, position, prefix.cache))
        position, ids = position + len(ids), [token]
    return torch.stack(rows)
