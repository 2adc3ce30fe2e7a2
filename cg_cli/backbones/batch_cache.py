"""The KV caches of several clips side by side, padded, with room for what follows them: written in place, a step at a
time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

ROOM = 64  # entries that are added when there is no room left


class BatchCache(DynamicCache):
    """A row for each clip. Entries [0, start) are its prefix, padded behind; what is fed later takes the same places in
    all rows.

    Attributes:
        start: entries of the longest prefix.
        filled: entries that are in use.
        bias: [rows, start], in the dtype of the keys, what is added to the logits of attention to a prefix: the log of
            the merge size, the lowest number where it pads.
        slots: [n] int64 on the device, where the entries go that are fed next.
        static: layers attend to all that there is room for, so that shapes stay from step to step; the mask has to
            leave out what is not in use. False: to what is in use alone.

    Args:
        caches: of the prefixes, of one row each; ``bias`` is the log of their merge sizes.
        lengths: entries of each.
        room: entries that will follow, about.
    """

    def __init__(self, caches: Sequence[Any], lengths: Sequence[int], room: int, *, static: bool = False):
        super().__init__()
        self.start = self.filled = max(lengths)
        self.static = static
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
        dtype = self._keys[0].dtype
        self.bias = torch.full((len(caches), self.start), torch.finfo(dtype).min, dtype=dtype, device=device)
        for row, (cache, length) in enumerate(zip(caches, lengths)):
            self.bias[row, :length] = 0.0 if cache.bias is None else cache.bias[:length]
        self.slots = torch.empty(0, dtype=torch.long, device=device)

    def reserve(self, count: int) -> int:
        """The next ``count`` entries are about to be fed. Returns how many entries layers will attend to."""
        stop = self.filled + count
        if stop > self._keys[0].shape[2]:
            more = max(ROOM, stop - self._keys[0].shape[2])
            for layers in (self._keys, self._values):
                for number, layer in enumerate(layers):  # one at a time, so that no second cache is held
                    layers[number] = torch.cat([layer, layer.new_zeros(*layer.shape[:2], more, layer.shape[3])], dim=2)
        self.slots = torch.arange(self.filled, stop, device=self.slots.device)
        return self._keys[0].shape[2] if self.static else stop

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """As ``DynamicCache.update``: what a layer attends to, the new entries included. Feeding the same entries again
        changes nothing."""
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        keys.index_copy_(2, self.slots, key_states)
        values.index_copy_(2, self.slots, value_states)
        if self.static:
            return keys, values
        stop = self.filled + key_states.shape[2]
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
