"""What the decoder reads in training: clips' features with their question-answer pairs packed behind them.

Clips of one batch are equally long. Each clip's pairs follow its prefix in one sequence; a pair attends to the prefix
and to itself only, at the positions it would have alone. Every audio and video token is there: nothing is pruned or
dropped in training.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

from cg_cli.backbones.qwen2_5_omni.layout import HEADER, QUESTION_END, Layout, MediaShape, delimiters, prefix_layout
from cg_cli.nano.things import CELLS
from cg_cli.nano.training.auxiliary import LATE_LAYER, LAYER, POINTING_HEADS, POINTING_LAYER
from cg_cli.nano.training.features import feature_file
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO


class Pair(NamedTuple):
    """A question, its answer, and the parts of the answer with the media tokens that show each ([V + A] bool)."""

    question: str
    answer: str
    parts: tuple[tuple[str, Tensor], ...] = ()


class Reader:
    """Turns clips and questions into the decoder's input rows, positions, mask and targets."""

    def __init__(self, model, tok, folder: Path):
        self.model, self.tok, self.folder = model, tok, folder
        self.ids = tok.convert_tokens_to_ids
        self.header, self.question_end = tok(HEADER).input_ids, tok(QUESTION_END).input_ids

    @cache  # noqa: B019 (one reader a run)
    def prefix(self, duration: int, parts: str) -> tuple[Tensor, Layout]:
        """Text ids and layout of a clip's prefix; ``parts`` is "av", "v" or "a"."""
        video, audio = (duration if "v" in parts else 0), (25 * duration if "a" in parts else 0)
        shape = MediaShape(video, CELLS, CELLS, audio, seconds_per_grid=1.0)
        opening, closing = delimiters(shape)
        return torch.tensor(self.header + self.ids([*opening, *closing])), prefix_layout(len(self.header), shape)

    def batch(self, clips: list[tuple[int, int, int]], pairs: list[list[Pair]], parts: str) -> dict[str, Tensor]:
        """Inputs for clips (world, index, duration) of one duration, each with its question-answer pairs."""
        ids, layout = self.prefix(clips[0][2], parts)
        embed = self.model.get_input_embeddings()
        rows = [self._pack(clip_pairs) for clip_pairs in pairs]
        longest = max(len(r["ids"]) for r in rows)
        pad = lambda key, value: torch.stack([F.pad(r[key], (0, longest - len(r[key])), value=value) for r in rows])
        text, pair, target, weight = pad("ids", 0), pad("pair", -1), pad("target", 0), pad("weight", 0.0)
        prefix = torch.zeros(len(clips), len(layout.modality), embed.embedding_dim)
        prefix[:, layout.modality == TEXT] = embed(ids)
        for place, (world, index, _) in enumerate(clips):
            saved = torch.load(feature_file(self.folder, world, index), weights_only=True)
            for name, kind in (("video", VIDEO), ("audio", AUDIO)):
                if name[0] in parts:
                    prefix[place, layout.modality == kind] = saved[name].float()
        after = (pad("offset", 0) + layout.next_position).expand(3, -1, -1)
        same = (pair[:, :, None] == pair[:, None, :]) & torch.ones(longest, longest, dtype=torch.bool).tril()
        mask = torch.cat([torch.ones(len(clips), longest, prefix.shape[1], dtype=torch.bool), same], dim=2)[:, None]
        return {
            "inputs_embeds": torch.cat([prefix, embed(text)], dim=1),
            "position_ids": torch.cat([layout.positions[:, None].expand(-1, len(clips), -1), after], dim=2),
            "mask": mask, "target": target, "weight": weight, "pair": pair,
            "video": (layout.modality == VIDEO).nonzero()[:, 0], "audio": (layout.modality == AUDIO).nonzero()[:, 0],
        }  # fmt: skip

    def evidence(self, pairs: list[list[Pair]], batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Where the words of the answers are shown: (clip [n], index of the token that predicts the word [n], tokens of
        the prefix [n, P] bool). Words that nothing shows are left out. For clips with video and audio."""
        clips, places, masks = [], [], []
        media = torch.cat([batch["video"], batch["audio"]])
        for clip, clip_pairs in enumerate(pairs):
            for number, pair in enumerate(clip_pairs):
                first = (
                    int((batch["pair"][clip] == number).nonzero()[0])
                    + len(self.tok(pair.question).input_ids)
                    + len(self.question_end)
                    - 1
                )
                ends = [sum(len(part) for part, _ in pair.parts[: i + 1]) for i in range(len(pair.parts))]
                for word, (start, _) in enumerate(self.tok(pair.answer, return_offsets_mapping=True).offset_mapping):
                    shown = next(mask for end, (_, mask) in zip(ends, pair.parts) if start < end)
                    if shown.any():
                        clips.append(clip)
                        places.append(first + word)
                        masks.append(media[shown])
        marked = torch.zeros(len(masks), batch["inputs_embeds"].shape[1] - batch["mask"].shape[2], dtype=torch.bool)
        for row, tokens in zip(marked, masks):
            row[tokens] = True
        return torch.tensor(clips), torch.tensor(places), marked

    def _pack(self, pairs: list[Pair]) -> dict[str, Tensor]:
        out: dict[str, list[float]] = defaultdict(list)
        for number, (question, answer, _) in enumerate(pairs):
            answer_ids = [*self.tok(answer).input_ids, self.ids("<|im_end|>")]
            question_ids = self.tok(question).input_ids + self.question_end
            ids = question_ids + answer_ids
            out["ids"] += ids
            out["pair"] += [number] * len(ids)
            out["offset"] += range(len(ids))
            out["target"] += [0] * (len(question_ids) - 1) + answer_ids + [0]
            out["weight"] += [0.0] * (len(question_ids) - 1) + [len(answer_ids) ** -0.5] * len(answer_ids) + [0.0]
        return {key: torch.tensor(value) for key, value in out.items()}


def packed_attention(module, query, key, value, attention_mask, *, scaling, pointing=None, **kwargs):
    """Causal attention inside the prefix; the pairs after it attend by ``attention_mask`` [B, 1, Q, L] (True: may).
    ``pointing``, where given, is a list that gets the pairs' attention in the pointing layer: [B, heads, Q, L]."""
    key, value = (x.repeat_interleave(module.num_key_value_groups, dim=1) for x in (key, value))
    cut = key.shape[2] - attention_mask.shape[2]
    first = F.scaled_dot_product_attention(
        query[:, :, :cut], key[:, :, :cut], value[:, :, :cut], is_causal=True, scale=scaling
    )
    # Written out, since the fused kernel's backward pass is slower than this on a CPU.
    blocked = torch.zeros(attention_mask.shape, dtype=query.dtype).masked_fill_(~attention_mask, -1e9)
    weights = (query[:, :, cut:] * scaling @ key.transpose(-1, -2) + blocked).softmax(-1)
    if pointing is not None and module.layer_idx == POINTING_LAYER:
        pointing.append(weights[:, POINTING_HEADS])
    return torch.cat([first, weights @ value], dim=2).transpose(1, 2), None


def use_packed_attention(model) -> None:
    """Set ``packed_attention`` as the attention of the decoder."""
    AttentionInterface.register("nano_packed", packed_attention)
    model.set_attn_implementation({"text_config": "nano_packed"})


class DecoderOutput(NamedTuple):
    """The decoder's outputs for a batch."""

    logits: Tensor  # [B, Q, vocabulary], after each token of the pairs
    middle: Tensor  # [B, L, D], states after LAYER layers
    late: Tensor  # [B, L, D], states after LATE_LAYER layers
    pointing: Tensor  # [B, heads, Q, L], attention of the pairs in the pointing layer


def forward(model, batch: dict[str, Tensor]) -> DecoderOutput:
    """The decoder's forward pass over a batch. ``model`` must attend by ``packed_attention``."""
    pointing: list[Tensor] = []
    out = model.model.language_model(
        inputs_embeds=batch["inputs_embeds"], position_ids=batch["position_ids"], pointing=pointing,
        attention_mask={"full_attention": batch["mask"]}, use_cache=False, output_hidden_states=True,
    )  # fmt: skip
    logits = model.lm_head(out.last_hidden_state[:, -batch["mask"].shape[2] :])
    return DecoderOutput(logits, out.hidden_states[LAYER], out.hidden_states[LATE_LAYER], pointing[0])
