"""What earlier runs have settled, told from the records that they left."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cg_cli.batch.job import POISON
from cg_cli.errors import UsageError
from cg_cli.records import SCHEMA

About = tuple[str, str, Any]  # video, question, id


@dataclass(frozen=True)
class _Settled:
    """A record that no run makes again."""

    video: str
    ok: bool


class History:
    """Records seen so far.

    Args:
        videos: paths of all files of this run. A settled record of another path counts for a file with its key: the
            file moved.
        retry: try failures again; poison never is.
    """

    def __init__(self, videos: Collection[str], retry: bool):
        self._videos, self._retry = videos, retry
        self._settled: dict[str, list[_Settled]] = defaultdict(list)
        self._failed: dict[About, int] = {}  # attempts, by what failed
        self.stale = False  # whether a failure was followed by another record of the same question

    def add(self, record: dict[str, Any]) -> None:
        """Take the next record of the file."""
        self.stale |= about(record) in self._failed
        if record["ok"]:
            self._settled[record["key"]].append(_Settled(record["video"], True))
            return
        if record["error"]["type"] == POISON or not self._retry:
            self._settled[record["key"]].append(_Settled(record["video"], False))
        self._failed[about(record)] = max(self.attempts(about(record)), record.get("attempts", 1))

    def claim(self, key: str, video: str) -> bool | None:
        """Whether there is a record with ``key`` that is settled: True for an answer, False for a failure, None for
        neither. Each record is claimed once, so that two copies of a file have a record each."""
        known = self._settled.get(key, [])
        moved = [entry for entry in known if entry.video not in self._videos]
        for entry in [entry for entry in known if entry.video == video] + moved:
            known.remove(entry)
            return entry.ok
        return None

    def attempts(self, what: About) -> int:
        """How often this failed before."""
        return self._failed.get(what, 0)


def about(record: dict[str, Any]) -> About:
    return record["video"], record["question"], record.get("id")


def parse(line: bytes, where: str) -> dict[str, Any]:
    """The record in a line of a file. UsageError if it holds none; ``where`` names it."""
    try:
        record = json.loads(line)
        if record["schema"] != SCHEMA or not (record["ok"] or record["error"]["type"]):
            raise ValueError
        record["key"], record["video"], record["question"]
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{where} is no record of cg: name another -o, --overwrite it, or remove that line") from None
    return record


def read(path: Path, videos: Collection[str], retry: bool) -> History:
    """The history in a file that nobody has to lock; empty if there is none. UsageError if it holds something else."""
    history = History(videos, retry)
    if path.is_file():
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and line.endswith(b"\n"):  # else torn: the run to come will cut it off
                    history.add(parse(line, f"{path}:{number}"))
    return history
