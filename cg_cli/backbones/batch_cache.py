"""The KV caches of several clips side by side, padded, with room for what follows them: written in place, a step at a
time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

ROOM = 128  # entries that are added when there is no room left


class BatchCache(DynamicCache):
    """A row for each clip. Entries [0, start) are its prefix, padded behind; what is fed later takes the same places in
    all rows.

    Args:
        config: of the language model.
        caches: of the prefixes, of one row each; ``bias`` is the log of their merge sizes.
        lengths: entries of each.
        room: entries that will follow, about.
    """

    def __init__(self, config: Any, caches: Sequence[Any], lengths: Sequence[int], room: int):
        super().__init__(config=config)
        self.start = self.filled = max(lengths)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        for place in ("keys", "values"):
            for layer in range(len(caches[0].layers)):
                parts = [getattr(cache.layers[layer], place) for cache in caches]
                whole = parts[0].new_zeros(len(parts), parts[0].shape[1], self.start + room, parts[0].shape[3])
                for row, (part, length) in enumerate(zip(parts, lengths)):
                    whole[row, :, :length] = part[0, :, :length]
                (self._keys if place == "keys" else self._values).append(whole)
        device = self._keys[0].device
        # What is added to the logits of attention to a prefix, [rows, start] float32: the log of the merge size.
        self.bias = torch.full((len(caches), self.start), -torch.inf, device=device)
        for row, (cache, length) in enumerate(zip(caches, lengths)):
            self.bias[row, :length] = 0.0 if cache.bias is None else cache.bias[:length]

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """As ``DynamicCache.update``: what a layer attends to, the new entries included."""
        stop = self.filled + key_states.shape[2]
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if stop > keys.shape[2]:
            more = max(ROOM, stop - keys.shape[2])
            keys, values = (torch.cat([x, x.new_zeros(*x.shape[:2], more, x.shape[3])], dim=2) for x in (keys, values))
            self._keys[layer_idx], self._values[layer_idx] = keys, values
        keys[:, :, self.filled : stop] = key_states
        values[:, :, self.filled : stop] = value_states
        return keys[:, :, :stop], values[:, :, :stop]

    def advance(self, count: int) -> None:
        """``count`` entries were fed, in every layer."""
        self.filled += count

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(rows, device=self.bias.device)
        self.bias = self.bias[index]
        for layers in (self._keys, self._values):
            for number, layer in enumerate(layers):
                layers[number] = layer[index]  # one layer at a time, so that no second cache is held

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.filled
