"""How many files a worker decodes at a time: as many as its model needs, within the cores and the memory of the
machine."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import NamedTuple

from cg_cli.errors import UsageError

AUTO = "auto"
FIRST = 4  # decode processes of one model before anything is measured
CLIPS = 8  # that are looked at before there are more
WAITING_SHARE = 0.05  # of the time of these clips that a model may wait for files
DECODER_BYTES = 2 << 30  # of a decode process, at most 1 GiB, and of the clip that it hands over


class Decoders(NamedTuple):
    """Decode processes of one worker: at the start, and at most."""

    first: int
    most: int


def number_or_auto(option: str, value: str) -> int | None:
    """The number that ``option`` says, or None for "auto". UsageError if it is neither."""
    if value == AUTO:
        return None
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise UsageError(f"{option} {value}: give a number from 1 on, or {AUTO}")
    return int(value)


def parse(value: str, cores: int, workers: int) -> Decoders:
    """What ``--decoders`` says for each of ``workers`` on a machine: a number, or "auto", which leaves them a core.
    UsageError if it is neither."""
    number = number_or_auto("--decoders", value)
    if number is None:
        most = max(1, (cores - 1) // workers)
        return Decoders(min(FIRST, most), most)
    return Decoders(number, number)


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class Demand:
    """Measures whether a model lacks files.

    Attributes:
        count: decode processes at present.
        most: of them.
    """

    count: int
    most: int
    _clips: int = -1  # since the last change; the first clip of all waits for the start
    _starved: int = 0
    _waited_s: float = 0.0
    _worked_s: float = 0.0

    def add(self, waited_s: float, worked_s: float, *, starved: bool) -> None:
        """Count a clip: how long the model waited for it and was at it, and whether it was decoded with fewer others
        than there was room for, as no other was ready."""
        self._clips += 1
        if self._clips:
            self._starved += starved
            self._waited_s += waited_s
            self._worked_s += worked_s

    def grow(self, free_bytes: int) -> int:
        """How many decode processes to add, for which ``free_bytes`` of memory are there; they count from now on.

        The model waits for w of its t seconds, so t / (t - w) times as many would keep it busy: at most twice as many
        are tried at once. A model that only lacks others to decode with gets one more.
        """
        if self._clips < CLIPS:
            return 0
        total, worked = self._waited_s + self._worked_s, self._worked_s
        waits, starves = self._waited_s > WAITING_SHARE * total, 2 * self._starved > self._clips
        wanted = math.ceil(self.count * total / worked) if waits and worked else self.count
        self._clips, self._starved, self._waited_s, self._worked_s = 0, 0, 0.0, 0.0
        if not waits and not starves:
            return 0
        wanted = min(max(wanted, self.count + 1), 2 * self.count, self.most)
        more = max(0, min(wanted - self.count, free_bytes // DECODER_BYTES))
        self.count += more
        return more
