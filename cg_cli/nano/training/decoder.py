"""Training of nano's decoder on the features of its frozen towers.

A step takes clips of one length. Each clip's question-answer pairs follow its prefix in one sequence; a pair attends to
the prefix and to itself only, at the positions it would have alone. Every audio and video token is there: nothing is
pruned or dropped in training.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

from ...backbones.qwen_layout import HEADER, QUESTION_END, Layout, MediaShape, marks, prefix_layout
from ...pruning.stream import AUDIO, TEXT, VIDEO
from ..questions import Question, questions
from ..render import frame_clock
from ..script import SECONDS, Script, write_script
from ..things import AUDIBLE, CELLS, COLOURS, KINDS, VERBS
from .features import feature_file, produce, save_whole
from .recipe import TOKEN_SCALE
from .towers import grid_labels, sound_labels

WORLD, VALIDATION_WORLD = 1, 2  # seeds of the clips that train and that check; from 100 on all are held out
VALIDATION_CLIPS = 60
TOKENS = 7_000  # media tokens a step, about
POOL_START, POOL_GROWTH = 60, 8  # clips that can be drawn at the first step, and more at each further one
SHORT_CLIPS, CLIPS = 2376, 3960  # the pool: first the short ones
SHORT = 8  # seconds, longest of the short clips
PER_CATEGORY = 2  # questions of one category that a clip is asked in one step
HEAD_SCALE = 0.05  # root mean square of a named word's row in the output layer at the start
EARLY = 0.55  # share of the steps on short clips only


@dataclass(frozen=True)
class Plan:
    """How many steps, and from them which clips."""

    steps: int
    seed: int

    def pool(self, step: int) -> int:
        """How many clips, from the first, can be drawn at ``step``."""
        limit = SHORT_CLIPS if step < EARLY * self.steps else CLIPS
        return min(limit, POOL_START + POOL_GROWTH * step)


def longest(index: int) -> int:
    """Seconds that training clip ``index`` may last."""
    return SHORT if index < SHORT_CLIPS else SECONDS[1]


def jobs() -> list[tuple[int, int, int]]:
    """(world, index, longest) of every clip whose features are needed, in the order in which they are."""
    train = [(WORLD, i, longest(i)) for i in range(CLIPS)]
    check = [(VALIDATION_WORLD, i, SECONDS[1]) for i in range(VALIDATION_CLIPS)]
    return train[:POOL_START] + check + train[POOL_START:]


class Reader:
    """Turns clips and questions into the decoder's input rows, positions, mask and targets."""

    def __init__(self, model, tok, folder: Path):
        self.model, self.tok, self.folder = model, tok, folder
        self.ids = tok.convert_tokens_to_ids
        self.header, self.question_end = tok(HEADER).input_ids, tok(QUESTION_END).input_ids

    @lru_cache(maxsize=None)  # noqa: B019 (one reader a run)
    def prefix(self, duration: int, parts: str) -> tuple[Tensor, Layout]:
        """Text ids and layout of a clip's prefix; ``parts`` is "av", "v" or "a"."""
        video, audio = (duration if "v" in parts else 0), (25 * duration if "a" in parts else 0)
        shape = MediaShape(video, CELLS, CELLS, audio, seconds_per_grid=1.0)
        opening, closing = marks(shape)
        return torch.tensor(self.header + self.ids([*opening, *closing])), prefix_layout(len(self.header), shape)

    def batch(self, clips: list[tuple[int, int, int]], asked: list[list[tuple[str, str]]], parts: str) -> dict[str, Tensor]:
        """Inputs for clips (world, index, duration) of one duration, each with (question, answer) texts."""
        ids, layout = self.prefix(clips[0][2], parts)
        embed = self.model.get_input_embeddings()
        rows = [self._pairs(pairs) for pairs in asked]
        longest = max(len(r["ids"]) for r in rows)
        pad = lambda key, value: torch.stack([F.pad(r[key], (0, longest - len(r[key])), value=value) for r in rows])  # noqa: E731
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
        }  # fmt: skip

    def _pairs(self, pairs: list[tuple[str, str]]) -> dict[str, Tensor]:
        out = defaultdict(list)
        for number, (question, answer) in enumerate(pairs):
            told = self.tok(answer).input_ids + [self.ids("<|im_end|>")]
            asked = self.tok(question).input_ids + self.question_end
            ids = asked + told
            out["ids"] += ids
            out["pair"] += [number] * len(ids)
            out["offset"] += range(len(ids))
            out["target"] += [0] * (len(asked) - 1) + told + [0]
            out["weight"] += [0.0] * (len(asked) - 1) + [len(told) ** -0.5] * len(told) + [0.0]
        return {key: torch.tensor(value) for key, value in out.items()}


def packed_attention(module, query, key, value, attention_mask, *, scaling, **kwargs):
    """Causal attention inside the prefix; the pairs after it attend by ``attention_mask`` [B, 1, Q, L] (True: may)."""
    key, value = (x.repeat_interleave(module.num_key_value_groups, dim=1) for x in (key, value))
    cut = key.shape[2] - attention_mask.shape[2]
    first = F.scaled_dot_product_attention(
        query[:, :, :cut], key[:, :, :cut], value[:, :, :cut], is_causal=True, scale=scaling
    )
    rest = F.scaled_dot_product_attention(query[:, :, cut:], key, value, attn_mask=attention_mask, scale=scaling)
    return torch.cat([first, rest], dim=2).transpose(1, 2), None


def _spoken(text: str, rng: np.random.Generator) -> str:
    """The question as people type it: sometimes in lower case, sometimes without the question mark."""
    if rng.random() < 0.3:
        text = text[0].lower() + text[1:]
    return text.rstrip("?.") if rng.random() < 0.2 else text


_SILENT_TOO = ("seen_kind", "silent", "brief", "digits")  # categories that a clip without its sound still answers
_BLIND_TOO = ("what_sound", "sounds", "first", "last", "first_of", "last_of")  # phrases that sound alone answers


def choose(pool: list[Question], parts: str, rng: np.random.Generator) -> list[Question]:
    """The questions of one clip for one step: at most PER_CATEGORY of a category, and only what ``parts`` can answer."""
    if parts == "v":
        pool = [q for q in pool if q.category in _SILENT_TOO]
    if parts == "a":
        pool = [q for q in pool if q.phrase in _BLIND_TOO]
    taken: dict[str, int] = defaultdict(int)
    out = []
    for i in rng.permutation(len(pool)):
        taken[pool[i].category] += 1
        if taken[pool[i].category] <= PER_CATEGORY:
            out.append(pool[i])
    return out


@torch.no_grad()
def name_words(model, tok, features: Path) -> None:
    """Start each word that names something at the mean of the tokens of what it names, less the mean of all tokens.

    So a name resembles what it stands for before the first step, in questions and in answers. Without this, finding the
    few tokens of a small thing among a thousand took most of the training (NOTES.md).
    """
    rows: dict[str, list[Tensor]] = defaultdict(list)
    for index in range(POOL_START):
        saved = torch.load(feature_file(features, WORLD, index), weights_only=True)
        for word, tokens in named_tokens(write_script(WORLD, index, longest(index)), saved):
            rows[word].append(tokens.float())
    means = {word: torch.cat(tokens).mean(0) for word, tokens in rows.items()}
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    for name in (*KINDS, *COLOURS, "top", "bottom", "left", "right"):
        parts = [means[word] - means[word.split(" ")[0]] for word in (f"video {name}", f"audio {name}") if word in means]
        vector = F.normalize(sum(F.normalize(part, dim=0) for part in parts), dim=0) * len(parts[0]) ** 0.5
        forms = [name, f"{name}s", *([VERBS[name]] if name in VERBS else [])]
        for text in {variant for form in forms for variant in (form, f" {form}", form.capitalize())}:
            ids = tok(text).input_ids
            if len(ids) == 1:
                embedding[ids[0]] = vector * TOKEN_SCALE
                head[ids[0]] = vector * HEAD_SCALE


def named_tokens(script: Script, saved: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """(what it shows or sounds like, tokens [n, D]) for everything that a word can name in a clip; "video" and "audio"
    alone are all tokens."""
    clock = frame_clock(script.duration)
    labels = [grid_labels(script, (clock[2 * g], clock[2 * g + 1])) for g in range(script.duration)]
    kind, colour = (torch.from_numpy(np.concatenate(x)) for x in zip(*labels))
    place = torch.arange(len(kind)) % CELLS**2
    sound = sound_labels(script)
    yield "video", saved["video"]
    yield "audio", saved["audio"]
    for index, name in enumerate(KINDS, start=1):
        yield f"video {name}", saved["video"][kind == index]
    for index, name in enumerate(COLOURS, start=1):
        yield f"video {name}", saved["video"][colour == index]
    for name, where in (
        ("top", place < CELLS**2 // 2),
        ("bottom", place >= CELLS**2 // 2),
        ("left", place % CELLS < CELLS // 2),
        ("right", place % CELLS >= CELLS // 2),
    ):
        yield f"video {name}", saved["video"][where]
    for index, name in enumerate(AUDIBLE, start=1):
        yield f"audio {name}", saved["audio"][sound == index]


def optimisers(model, steps: int) -> list[tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]]:
    """Muon for the matrices of the layers, AdamW for embeddings, head, biases and norms; warm-up, then cosine to 5 %."""
    layers = list(model.model.language_model.layers.parameters())
    matrices = [p for p in layers if p.ndim == 2]
    others = [p for p in layers if p.ndim != 2]
    others += [*model.model.language_model.embed_tokens.parameters(), *model.model.language_model.norm.parameters()]
    others += list(model.lm_head.parameters())
    pair = [
        torch.optim.Muon(matrices, lr=2e-3, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    rate = lambda i: min((i + 1) / 60, max(0.05, 0.5 + 0.5 * math.cos(math.pi * i / steps)))  # noqa: E731
    return [(o, torch.optim.lr_scheduler.LambdaLR(o, rate)) for o in pair]


def pair_logits(model, batch: dict[str, Tensor]) -> Tensor:
    """Scores [B, Q, vocabulary] after each token of the pairs. ``model`` must attend by ``packed_attention``."""
    hidden = model.model.language_model(
        inputs_embeds=batch["inputs_embeds"], position_ids=batch["position_ids"],
        attention_mask={"full_attention": batch["mask"]}, use_cache=False,
    ).last_hidden_state  # fmt: skip
    return model.lm_head(hidden[:, -batch["mask"].shape[2] :])


def use_packed_attention(model) -> None:
    AttentionInterface.register("nano_packed", packed_attention)
    model.set_attn_implementation({"text_config": "nano_packed"})


class Trainer:
    """What one run draws from: the pool of clips, and the questions asked about them at each step."""

    def __init__(self, model, tok, folder: Path, plan: Plan):
        self.model, self.folder, self.plan = model, folder, plan
        self.reader = Reader(model, tok, folder / "features")
        use_packed_attention(model)
        self.scripts = lru_cache(maxsize=None)(write_script)
        self._by_duration: dict[int, list[int]] = defaultdict(list)
        self._counted = 0  # clips of the pool that are in there

    def draw(self, step: int) -> tuple[list, list, str]:
        """Clips of one duration from the pool of this step, with their questions."""
        rng = np.random.default_rng([self.plan.seed, step, 3])
        size = self.plan.pool(step)
        anchor = int(rng.integers(size))
        duration = self.scripts(WORLD, anchor, longest(anchor)).duration
        same = self.by_duration(size)[duration]
        count = max(2, round(TOKENS / (89 * duration)))
        chosen = list(dict.fromkeys([anchor, *(same[i] for i in rng.integers(len(same), size=2 * count))]))[:count]
        parts = str(rng.choice(["av", "v", "a"], p=[0.92, 0.05, 0.03]))
        asked = []
        for index in chosen:
            picked = choose(questions(self.scripts(WORLD, index, longest(index))), parts, rng)
            asked.append([(_spoken(q.text(rng), rng), q.answer) for q in picked])
        keep = [i for i, pairs in enumerate(asked) if pairs]
        return [(WORLD, chosen[i], duration) for i in keep], [asked[i] for i in keep], parts

    def by_duration(self, size: int) -> dict[int, list[int]]:
        """The first ``size`` clips of the pool, which never shrinks, by their seconds."""
        for index in range(self._counted, size):
            self._by_duration[self.scripts(WORLD, index, longest(index)).duration].append(index)
        self._counted = size
        return self._by_duration

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of questions on the validation clips whose whole answer is the likeliest, word by word, by category."""
        hits: dict[str, list[float]] = defaultdict(list)
        for index in range(VALIDATION_CLIPS):
            rng = np.random.default_rng([VALIDATION_WORLD, index, 4])
            script = self.scripts(VALIDATION_WORLD, index, SECONDS[1])
            picked = choose(questions(script), "av", rng)
            clip = (VALIDATION_WORLD, index, script.duration)
            batch = self.reader.batch([clip], [[(q.text(rng), q.answer) for q in picked]], "av")
            with torch.autocast("cpu", torch.bfloat16):
                likeliest = pair_logits(self.model, batch).argmax(-1)
            wrong = (likeliest != batch["target"]) & (batch["weight"] > 0)
            for number, question in enumerate(picked):
                hits[question.category].append(float(not wrong[batch["pair"] == number].any()))
        return {name: float(np.mean(values)) for name, values in sorted(hits.items())}

    def wait(self, producer, world: int, index: int) -> None:
        """Until the features of clip ``index`` of ``world`` are there, and so those of the jobs before it."""
        while not feature_file(self.folder / "features", world, index).exists():
            if not producer.is_alive() and producer.exitcode:
                raise RuntimeError("the process that makes the features has died")
            time.sleep(0.2)


def train(model, tok, folder: Path, plan: Plan) -> None:
    """Train the decoder for ``plan.steps`` steps; checkpoints in ``folder`` make it resumable."""
    state_file = folder / "decoder.pt"
    (folder / "features").mkdir(exist_ok=True)
    saved = torch.load(folder / "towers.pt", weights_only=True)
    model.model.visual.load_state_dict(saved["visual"])
    model.model.audio_tower.load_state_dict(saved["audio"])
    context = multiprocessing.get_context("spawn")
    producer = context.Process(target=produce, args=(folder / "towers.pt", folder / "features", jobs()), daemon=True)
    producer.start()
    trainer = Trainer(model, tok, folder, plan)
    trainer.wait(producer, VALIDATION_WORLD, VALIDATION_CLIPS - 1)  # the jobs right after the first clips
    name_words(model, tok, folder / "features")
    pairs = optimisers(model, plan.steps)
    decoder = nn.ModuleDict({"model": model.model.language_model, "head": model.lm_head})
    start = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        decoder.load_state_dict(state["decoder"])
        for (optimiser, schedule), (o, s) in zip(pairs, state["optimisers"]):
            optimiser.load_state_dict(o)
            schedule.load_state_dict(s)
        start = state["step"]
    began, smooth = time.time(), None
    for step in range(start, plan.steps):
        trainer.wait(producer, WORLD, plan.pool(step) - 1)
        clips, asked, parts = trainer.draw(step)
        if not clips:
            continue
        batch = trainer.reader.batch(clips, asked, parts)
        scored = batch["weight"] > 0
        with torch.autocast("cpu", torch.bfloat16):
            logits = pair_logits(model, batch)[scored]
        loss = F.cross_entropy(logits.float(), batch["target"][scored], reduction="none")
        loss = (loss * batch["weight"][scored]).sum() / batch["weight"].sum()
        for optimiser, _ in pairs:
            optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        for optimiser, schedule in pairs:
            optimiser.step()
            schedule.step()
        smooth = loss.item() if smooth is None else 0.97 * smooth + 0.03 * loss.item()
        if step % 20 == 19:
            print(f"decoder {step + 1}/{plan.steps} loss {smooth:.4f} {time.time() - began:.0f}s", flush=True)
        if step % 100 == 99 or step + 1 == plan.steps:
            told = " ".join(f"{name} {value:.2f}" for name, value in trainer.validate().items())
            print(f"validation {step + 1}: {told}", flush=True)
            optimiser_states = [(o.state_dict(), s.state_dict()) for o, s in pairs]
            save_whole({"decoder": decoder.state_dict(), "optimisers": optimiser_states, "step": step + 1}, state_file)
