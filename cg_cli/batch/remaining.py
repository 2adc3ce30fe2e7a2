"""How long a run still takes, by the seconds of media that are left and not by clips, which differ in length."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from cg_cli.errors import ItemError
from cg_cli.media import DecodeWorker

LOOK_TIMEOUT_S = 5.0  # for the header of one file


class Remaining:
    """Reads the length that each file states, in a process of its own beside the run.

    Args:
        videos: paths of the files of a run.
    """

    def __init__(self, videos: Iterable[str]):
        self._left = dict.fromkeys(videos)
        self._lengths: dict[str, float | None] = {}  # seconds; None where a file states none
        self._closed = threading.Event()
        threading.Thread(target=self._look, args=(list(self._left),), daemon=True).start()

    def remove(self, video: str) -> None:
        """Nothing is left to do for ``video``."""
        self._left.pop(video, None)

    def seconds(self, media_s: float, took_s: float) -> float | None:
        """Seconds that the files left will take, if ``media_s`` seconds of media took ``took_s``; None while nothing is
        known. A file whose length is not known counts as the mean of those that are."""
        known = [length for length in self._lengths.copy().values() if length is not None]
        if not known or not media_s:
            return None
        mean = sum(known) / len(known)
        lengths = (self._lengths.get(video) for video in self._left)
        return sum(mean if length is None else length for length in lengths) * took_s / media_s

    def close(self) -> None:
        """Look no further."""
        self._closed.set()

    def _look(self, videos: list[str]) -> None:
        with DecodeWorker() as worker:
            for video in videos:
                if self._closed.is_set():
                    return
                if video in self._left:
                    try:
                        self._lengths[video] = worker.stated_duration(video, LOOK_TIMEOUT_S)
                    except ItemError:
                        self._lengths[video] = 0.0  # fails at once when it is its turn
