"""Clips of made-up tokens: on the left a texture that sounds, on the right one that does not, each class of textures a
set of looks, and silent objects on both; no model, no files."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cg_cli.pruning.stream import AUDIO, Selection, TokenStream, apply
from helpers.synthetic_stream import make_stream

DIM, SIDE, GRIDS = 40, 12, 4
CLASSES, LOOKS, KINDS, OBJECTS = 5, 8, 24, 8
NOISE = 1.4  # length of what is the patch's own, of looks that have length 1


class Clip(NamedTuple):
    """A stream; and of its video tokens [V] bool: which show the heard texture, which the unheard one, which
    objects."""

    stream: TokenStream
    heard: Tensor
    unheard: Tensor
    silent: Tensor


class World:
    """``shared`` is the part of its looks' variance that a class's mean has."""

    def __init__(self, shared: float):
        generator = torch.Generator().manual_seed(0)
        unit = lambda *shape: normalize(torch.randn(*shape, DIM, generator=generator), dim=-1)
        looks = lambda: shared**0.5 * unit(CLASSES, 1) + (1 - shared) ** 0.5 * unit(CLASSES, LOOKS)
        self.heard, self.unheard = looks(), looks()
        self.objects, self.sound = unit(KINDS), 3 * unit(CLASSES)

    def clip(self, seed: int, sound: str = "own") -> Clip:
        """The clip ``seed``; ``sound`` is "own", "another class's" (a dubbed clip), or "none"."""
        generator = torch.Generator().manual_seed(seed)
        draw = lambda most, *shape: torch.randint(most, shape, generator=generator)
        left_class, right_class = draw(CLASSES, 2).tolist()
        cells = SIDE * SIDE
        left = (torch.arange(cells) % SIDE < SIDE // 2).expand(GRIDS, -1)
        look = draw(LOOKS, GRIDS, cells)
        video = torch.where(left[:, :, None], self.heard[left_class][look], self.unheard[right_class][look])
        place = torch.stack([torch.randperm(cells, generator=generator)[:OBJECTS] for _ in range(GRIDS)])
        kind = torch.stack([torch.randperm(KINDS, generator=generator)[:OBJECTS] for _ in range(GRIDS)])
        silent = torch.zeros(GRIDS, cells, dtype=torch.bool).scatter_(1, place, True)
        video = video.scatter(1, place[:, :, None].expand(-1, -1, DIM), self.objects[kind])
        video = video + NOISE * normalize(torch.randn(video.shape, generator=generator), dim=-1)
        stream = make_stream(GRIDS, SIDE, SIDE, 20, dim=DIM, video=video.flatten(0, 1), seed=seed)
        audible = stream.modality == AUDIO
        heard_class = (left_class + 3) % CLASSES if sound == "another class's" else left_class
        rows = stream.embeddings.clone()
        rows[audible] = self.sound[heard_class] + torch.randn(int(audible.sum()), DIM, generator=generator)
        stream = replace(stream, embeddings=rows)
        if sound == "none":
            stream = apply(stream, Selection((~audible).nonzero()[:, 0]))
        return Clip(stream, (left & ~silent).flatten(), (~left & ~silent).flatten(), silent.flatten())
