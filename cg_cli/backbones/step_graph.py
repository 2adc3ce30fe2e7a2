"""CUDA graphs for decoding: a step whose shapes stay is recorded once and replayed, without Python and without the
launch of every kernel, which together take longer than reading the weights of a 7B model (28 layers, 1,600 calls)."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from cg_cli.backbones.batch_cache import BatchCache

MOST_TOKENS = 64  # of a step that is recorded: with more, kernels take longer than their launches
log = logging.getLogger(__name__)

# (ids [B, n], positions [B, n], mask [B, 1, n, L], cache, last [m], of the B * n tokens) -> logits [m, vocabulary]
Step = Callable[[Tensor, Tensor, Tensor, BatchCache, Tensor], Tensor]


class GraphedStep:
    """Steps of one cache, recorded where that helps: the second in a row with the same shapes is recorded, and those
    after it are replayed. Where recording fails, the cache's ``static`` is set off."""

    def __init__(self, step: Step, cache: BatchCache):
        self._step, self._cache = step, cache
        self._seen: tuple | None = None
        self._graph: _Recorded | None = None

    def __call__(self, ids: Tensor, positions: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """As ``step``."""
        shapes = (ids.shape, mask.shape, last.shape)
        again, self._seen = shapes == self._seen, shapes
        if not again:
            self._graph = None  # its memory is free for the next one
        if not (again and self._cache.static and ids.numel() <= MOST_TOKENS):
            return self._step(ids, positions, mask, self._cache, last)
        if self._graph is None:
            try:
                self._graph = _Recorded(self._step, ids, positions, mask, self._cache, last)
            except RuntimeError as error:  # an operation that cannot be recorded, or no memory for it
                log.warning("decoding goes on without CUDA graphs, and slower: %s", str(error).partition("\n")[0])
                self._cache.static = False
                mask = mask[..., : self._cache.filled + ids.shape[1]]
                return self._step(ids, positions, mask, self._cache, last)
        return self._graph.replay(ids, positions, mask, self._cache.slots, last)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: cuBLAS keeps memory for each stream that it has seen."""
    return torch.cuda.Stream(device)


class _Warm(threading.local):
    """Devices on which this thread has made a step in the recordings' stream: cuBLAS has a handle for each thread, and
    memory for each handle and stream, which must not come from the memory of a recording."""

    def __init__(self) -> None:
        self.devices: set[torch.device] = set()


_warm = _Warm()


class _Recorded:
    """A recorded step, and the tensors that it reads and writes. A step of the same shapes must have been made by the
    same thread, so that libraries have chosen and loaded their kernels."""

    def __init__(self, step: Step, ids: Tensor, positions: Tensor, mask: Tensor, cache: BatchCache, last: Tensor):
        self._inputs = [x.clone() for x in (ids, positions, mask, cache.slots, last)]
        ids, positions, mask, cache.slots, last = self._inputs
        self._graph = torch.cuda.CUDAGraph()
        stream = _stream(ids.device)
        stream.wait_stream(torch.cuda.current_stream())
        # The stream is ours, so that it is left also where recording fails.
        with torch.cuda.stream(stream):
            if ids.device not in _warm.devices:
                step(ids, positions, mask, cache, last)  # the entries are written twice, the same
                _warm.devices.add(ids.device)
            with torch.cuda.graph(self._graph, stream=stream):
                self._logits = step(ids, positions, mask, cache, last)
        torch.cuda.current_stream().wait_stream(stream)

    def replay(self, *inputs: Tensor) -> Tensor:
        for own, new in zip(self._inputs, inputs):
            own.copy_(new)
        self._graph.replay()
        return self._logits
