"""Initialization of the word embeddings that name something: the mean of the media tokens that show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cg_cli.nano.render import frame_clock
from cg_cli.nano.script import Script
from cg_cli.nano.things import AUDIBLE, CELLS, COLOURS, KINDS, VERBS
from cg_cli.nano.training.recipe import TOKEN_SCALE
from cg_cli.nano.training.towers import grid_labels, sound_labels

HEAD_SCALE = 0.05  # root mean square of a named word's row in the output layer at the start


@torch.no_grad()
def name_words(model, tok, clips: Iterable[tuple[Script, dict[str, Tensor]]]) -> None:
    """Initialize each word that names something with the mean of the tokens of what it names, less that of all tokens.

    So a name resembles what it names before the first step, in questions and in answers. Without this, finding the
    few tokens of a small thing among a thousand took most of the training (docs/notes/nano.md).
    """
    rows: dict[str, list[Tensor]] = defaultdict(list)
    for script, features in clips:
        for word, tokens in named_tokens(script, features):
            rows[word].append(tokens.float())
    means = {word: torch.cat(tokens).mean(0) for word, tokens in rows.items()}
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    for name in (*KINDS, *COLOURS, "top", "bottom", "left", "right"):
        parts = [
            means[word] - means[word.split(" ")[0]] for word in (f"video {name}", f"audio {name}") if word in means
        ]
        total = torch.zeros_like(parts[0])
        for part in parts:
            total += F.normalize(part, dim=0)
        vector = F.normalize(total, dim=0) * len(parts[0]) ** 0.5
        forms = [name, f"{name}s", *([VERBS[name]] if name in VERBS else [])]
        for text in {variant for form in forms for variant in (form, f" {form}", form.capitalize())}:
            ids = tok(text).input_ids
            if len(ids) == 1:
                embedding[ids[0]] = vector * TOKEN_SCALE
                head[ids[0]] = vector * HEAD_SCALE


def named_tokens(script: Script, features: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """(what it shows or sounds like, tokens [n, D]) for everything that a word can name in a clip; "video" and "audio"
    alone are all tokens."""
    clock = frame_clock(script.duration)
    labels = [grid_labels(script, (clock[2 * g], clock[2 * g + 1])) for g in range(script.duration)]
    kind, colour, _ = (torch.from_numpy(np.concatenate(x)) for x in zip(*labels))
    place = torch.arange(len(kind)) % CELLS**2
    sound = sound_labels(script)
    yield "video", features["video"]
    yield "audio", features["audio"]
    for index, name in enumerate(KINDS, start=1):
        yield f"video {name}", features["video"][kind == index]
    for index, name in enumerate(COLOURS, start=1):
        yield f"video {name}", features["video"][colour == index]
    for name, where in (
        ("top", place < CELLS**2 // 2),
        ("bottom", place >= CELLS**2 // 2),
        ("left", place % CELLS < CELLS // 2),
        ("right", place % CELLS >= CELLS // 2),
    ):
        yield f"video {name}", features["video"][where]
    for index, name in enumerate(AUDIBLE, start=1):
        yield f"audio {name}", features["audio"][sound == index]
